"""One prompt to one film."""

import os
import tempfile
from pathlib import Path

from moviegen_core.errors import UsageError


def generate(
    prompt: str,
    *,
    output: str = "film.mp4",
    checkpoint: str = "quickstart/t2v/chosen.ckpt",
    seed: int = 0,
    steps: int = 25,
    guidance_scale: float = 3.0,
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    fps: float | None = None,
) -> None:
    """Generate one film from one prompt with a trained text-to-video model.

    Args:
        prompt: what the film shall show.
        output: the file to write, ending in .mp4; an image (num_frames 1) is written as .png.
        checkpoint: a checkpoint of text-to-video training; the quickstart's unless given.
        seed: chooses the noise.
        steps: solver steps.
        guidance_scale: how strictly the prompt is followed; 1 is not at all stricter than the model was trained.
        num_frames: frames; the model's own number unless given.
        height: rows in pixels, likewise.
        width: columns in pixels, likewise.
        fps: frames per second to ask for by the prompt's prefix; only for models trained with it.
    """
    from moviegen_core.cli import main

    if not prompt.strip():
        raise UsageError("an empty prompt was given", "a prompt is a sentence that says what to show", "describe the film")
    if not Path(checkpoint).is_file():
        raise UsageError(
            f"--checkpoint {checkpoint} was given", "there is no such file", "train a model first, e.g. with `moviegen quickstart`"
        )
    target = Path(output)
    target.parent.mkdir(parents=True, exist_ok=True)
    sizes = {"num_frames": num_frames, "height": height, "width": width, "fps": fps}
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".generate-") as folder:
        main(
            ["predict", "--config", "predict", f"--ckpt_path={checkpoint}", f"--model.seed={seed}"]
            + [f"--data.prompts=[{_quoted(prompt)}]", "--data.keys=[film]", f"--sampler.steps={steps}"]
            + [f"--sampler.guidance_scale={guidance_scale}", f"--trainer.callbacks.output={folder}", "--trainer.callbacks.formats=[mp4]"]
            + [f"--data.{name}={value}" for name, value in sizes.items() if value is not None]
        )
        (made,) = [path for path in Path(folder).iterdir() if path.suffix in (".mp4", ".png")]
        target = target if made.suffix == ".mp4" else target.with_suffix(".png")
        os.replace(made, target)
    print(f"wrote {target}")


def _quoted(text: str) -> str:
    """As a YAML scalar that is read back as it was."""
    import json

    return json.dumps(text, ensure_ascii=False)
