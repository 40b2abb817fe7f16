"""The report as one HTML page that needs nothing else: a table, histograms, and pictures of what was left out."""

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from moviegen_data.curation.clip import Clip
from moviegen_data.curation.media import Media
from moviegen_data.curation.tries import KILLED
from moviegen_data.wording import counted

if TYPE_CHECKING:
    from moviegen_data.curation.report import Report, StageReport

_THUMBNAIL_PX = 160
_MOST_ROWS = 20  # of one annotation
_NO_PICTURE = "<div class=none></div>"
_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1b1f24; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin: 2rem 0 .3rem } a { color: #2a64b0 } .muted { color: #5b636c }
code { background: #f1f3f5; padding: .05rem .3rem; border-radius: 3px }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100% }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #e3e6ea; text-align: left }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.bar { background: #e9edf2; height: .5rem; border-radius: 3px; min-width: 6rem }
.bar i { display: block; height: 100%; background: #3b76c4; border-radius: 3px }
.row { display: flex; flex-wrap: wrap; gap: .7rem; margin: .4rem 0 }
figure { margin: 0; width: 160px; font-size: 12px; overflow-wrap: anywhere }
figure img, figure .none { width: 160px; height: 108px; object-fit: contain; border-radius: 4px; display: block; background: #eef0f3 }
svg { background: #fafbfc; border: 1px solid #e3e6ea; border-radius: 4px } svg text { fill: #5b636c }
.kept { color: #3b76c4 } .dropped { color: #cf5b4a }
@media (prefers-color-scheme: dark) {
body { background: #14171a; color: #dfe3e8 } a { color: #86b4ee } .muted { color: #a3abb4 } th, td { border-color: #2c3238 }
code, figure img, figure .none { background: #22272d } .bar { background: #2a3037 }
svg { background: #1a1e22; border-color: #2c3238 } svg text { fill: #a3abb4 } }
"""


def page(report: "Report") -> str:
    """The page."""
    told = report.to_dict()
    title = f"{told['num_media']} media, {counted(told['num_clips'], 'clip')} in {counted(told['num_shards'], 'shard')}"
    body = [f"<h1>{html.escape(title)}</h1>", f"<p class=muted>{html.escape(str(report.root))}</p>", _table(report)]
    if any(each.histograms for each in report.stages):
        body.append(
            "<p class=muted>Histograms, on a logarithmic scale: the scores that a stage gave clips "
            "<span class=kept>■ it let pass</span> and <span class=dropped>■ it dropped</span>.</p>"
        )
    if report.faults:
        names = ", ".join(f"{html.escape(key)} ({html.escape(why)})" for key, why in list(report.faults.items())[:20])
        body.append(f"<p>{len(report.faults)} clips could not be cut: {names}</p>")
    if len(report.skipped):
        body.append(f"<p class=muted>{html.escape(report.skipped.summary())}</p>")
    body += [_stage(each, report.root) for each in report.stages]
    body.append(_annotations(report))
    body.append("<p class=muted>Every clip that was left out is in <code>dropped.jsonl</code>, with its scores and its reason.</p>")
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>"
    return f"{head}{''.join(body)}</html>\n"


def _table(report: "Report") -> str:
    rows = []
    for each in report.stages:
        share = 100.0 * each.tally.left / max(1, report.num_media)
        wanted = ", ".join(f"{name} {_plain(value)}" for name, value in each.settings.items())
        name = html.escape(each.name)
        link = f"<a href='#{name}'>{name}</a>" if _has_section(each) else name
        cells = f"<td>{link}</td><td class=muted>{html.escape(wanted)}</td>"
        cells += f"<td class=n>{each.tally.entered}</td><td class=n>{each.tally.left}</td><td class=n>{each.tally.left_s / 3600:.3f}</td>"
        cells += f"<td class=n>{share:.2f} %</td><td><div class=bar><i style='width:{min(100.0, share):.2f}%'></i></div></td>"
        rows.append(f"<tr>{cells}<td class=n>{each.tally.spent_s:.1f}</td></tr>")
    head = "<th>stage<th>settings<th class=n>in<th class=n>out<th class=n>hours<th class=n>remaining<th><th class=n>seconds"
    return f"<div class=wide><table><tr>{head}</tr>{''.join(rows)}</table></div>"


def _has_section(each: "StageReport") -> bool:
    return bool(each.reasons or each.histograms)


def _plain(value: Any) -> str:
    """A setting as the configuration writes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _annotations(report: "Report") -> str:
    if not report.annotations:
        return ""
    rows = []
    for name in sorted(report.annotations):
        shares = report.shares(name)
        for number, (value, count, share) in enumerate(shares[:_MOST_ROWS]):
            cells = f"<td>{'' if number else html.escape(name)}</td><td>{html.escape(value)}</td><td class=n>{count}</td>"
            rows.append(f"<tr>{cells}<td class=n>{share:.2f} %</td><td><div class=bar><i style='width:{share:.2f}%'></i></div></td></tr>")
        if len(shares) > _MOST_ROWS:
            rows.append(f"<tr><td><td class=muted colspan=4>and {len(shares) - _MOST_ROWS} more, in <code>report.json</code></tr>")
    head = "<th>annotation<th>value<th class=n>clips<th class=n>share<th>"
    return f"<h2>Annotations of the clips in the shards</h2><div class=wide><table><tr>{head}</tr>{''.join(rows)}</table></div>"


def _stage(each: "StageReport", root: Path) -> str:
    if not _has_section(each):
        return ""
    parts = [f"<h2 id='{html.escape(each.name)}'>{html.escape(each.name)}</h2>"]
    if each.reasons:
        total = each.reasons.total()
        shown = f" <span class=muted>({len(each.examples)} of {total} shown)</span>" if len(each.examples) < total else ""
        told = ", ".join(f"{count} × {html.escape(reason)}" for reason, count in each.reasons.most_common())
        parts.append(f"<p>{told}{shown}</p>")
    parts.append("<div class=row>" + "".join(histogram(name, bins) for name, bins in each.histograms.items()) + "</div>")
    parts.append("<div class=row>" + "".join(_figure(clip, root) for clip in each.examples) + "</div>")
    return "".join(parts)


def histogram(name: str, bins: Mapping[str, Sequence[float]]) -> str:
    """Counts of clips that went on (blue) and that were dropped (red), on a logarithmic scale."""
    width, height, foot = 300, 110, 28
    edges, kept, dropped = bins["edges"], bins["kept"], bins["dropped"]
    most = math.log1p(max([1, *(a + b for a, b in zip(kept, dropped, strict=True))]))
    step, bars = width / max(1, len(kept)), []
    for number, (good, bad) in enumerate(zip(kept, dropped, strict=True)):
        tall = (height - foot) * math.log1p(good + bad) / most if good + bad else 0.0
        lower = tall * good / (good + bad) if good + bad else 0.0
        x, base = number * step, height - foot
        bars.append(f"<rect x='{x:.1f}' y='{base - lower:.1f}' width='{step - 1:.1f}' height='{lower:.1f}' fill='#3b76c4'/>")
        bars.append(f"<rect x='{x:.1f}' y='{base - tall:.1f}' width='{step - 1:.1f}' height='{tall - lower:.1f}' fill='#cf5b4a'/>")
    label = f"<text x=4 y={height - 16} font-size=10>{edges[0]:g}</text>"
    label += f"<text x={width - 4} y={height - 16} font-size=10 text-anchor=end>{edges[-1]:g}</text>"
    label += f"<text x={width / 2} y={height - 4} font-size=11 text-anchor=middle>{html.escape(name)}</text>"
    return f"<svg width={width} height={height} role=img aria-label='{html.escape(name)}'>{''.join(bars)}{label}</svg>"


def _figure(clip: Clip, root: Path) -> str:
    drop = clip.drop
    where = f"{clip.source} {clip.start_s:.1f}–{clip.start_s + clip.duration_s:.1f} s" if math.isfinite(clip.duration_s) else clip.source
    why = "" if drop is None else ": ".join(filter(None, (drop.reason, drop.detail)))
    return f"<figure>{_thumbnail(clip, root)}<b>{html.escape(why)}</b><br>{html.escape(where)}</figure>"


def _thumbnail(clip: Clip, root: Path) -> str:
    if clip.drop is not None and clip.drop.reason == KILLED:  # and would kill this process too
        return _NO_PICTURE
    end_s = clip.start_s + (clip.duration_s if math.isfinite(clip.duration_s) else 0.0)
    try:
        pixels = Media(root / clip.source).stills(clip.start_s, end_s, max_side=_THUMBNAIL_PX)[0]
    except Exception:  # noqa: BLE001 - a picture is no reason to lose a report
        return _NO_PICTURE
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return f"<img alt='' src='data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}'>"
