"""What a prompt may carry beside its description: the FPS prefix, the camera-motion prefix, and quoted visual text.

A full prompt reads `FPS-16 zoom in. a red ball next to a sign that says "OPEN"`. Importing this file does not import torch.
"""

import difflib
import re
from dataclasses import dataclass
from typing import Literal, get_args

PretrainingCameraMotion = Literal[
    "zoom in", "zoom out", "push in", "pull out", "pan right", "pan left", "truck right", "truck left",
    "tilt up", "tilt down", "pedestal up", "pedestal down", "arc shot", "tracking shot", "static shot", "handheld shot",
]  # fmt: skip
FinetuningCameraMotion = Literal["wide angle", "close-up", "aerial", "low angle", "over the shoulder", "first person view"]
CameraMotion = PretrainingCameraMotion | FinetuningCameraMotion

PRETRAINING_CAMERA_MOTIONS: tuple[str, ...] = get_args(PretrainingCameraMotion)
"""The 16 classes of the paper's classifier (B.2)."""
FINETUNING_CAMERA_MOTIONS: tuple[str, ...] = get_args(FinetuningCameraMotion)
"""The 6 further motions and positions that are labelled for supervised finetuning (3.3, B.2)."""
CAMERA_MOTIONS: tuple[str, ...] = PRETRAINING_CAMERA_MOTIONS + FINETUNING_CAMERA_MOTIONS

_FPS = re.compile(r"\s*FPS-(\d+)(?:\s+|$)")
_MOTION = re.compile(rf"({'|'.join(map(re.escape, CAMERA_MOTIONS))})\.(?:\s+|$)", re.IGNORECASE)
# A straight quote right after a digit is an inch mark, unless it closes a quotation.
_QUOTED = re.compile(r'(?<!\d)"([^"]*)"|[“„]([^“”„]*)[”“]|«([^«»]*)»')


@dataclass(frozen=True)
class Prompt:
    """A prompt taken apart.

    Args:
        caption: the description without prefixes.
        fps: frames per second of the prefix, or None.
        camera_motion: one of `CAMERA_MOTIONS`, or None.
    """

    caption: str
    fps: int | None = None
    camera_motion: str | None = None

    def __str__(self) -> str:
        fps = [] if self.fps is None else [f"FPS-{self.fps}"]
        motion = [] if self.camera_motion is None else [f"{self.camera_motion}."]
        return " ".join([*fps, *motion, *([self.caption] if self.caption else [])])


def parse(prompt: str) -> Prompt:
    """Take a prompt apart; `str(parse(prompt))` puts it together again."""
    fps = _FPS.match(prompt)
    rest = prompt[fps.end() :] if fps else prompt
    motion = _MOTION.match(rest)
    caption = rest[motion.end() :] if motion else rest
    return Prompt(caption, int(fps[1]) if fps else None, motion[1].lower() if motion else None)


def with_fps(prompt: str, fps: float) -> str:
    """Prefix `FPS-16` (3.1.4), rounded to a whole number; a prefix that is already there is replaced.

    Raises:
        ValueError: `fps` is not a finite number of at least 0.5.
    """
    if not 0.5 <= fps < float("inf"):
        raise ValueError(f"fps {fps} was given; the prefix holds a positive whole number of frames per second; give e.g. 16 or 24")
    parts = parse(prompt)
    return str(Prompt(parts.caption, int(fps + 0.5), parts.camera_motion))


def with_camera_motion(prompt: str, camera_motion: CameraMotion) -> str:
    """Prefix a camera-motion class (3.2.1, B.2), after the FPS prefix if there is one; a class that is already there is replaced.

    Raises:
        ValueError: `camera_motion` is not one of `CAMERA_MOTIONS`.
    """
    wanted = " ".join(camera_motion.lower().replace("_", " ").split())
    if wanted not in CAMERA_MOTIONS:
        nearest = difflib.get_close_matches(wanted, CAMERA_MOTIONS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"camera motion {camera_motion!r} was given; the classes are {', '.join(CAMERA_MOTIONS)}; "
            f"the nearest is {nearest!r}: give that, or write the motion into the prompt itself"
        )
    parts = parse(prompt)
    return str(Prompt(parts.caption, parts.fps, wanted))


def visual_text(prompt: str) -> list[str]:
    """The texts between double quotation marks, which the video is asked to show (A.1): straight, curly, low-high or angled.

    Single quotes are apostrophes far too often to count; an unclosed quotation and an inch mark (`a 27" screen`) do not count either.
    """
    found = ("".join(match.groups(default="")).strip() for match in _QUOTED.finditer(prompt))
    return [text for text in found if text]
