"""Run by `tox -e third-party` from an empty folder: the installed wheel, a stranger's plugin, and a broken one beside it."""

import json
import subprocess
import sys
from pathlib import Path

CONDITIONERS = '{"caption": {"class_path": "HelloConditioner"}}'
FIT = [
    "fit", "--model", "FlowModel", "--model.backbone", "HelloBackbone", "--model.conditioners", CONDITIONERS, "--data", "HelloLatents",
    "--trainer.max_steps", "2", "--trainer.accelerator", "cpu", "--trainer.limit_val_batches", "1", "--trainer.logger", "false",
    "--trainer.default_root_dir", "run",
]  # fmt: skip


def moviegen(*args: str, succeeds: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the installed command."""
    outcome = subprocess.run([sys.executable, "-m", "moviegen_core", *args], capture_output=True, text=True)
    assert (outcome.returncode == 0) is succeeds, f"moviegen {' '.join(args)}\n{outcome.stdout}\n{outcome.stderr}"
    return outcome


def main() -> None:
    """Check, loudly."""
    import moviegen_core

    assert "site-packages" in moviegen_core.__file__, f"the checkout is imported, not the wheel: {moviegen_core.__file__}"
    listed = moviegen("plugins", "list", "--json")
    status = {plugin["name"]: plugin["status"] for plugin in json.loads(listed.stdout)}
    assert status.pop("broken") == "failed" and set(status.values()) == {"loaded"} and "hello" in status, status
    for part in ("moviegen-broken 6.6.6", "no flux capacitor on this machine", "MOVIEGEN_BLOCK_PLUGINS=broken"):
        assert part in listed.stderr, listed.stderr
    presets = json.loads(moviegen("presets", "list", "--json").stdout)
    assert presets, "the wheel ships no presets"
    debug = [preset["name"] for preset in presets if preset["name"].endswith("debug")]
    assert debug, presets
    moviegen("presets", "show", debug[0])
    moviegen(*FIT)
    (checkpoint,) = Path("run/checkpoints").glob("*step=2.ckpt")
    moviegen("fit", "--config", debug[0], "--trainer.enable_progress_bar", "false")
    told = moviegen("fit", "--model", "FlowModle", succeeds=False).stderr
    assert "the nearest class is 'FlowModel'" in told, told
    print(f"{len(status)} plugins, {len(presets)} presets; trained {checkpoint} and {debug[0]} beside a broken plugin")


if __name__ == "__main__":
    main()
