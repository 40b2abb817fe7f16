"""Stills of videos: strips, contact sheets and animated GIFs, with captions."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from moviegen_core.files import write_bytes
from moviegen_core.media.video import to_uint8

_GAP_PX = 6
_FONT_PX = 13


def shrink(video: Float[Tensor, "3 t h w"], max_px: int) -> Float[Tensor, "3 t h w"]:
    """Make the longer side at most `max_px`, averaging over what falls together; smaller videos stay as they are."""
    scale = max_px / max(video.shape[-2:])
    if scale >= 1.0:
        return video
    size = [max(1, round(side * scale)) for side in video.shape[-2:]]
    return torch.nn.functional.interpolate(video.float().movedim(1, 0), size=size, mode="area").movedim(0, 1)


def strip(video: Float[Tensor, "3 t h w"], num_frames: int = 8) -> Image.Image:
    """Frames spread evenly from the first to the last, side by side."""
    frames = to_uint8(video)
    chosen = np.unique(np.linspace(0, len(frames) - 1, num_frames).round().astype(int))
    return Image.fromarray(np.concatenate(list(frames[chosen]), axis=1))


def write_strip(path: str | Path, video: Float[Tensor, "3 t h w"], num_frames: int = 8) -> None:
    """Write a strip as PNG, whole or not at all."""
    write_bytes(path, png_bytes(strip(video, num_frames)))


def contact_sheet(
    path: str | Path,
    videos: Sequence[Float[Tensor, "3 t h w"]],
    captions: Sequence[str],
    columns: int = 2,
    *,
    num_frames: int = 6,
) -> None:
    """Write one PNG with a strip and its caption for every video."""
    write_bytes(path, png_bytes(sheet([strip(video, num_frames) for video in videos], captions, columns)))


def sheet(pictures: Sequence[Image.Image], captions: Sequence[str], columns: int = 2) -> Image.Image:
    """Pictures in a grid on white, each above its caption."""
    if not pictures or len(pictures) != len(captions):
        raise ValueError(
            f"{len(pictures)} pictures and {len(captions)} captions were given; a sheet has one of each per cell; pass as many"
        )
    columns = min(columns, len(pictures))
    font = ImageFont.load_default(size=_FONT_PX)
    width = max(picture.width for picture in pictures)
    texts = ["\n".join(_wrap(caption, font, width)) for caption in captions]
    line_px = _FONT_PX + 4
    rows = [slice(start, start + columns) for start in range(0, len(pictures), columns)]
    heights = [
        max(picture.height for picture in pictures[row]) + line_px * max(text.count("\n") + 1 for text in texts[row]) + _GAP_PX
        for row in rows
    ]
    page = Image.new("RGB", (columns * (width + _GAP_PX) + _GAP_PX, sum(heights) + _GAP_PX), "white")
    draw = ImageDraw.Draw(page)
    top = _GAP_PX
    for row, height in zip(rows, heights, strict=True):
        for column, (picture, text) in enumerate(zip(pictures[row], texts[row], strict=True)):
            left = _GAP_PX + column * (width + _GAP_PX)
            page.paste(picture, (left, top))
            draw.multiline_text((left, top + picture.height + 1), text, fill="black", font=font, spacing=2)
        top += height
    return page


def png_bytes(picture: Image.Image) -> bytes:
    """Encode as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def gif_bytes(video: Float[Tensor, "3 t h w"], fps: float) -> bytes:
    """Encode as an endless animated GIF; frames that repeat the one before are shown longer instead of stored again."""
    pictures = [Image.fromarray(frame) for frame in to_uint8(video)]
    # GIF counts hundredths of a second: round the moments, not the durations, so that long films keep their length.
    moments = np.round(np.arange(len(pictures) + 1) * 100.0 / fps) * 10
    buffer = io.BytesIO()
    durations = [int(duration) for duration in np.diff(moments)]
    pictures[0].save(buffer, format="GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    return buffer.getvalue()


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines, line = [], ""
    for word in " ".join(text.split()).split(" "):
        joined = f"{line} {word}".strip()
        if font.getlength(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        while font.getlength(word) > width and len(word) > 1:  # a word longer than the line is cut
            fits = max(1, next(n for n in range(min(len(word), max(1, width)), 0, -1) if n == 1 or font.getlength(word[:n]) <= width))
            lines.append(word[:fits])
            word = word[fits:]
        line = word
    return [*lines, line]
