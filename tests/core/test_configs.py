"""Every YAML we ship parses, builds on the meta device, and, where it is called debug, trains two CPU steps."""

from pathlib import Path

import pytest
import torch
import yaml

from moviegen_core.cli import main
from moviegen_core.presets import compose, core_preset_directory, find_presets, load
from moviegen_core.sizes import measure
from moviegen_data.curation.command import read_config

CONFIGS = core_preset_directory().parent
NAMES = [preset.name for preset in find_presets() if preset.package == "moviegen"]
RUNNABLE = [name for name in NAMES if "model" in compose([name])]  # the others are only included, or no training
CURATION = [name for name in NAMES if "stages" in compose([name])]


def printed(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What `--print_config` prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["fit", *args, "--print_config"])
    out, err = capsys.readouterr()
    assert not stop.value.code, err
    return out


def test_there_are_presets():
    assert RUNNABLE


@pytest.mark.parametrize("name", RUNNABLE)
def test_preset_parses_and_its_printed_config_parses_to_itself(name, capsys, tmp_path):
    once = printed(["--config", name], capsys)
    (tmp_path / "printed.yaml").write_text(once)
    assert printed(["--config", str(tmp_path / "printed.yaml")], capsys) == once
    assert yaml.safe_load(once)["model"]["class_path"].startswith("moviegen_")


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_file_says_what_it_is_and_composes(path: Path):
    assert path.read_text().startswith("# "), "the first line is the summary that `moviegen presets list` shows"
    config = load(path)
    unknown = set(config) - {"trainer", "model", "data", "sampler", "seed_everything", "ckpt_path", "stages", "shards"}
    assert not unknown, f"unknown sections {unknown}"


def test_fragments_are_included_somewhere():
    included = {Path(item).name for path in CONFIGS.rglob("*.yaml") for item in (yaml.safe_load(path.read_text()) or {}).get("include", [])}
    prediction = {name for name in NAMES if "predict" in Path(name).name}  # the checkpoint they are run with knows its model
    lonely = [name for name in set(NAMES) - set(RUNNABLE) - set(CURATION) - prediction if Path(name).name + ".yaml" not in included]
    assert not lonely, f"{lonely} have no model and nobody includes them"


LAID_OVER = [
    ["curation/small", "curation/models"],
    ["curation/high_res", "curation/models", "curation/humans"],
    ["curation/low_res", "curation/models", "curation/people"],
]


@pytest.mark.parametrize("names", [[name] for name in CURATION] + LAID_OVER, ids="+".join)
def test_stages_of_curation_build(names):
    stages, _ = read_config(names)
    assert len(stages) == sum(entry is not None for entry in compose(names)["stages"].values()) > 1


@pytest.mark.parametrize("name", CURATION[:1])
def test_a_preset_of_curation_is_no_training(name, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--config", name])
    assert "moviegen data curate" in capsys.readouterr().err


@pytest.mark.parametrize("name", RUNNABLE)
def test_preset_builds_on_the_meta_device(name):
    sizes = measure(name)
    assert sizes["total"] > 0
    assert all(size["total"] or size.get("note") for size in sizes["components"].values()), sizes


@pytest.mark.parametrize("name", [name for name in RUNNABLE if "debug" in name])
def test_debug_preset_trains_two_cpu_steps(name, tmp_path, monkeypatch):
    steps = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, closure=None: (steps.append(1), step(self, closure))[1])
    monkeypatch.chdir(tmp_path)
    main(["fit", "--config", name, "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"])
    assert len(steps) >= 2


def test_the_debug_preset_predicts_what_its_data_asks_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    writer = "{class_path: PredictionWriter, init_args: {output: films, formats: [strip]}}"
    main(["predict", "--config", "t2v/debug", f"--trainer.callbacks=[{writer}]", "--trainer.enable_progress_bar", "false"])
    assert len(list((tmp_path / "films").glob("*.png"))) == 2


@pytest.mark.parametrize("name", RUNNABLE)
def test_training_leaves_a_checkpoint(name: str):
    """Without data to validate on, Lightning's own callback saves nothing where validations are counted in steps."""
    trainer = load(CONFIGS / "experiment" / f"{name}.yaml").get("trainer", {})
    if trainer.get("max_steps") is None or trainer.get("enable_checkpointing") is False or Path(name).name in ("latents", "predict"):
        return
    callbacks = [callback["class_path"] for callback in trainer.get("callbacks", [])]
    assert any("Checkpoint" in callback for callback in callbacks), f"{name} has {callbacks}"
