"""Borders: rendered ones of all kinds and widths, what only looks like one, and real clips that were looked at."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from moviegen_core.errors import UsageError
from moviegen_core.media.video import write_video
from moviegen_data.curation import Clip, Media
from moviegen_data.curation.looking import looks
from moviegen_data.curation.stages.borders import Borders, Sides, blurred_borders, plain_borders
from moviegen_data.faults import SampleError

CLIP = Clip(key="a", source="a.mp4")
COLOURS = {"black": (0, 0, 0), "white": (255, 255, 255), "blue": (20, 60, 200)}


def film(num_frames, height, width, *, seed=0, bright=(30, 220)):
    """A textured ground that moves."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(*bright, (height // 8 + 2, (width + 40) // 8 + 2, 3), dtype=np.uint8)
    ground = Image.fromarray(coarse).resize((width + 40, height), Image.Resampling.BICUBIC)
    fine = rng.integers(-4, 5, (height, width + 40, 1))
    ground = np.clip(np.asarray(ground).astype(np.int16) + fine, 0, 255).astype(np.uint8)
    return np.stack([ground[:, 3 * index : 3 * index + width] for index in range(num_frames)])


def framed(size, sides, colour, **kinds):
    left, top, right, bottom = sides
    height, width = size
    frames = np.full((6, height, width, 3), colour, np.uint8)
    frames[:, top : height - bottom, left : width - right] = film(6, height - top - bottom, width - left - right, **kinds)
    return frames


def filmed(path, frames, fps=4.0):
    write_video(path, torch.from_numpy(frames.copy()).permute(3, 0, 1, 2).float() / 127.5 - 1.0, fps=fps)
    return Media(path)


@pytest.mark.parametrize(
    ("sides", "colour"),
    [
        ((0, 24, 0, 24), "black"),
        ((40, 0, 40, 0), "black"),
        ((0, 6, 0, 0), "white"),
        ((0, 0, 17, 0), "blue"),
        ((12, 20, 30, 8), "white"),
        ((90, 50, 60, 40), "blue"),
    ],
    ids=["letterbox", "pillarbox", "thin top", "right", "all around", "small film"],
)
def test_a_plain_border_is_found_where_it_is(tmp_path, sides, colour):
    media = filmed(tmp_path / "a.mp4", framed((180, 240), sides, COLOURS[colour]))
    found = Borders().apply(CLIP, media)
    assert found.drop.reason == "plain border"
    told = found.annotations["borders"]
    assert np.abs(np.array([told[name] for name in ("left", "top", "right", "bottom")]) - sides).max() <= 2
    left, top, width, height = told["film"]
    assert (left, top, left + width, top + height) == (told["left"], told["top"], 240 - told["right"], 180 - told["bottom"])
    assert found.scores["border"] == pytest.approx(max(sides[0] / 240, sides[2] / 240, sides[1] / 180, sides[3] / 180), abs=0.015)


def blurred(frames, width):
    """The film in the middle of its own enlarged, blurred copy."""
    out = []
    for frame in frames:
        picture = Image.fromarray(frame)
        ground = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.BICUBIC)
        top = (ground.height - picture.height) // 2
        ground = ground.crop((0, top, width, top + picture.height)).filter(ImageFilter.GaussianBlur(width / 30))
        ground.paste(picture, ((width - picture.width) // 2, 0))
        out.append(np.asarray(ground))
    return np.stack(out)


@pytest.mark.parametrize("upright", [True, False], ids=["at the sides", "above and below"])
def test_blurred_fill_is_found(tmp_path, upright):
    frames = blurred(film(6, 180, 100), 320)
    frames = frames if upright else frames.swapaxes(1, 2)
    found = Borders().apply(CLIP, filmed(tmp_path / "a.mp4", frames))
    assert found.drop.reason == "blurred border"
    told = found.annotations["borders"]
    both = ("left", "right") if upright else ("top", "bottom")
    assert all(abs(told[name] - 110) <= 2 for name in both) and sum(told[name] for name in ("left", "top", "right", "bottom")) < 230
    assert Borders(find_blurred=False).apply(CLIP, Media(tmp_path / "a.mp4")).drop is None


def shapes(places, *, size=60, ground=90):
    frames = np.full((6, 180, 240, 3), ground, np.uint8)
    for frame, (top, left) in zip(frames, places):
        frame[top : top + size, left : left + size] = (200, 40, 30)
    return frames


def horizon():
    frames = film(6, 180, 240)
    frames[:, :90] = np.linspace(180, 120, 90).astype(np.uint8)[None, :, None, None]
    return frames


def striped(size=(180, 240), *, band=20, first=12):
    """Stripes across, the first cut off, with a shape on them that moves."""
    rows = (np.arange(size[0]) + band - first) // band % 2
    frames = np.broadcast_to(np.where(rows, 200, 60).astype(np.uint8)[None, :, None, None], (6, *size, 3)).copy()
    for index, frame in enumerate(frames):
        frame[30:110, 10 * index : 10 * index + 80] = (200, 40, 30)
    return frames


NO_BORDERS = {
    "film": film(6, 180, 240),
    "dark film": film(6, 180, 240, bright=(0, 14)),
    "black": np.zeros((6, 180, 240, 3), np.uint8),
    "plain": np.full((6, 180, 240, 3), (10, 200, 90), np.uint8),
    "a shape that moves along the edge": shapes([(40, 30 * index) for index in range(6)]),
    "a shape that stands still": shapes([(40, 60)] * 6, size=90),
    "a sky that shades": horizon(),
    "stripes across": striped(),
    "stripes down": striped((240, 180)).swapaxes(1, 2),
    "a dark doorway": np.where(np.arange(240)[None, None, :, None] < 40, film(6, 180, 240) // 8, film(6, 180, 240)),
}


@pytest.mark.parametrize("what", NO_BORDERS)
def test_what_only_looks_like_one_is_none(tmp_path, what):
    found = Borders().apply(CLIP, filmed(tmp_path / "a.mp4", NO_BORDERS[what]))
    assert found.drop is None and found.scores["border"] == 0.0 and not found.annotations


def test_borders_around_stripes_and_with_a_line_in_them_are_found(tmp_path):
    around = framed((180, 240), (0, 24, 0, 24), (0, 0, 0))
    around[:, 24:-24] = striped((132, 240))
    assert plain_borders(around.astype(np.int16)) == Sides(top=24, bottom=24)
    assert Borders().apply(CLIP, filmed(tmp_path / "a.mp4", around)).drop.reason == "plain border"
    lined = framed((180, 240), (30, 30, 30, 30), (250, 250, 250))
    for lines in (lined, lined[:, ::-1]):
        lines[:, 14:18] = 0
    found = Borders().apply(CLIP, filmed(tmp_path / "b.mp4", lined))
    assert found.drop.reason == "plain border" and found.annotations["borders"]["top"] == 14


def test_narrow_lines_are_annotated_only(tmp_path):
    media = filmed(tmp_path / "a.mp4", framed((400, 600), (4, 0, 0, 0), (0, 0, 0)))
    found = Borders().apply(CLIP, media)
    assert found.drop is None and found.annotations["borders"]["left"] in (4, 5)
    assert Borders(min_share=0.005).apply(CLIP, media).drop is not None


def test_a_border_in_one_look_only_is_none():
    frames = film(8, 90, 120).astype(np.int16)
    frames[3, :20] = 0
    assert plain_borders(frames) == Sides()
    assert plain_borders(np.concatenate([frames[:3], frames[4:]])) == Sides()


def test_the_stretch_of_the_clip_alone_counts(tmp_path):
    frames = np.concatenate([film(8, 90, 120), framed((90, 120), (0, 20, 0, 20), (0, 0, 0))])
    media = filmed(tmp_path / "a.mp4", frames)
    stage = pickle.loads(pickle.dumps(Borders()))
    assert stage.apply(CLIP.part(0, 0.0, 2.0), media).drop is None
    assert stage.apply(CLIP.part(1, 2.0, 3.5), media).drop is not None


@pytest.mark.parametrize(("height", "width", "count"), [(8, 8, 5), (2, 64, 2), (64, 2, 2), (64, 64, 1)])
def test_tiny_and_single_frames_pass(tmp_path, height, width, count):
    assert Borders().apply(CLIP, filmed(tmp_path / "a.mp4", film(count, height, width))).drop is None


def test_a_picture_has_borders_too(tmp_path):
    Image.fromarray(framed((180, 240), (0, 24, 0, 24), (0, 0, 0))[0]).save(tmp_path / "a.png")
    found = Borders().apply(CLIP, Media(tmp_path / "a.png"))
    assert found.annotations["borders"]["film"] == [0, 24, 240, 132]


def test_a_wrong_share_is_refused():
    for wrong in ({"min_share": 0.0}, {"min_share": 0.5}, {"edge_share": 1.5}, {"min_share": float("nan")}):
        with pytest.raises(UsageError, match="less than half"):
            Borders(**wrong)


HOSTILE = {
    "alpha_vp9.webm": "",
    "one_frame.mp4": "",
    "odd_321x241.mp4": "",
    "rotated_90.mp4": "",
    "ten_bit_yuv420p10.mp4": "",
    "variable_frame_rate.mp4": "",
    "audio_only.mp4": "no video stream",
    "text_renamed.mp4": "cannot be opened",
    "truncated_no_index.mp4": "cannot be opened",
    "zero_byte.mp4": "cannot be opened",
}


@pytest.mark.media
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_judged_or_refused(media, name):
    medium = Media(media / "hostile" / name)
    if HOSTILE[name]:
        with pytest.raises(SampleError, match=HOSTILE[name]):
            Borders().apply(CLIP, medium)
    else:
        assert 0.0 <= Borders().apply(CLIP, medium).scores["border"] < 0.5


# By eye: letterbox, pillarbox, pillarbox; `line_art` and `nasa` are shapes and lights on black.
BORDERED = {"sintel_30s_cuts_854x480.mp4": (0, 54), "chaplin_640x360.mp4": (72, 0), "testcard_1080p.mp4": (240, 0)}


@pytest.mark.slow
@pytest.mark.media
def test_precision_and_recall_on_real_clips(media):
    found, rendered = {}, {}
    for path in sorted((media / "video").iterdir()):
        medium = Media(path)
        found[path.name] = Borders().apply(CLIP, medium)
        print(path.name, found[path.name].drop, found[path.name].annotations, flush=True)
        pictures = looks(CLIP, medium)[0][::6].astype(np.int16)
        if path.name in BORDERED:
            continue
        height, width = pictures.shape[1:3]
        number = len(rendered) % len(COLOURS)
        margin = max(3, height * (number + 1) // 50)
        ground = np.zeros_like(pictures) + np.array(list(COLOURS.values())[number], np.int16)
        ground[:, margin:-margin] = pictures[:, margin:-margin]
        sides = plain_borders(ground)
        rendered[path.name, "plain"] = abs(sides.top - margin) <= 1 and abs(sides.bottom - margin) <= 1
        column = pictures[:, :, : max(32, height * 9 // 16)].astype(np.uint8)
        wide = blurred(column, column.shape[2] * 2).astype(np.int16)
        rendered[path.name, "blurred"] = abs(blurred_borders(wide).left - column.shape[2] // 2) <= 2
    dropped = {name for name, clip in found.items() if clip.drop}
    print(f"dropped {sorted(dropped)}; rendered borders found {sum(rendered.values())} of {len(rendered)}")
    print("missed:", [name for name, right in rendered.items() if not right])
    assert dropped == set(BORDERED)  # precision and recall 1
    for name, (left, top) in BORDERED.items():
        told = found[name].annotations["borders"]
        assert abs(told["left"] - left) <= 4 and abs(told["top"] - top) <= 4, (name, told)
    assert sum(rendered.values()) >= 0.95 * len(rendered)
