"""The quickstart's report: figures as json, and a page with films, curves and a table."""

import html
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from moviegen_core.files import write_bytes

Curve = Sequence[tuple[int, float]]

_PACKAGES = ("moviegen", "torch", "lightning", "jsonargparse", "webdataset", "transformers", "av")


@dataclass(frozen=True)
class Figures:
    """What the quickstart measured.

    Args:
        oracle: share of held-out prompts whose film shows the asked colour, shape and motion.
        chance: the same for guessing.
        ablation: the same for the model with the text dropped.
        two_objects: the same for prompts with two objects (no bar is set for them).
        reconstruction: the same for held-out films passed through the autoencoder alone, the ceiling of all others.
        num_pairs: number of single-object prompt-and-seed pairs.
        spread: share of the toy world's ranges that scenes were drawn from.
        psnr_db: reconstruction quality of the autoencoder on held-out films.
        hearing: what the oracle for sound hears in generated sounds, by what was given (`hearing_figures`); empty where there are none.
        seconds: time spent by stage.
    """

    oracle: Mapping[str, float]
    chance: Mapping[str, float]
    ablation: Mapping[str, float]
    two_objects: Mapping[str, float]
    reconstruction: Mapping[str, float]
    num_pairs: int
    spread: float
    psnr_db: float
    hearing: Mapping[str, Any]
    seconds: Mapping[str, float]

    def hearing_table(self) -> dict[str, dict[str, str]]:
        """Onset F1, timbre and pitch as percent, by what the model was given, and for guessing."""
        names = {"onset_f1": "onset F1", "timbre": "timbre", "pitch": "timbre and pitch"}
        rows = {given: values for given, values in self.hearing.items() if isinstance(values, Mapping)}
        return {
            given: {title: f"{100 * values[name]:.0f} %" if name in values else "-" for name, title in names.items()}
            for given, values in rows.items()
        }


def versions() -> dict[str, str]:
    """Versions of what made the report."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def write_report(folder: Path, figures: Figures) -> None:
    """Write `report.json`."""
    content = {**figures.__dict__, "versions": versions()}
    write_bytes(folder / "report.json", json.dumps(content, indent=2).encode())


def read_scalars(run: Path, names: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
    """Curves from the TensorBoard events below a folder: steps and values by tag."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    curves: dict[str, list[tuple[int, float]]] = {name: [] for name in names}
    for events in sorted(run.rglob("events.out.tfevents.*")):
        accumulator = EventAccumulator(str(events), size_guidance={SCALARS: 0})
        accumulator.Reload()
        for name in set(names) & set(accumulator.Tags()["scalars"]):
            curves[name] += [(event.step, event.value) for event in accumulator.Scalars(name)]
    return {name: sorted(points) for name, points in curves.items() if points}


def write_page(
    folder: Path, figures: Figures, films: Sequence[tuple[str, Path]], curves: Mapping[str, Sequence[tuple[int, float]]]
) -> None:
    """Write `index.html`; it shows the files beside it and needs nothing from elsewhere."""
    rows = [
        ("text-to-video, held-out combinations", figures.oracle),
        ("the same model, text dropped", figures.ablation),
        ("chance", figures.chance),
        ("autoencoder alone (ceiling)", figures.reconstruction),
        ("two objects (no bar)", figures.two_objects),
    ]
    attributes = ("colour", "shape", "motion")
    table = "".join(
        f"<tr><td>{html.escape(name)}</td>" + "".join(f"<td>{100 * values[key]:.0f} %</td>" for key in attributes) + "</tr>"
        for name, values in rows
    )
    hearing = figures.hearing_table()
    heads = "".join(f"<th>{html.escape(title)}</th>" for title in next(iter(hearing.values()), {}))
    heard = "".join(
        f"<tr><td>{html.escape(given)}</td>" + "".join(f"<td>{html.escape(value)}</td>" for value in values.values()) + "</tr>"
        for given, values in hearing.items()
    )
    section = (
        f"""<h2>Sound</h2>
<p>Sounds for {figures.hearing["num_clips"]} silent held-out films whose knocks come at times of their own, judged by an oracle that
listens: onsets within 40 ms, timbres of shapes, pitches of sizes; and what is left of that when film or caption is withheld.</p>
<table><tr><th>given</th>{heads}</tr>{heard}</table>
"""
        if hearing
        else ""
    )
    cells = "".join(
        f'<figure><video src="{html.escape(path.relative_to(folder).as_posix())}" autoplay controls loop muted playsinline></video>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for caption, path in films
    )
    plots = "".join(f"<figure>{_plot(points)}<figcaption>{html.escape(name)}</figcaption></figure>" for name, points in curves.items())
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in figures.seconds.items())
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>moviegen quickstart</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; }} td, th {{ border-bottom: 1px solid #ddd; padding: .3rem .8rem; text-align: left; }}
.films {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 1rem; }}
figure {{ margin: 0; }} video {{ width: 100%; image-rendering: pixelated; background: #eee; }}
figcaption {{ font-size: 13px; color: #555; }}
svg {{ width: 100%; height: auto; background: #fafafa; }} .curves {{ display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }}
</style>
<h1>moviegen quickstart</h1>
<p>Films for {figures.num_pairs} prompts whose combination of colour, shape and motion was never trained on, judged by an oracle that
reads pixels and never sees the prompt. Radii, positions and path lengths of single objects are drawn from {100 * figures.spread:.3g} %
of the toy world's ranges. The autoencoder reconstructs held-out films at {figures.psnr_db:.1f} dB.</p>
<table><tr><th></th><th>colour</th><th>shape</th><th>motion</th></tr>{table}</table>
{section}<h2>Films</h2><div class="films">{cells}</div>
<h2>Curves</h2><div class="curves">{plots}</div>
<p>Time: {html.escape(times)}.</p></html>
"""
    write_bytes(folder / "index.html", page.encode())


def _plot(points: Curve, *, width: int = 420, height: int = 180) -> str:
    """A curve as inline SVG, with its end values."""
    steps, values = zip(*points, strict=True)
    left, right, low, high = steps[0], max(steps[-1], steps[0] + 1), min(values), max(values)
    span = (high - low) or 1.0
    coordinates = " ".join(
        f"{40 + (width - 60) * (step - left) / (right - left):.1f},{15 + (height - 45) * (high - value) / span:.1f}"
        for step, value in points
    )
    return (
        f'<svg viewBox="0 0 {width} {height}"><polyline points="{coordinates}" fill="none" stroke="#2563eb" stroke-width="1.5"/>'
        f'<g font-size="11" fill="#555"><text x="4" y="19">{high:.3g}</text><text x="4" y="{height - 27}">{low:.3g}</text>'
        f'<text x="40" y="{height - 8}">step {left}</text>'
        f'<text x="{width - 20}" y="{height - 8}" text-anchor="end">step {right}: {values[-1]:.4g}</text></g></svg>'
    )
