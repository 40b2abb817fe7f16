"""Prefixes of prompts, and the visual text between quotes."""

import subprocess
import sys

import pytest

from moviegen_core.prompts import (
    CAMERA_MOTIONS,
    FINETUNING_CAMERA_MOTIONS,
    PRETRAINING_CAMERA_MOTIONS,
    Prompt,
    parse,
    visual_text,
    with_camera_motion,
    with_fps,
)


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ('a sign that says "OPEN"', ["OPEN"]),
        ("a sign that says “OPEN”", ["OPEN"]),
        ("ein Schild „Hallo Welt“", ["Hallo Welt"]),
        ("une affiche « Bonjour »", ["Bonjour"]),
        ('"A" and "B"', ["A", "B"]),
        ('“A” and "B" and «C»', ["A", "B", "C"]),
        ('the words "don\'t stop"', ["don't stop"]),
        ("the words “don’t stop”", ["don’t stop"]),
        ('写着"你好"的牌子', ["你好"]),
        ('a house number "27" in brass', ["27"]),
        ('a 27" screen with "HI" next to a 32" one', ["HI"]),
        ('two lines "one\ntwo"', ["one\ntwo"]),
        ("it's the dogs' bowl, rock 'n' roll", []),
        ("‘single’ and 'single'", []),
        ('a 5\'10" man with a 27" screen', []),
        ('never closed "OPEN', []),
        ('empty "" and " "', []),
        ("", []),
    ],
)
def test_visual_text(prompt: str, texts: list[str]) -> None:
    assert visual_text(prompt) == texts


def test_classes_are_those_of_the_paper() -> None:
    assert len(PRETRAINING_CAMERA_MOTIONS) == 16 and len(FINETUNING_CAMERA_MOTIONS) == 6 and len(set(CAMERA_MOTIONS)) == 22


@pytest.mark.parametrize(("fps", "prefix"), [(16, "FPS-16"), (23.976, "FPS-24"), (29.97, "FPS-30"), (0.5, "FPS-1"), (16.5, "FPS-17")])
def test_fps(fps: float, prefix: str) -> None:
    assert with_fps("a ball", fps) == f"{prefix} a ball"
    assert with_fps("", fps) == prefix


@pytest.mark.parametrize("fps", [0, -1, 0.4, float("nan"), float("inf")])
def test_bad_fps(fps: float) -> None:
    with pytest.raises(ValueError, match="was given; .*; give e.g. 16 or 24"):
        with_fps("a ball", fps)


@pytest.mark.parametrize("motion", CAMERA_MOTIONS)
def test_camera_motion(motion: str) -> None:
    told = with_camera_motion(with_fps("a ball", 16), motion)
    assert told == f"FPS-16 {motion}. a ball" == with_fps(with_camera_motion("a ball", motion), 16)
    assert parse(told) == Prompt("a ball", fps=16, camera_motion=motion)


def test_prefixes_are_replaced() -> None:
    assert with_fps("FPS-16 zoom in. a ball", 24) == "FPS-24 zoom in. a ball"
    assert with_camera_motion("FPS-16 zoom in. a ball", "pan_left") == "FPS-16 pan left. a ball"


def test_unknown_camera_motion() -> None:
    with pytest.raises(ValueError, match=r"'zooming in' was given; the classes are zoom in, .*first person view; the nearest is 'zoom in'"):
        with_camera_motion("a ball", "zooming in")


@pytest.mark.parametrize(
    "prompt", ["", "a ball", "FPS-16", "FPS-16 a ball", "zoom in. a ball", "FPS-24 close-up. a ball", "zoom into a ball"]
)
def test_round_trip(prompt: str) -> None:
    assert str(parse(prompt)) == prompt


def test_imports_no_torch() -> None:
    code = "import sys, moviegen_core.prompts; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "False"
