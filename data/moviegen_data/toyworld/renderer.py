"""From a scene to pixels: anti-aliased signed distances, painted over the ground in a box around each object."""

from dataclasses import dataclass, field

import numpy as np

from moviegen_core.errors import UsageError
from moviegen_data.toyworld.captions import caption_scene
from moviegen_data.toyworld.events import Event, find_events
from moviegen_data.toyworld.font import draw_word
from moviegen_data.toyworld.scene import COLOURS, EXTENT, GroundSpec, ObjectSpec, SceneSpec
from moviegen_data.toyworld.sound import LEAST_HZ, render_sound
from moviegen_data.toyworld.tracks import count_bounces, trace


@dataclass(frozen=True)
class ToyClip:
    """A rendered scene and its ground truth.

    Args:
        video: pixels, uint8 (t, h, w, 3).
        masks: what is visible of each object, bool (objects, t, h, w).
        caption: the scene in words.
        track: centre x, centre y and radius of each object in pixels, float32 (objects, t, 3).
        events: touches of the floor and arrivals, in order of time.
        spec: the scene.
        fps: frames per second.
        audio: its sound in (-1, 1), float32 (1, samples), or None where none was asked for.
        audio_hz: samples per second of the sound, or None.
    """

    video: np.ndarray
    masks: np.ndarray
    caption: str
    track: np.ndarray
    spec: SceneSpec
    fps: float
    events: list[Event] = field(default_factory=list)
    audio: np.ndarray | None = None
    audio_hz: int | None = None


def render(
    spec: SceneSpec,
    *,
    num_frames: int = 16,
    height: int = 64,
    width: int = 64,
    fps: float = 8.0,
    audio_hz: int | None = None,
    knock_grid_hz: float | None = None,
) -> ToyClip:
    """Render a scene. A clip shows the whole motion whatever its length; one frame is a picture, and its caption tells no motion.

    Args:
        spec: the scene.
        num_frames: frames, at least 1.
        height: rows in pixels, at least 8.
        width: columns in pixels, at least 8.
        fps: frames per second; longer clips hold more bounces, one in about two seconds.
        audio_hz: samples per second of the sound, at least 4000; None renders none. A sound is as long as its frames are shown.
        knock_grid_hz: knocks sound at the nearest multiple of one over this, above 0; None leaves them where they happen. The events stay.
    """
    if num_frames < 1 or min(height, width) < 8 or not fps > 0:
        given = f"num_frames={num_frames}, height={height}, width={width}, fps={fps} was given"
        raise UsageError(given, "a clip has 1 frame of 8 × 8 pixels or more and a positive frame rate", "raise what is too small")
    if audio_hz is not None and audio_hz < LEAST_HZ:
        given = f"audio_hz={audio_hz} was given"
        raise UsageError(given, f"the toy world's sounds need {LEAST_HZ} samples per second or more", "give 48000, or null for no sound")
    if knock_grid_hz is not None and not 0 < knock_grid_hz < float("inf"):
        given = f"knock_grid_hz={knock_grid_hz} was given"
        raise UsageError(given, "knocks are moved to so many places a second", "give 25, say, or null to leave them where they happen")
    side, is_image = min(height, width), num_frames == 1
    times = np.array([spec.moment]) if is_image else np.linspace(0.0, 1.0, num_frames)
    bounces = count_bounces(num_frames / fps)
    video = np.repeat(_paint_ground(spec, height, width)[None], num_frames, axis=0)
    masks = np.zeros((len(spec.objects), num_frames, height, width), dtype=bool)
    tracks = []
    for index, item in enumerate(spec.objects):
        moving = item if not (is_image and item.motion == "grow") else ObjectSpec(**{**item.__dict__, "motion": "still"})
        track = trace(moving, times, width=width / side, height=height / side, bounces=bounces) * side
        tracks.append(track)
        masks[:index] &= ~_paint_object(video, masks[index], item, track)
    events = find_events(spec, num_frames=num_frames, fps=fps)
    audio = None
    if audio_hz is not None:
        num_samples = round(num_frames / fps * audio_hz)
        audio = render_sound(spec, events, num_samples=num_samples, audio_hz=audio_hz, knock_grid_hz=knock_grid_hz)
    caption = caption_scene(spec, image=is_image)
    return ToyClip(video, masks, caption, np.stack(tracks).astype(np.float32), spec, fps, events, audio, audio_hz)


def signed_distance(shape: str, x: np.ndarray, y: np.ndarray, radius: np.ndarray | float) -> np.ndarray:
    """Distance to the outline of a shape centred at the origin, negative inside, in the units of its arguments (y downward)."""
    x, y_up = abs(x), -y
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "ring":
        return abs(np.hypot(x, y) - 0.77 * radius) - 0.23 * radius
    if shape == "square":
        return np.maximum(x, abs(y)) - 0.88 * radius
    if shape == "cross":
        y = abs(y)
        return np.maximum(np.maximum(x, y) - radius, np.minimum(x, y) - 0.34 * radius)
    assert shape == "triangle"
    # Equilateral, pointing up, its bounding box (not its centroid) centred.
    circum = 1.25 * radius
    return np.maximum(-y_up - 0.75 * circum, 0.75**0.5 * x + 0.5 * y_up - 0.375 * circum)


def _paint_object(video: np.ndarray, mask: np.ndarray, item: ObjectSpec, track: np.ndarray) -> np.ndarray:
    """Blend an object into the frames in place, fill its mask, and return the mask."""
    num_frames, height, width, _ = video.shape
    box = min(int(np.ceil(2 * EXTENT[item.shape] * track[:, 2].max())) + 3, max(height, width))
    box_h, box_w = min(box, height), min(box, width)
    left = np.clip(np.round(track[:, 0] - box_w / 2), 0, width - box_w).astype(int)
    top = np.clip(np.round(track[:, 1] - box_h / 2), 0, height - box_h).astype(int)
    track = track.astype(np.float32)
    x = np.arange(box_w, dtype=np.float32)[None, None] + (left + 0.5 - track[:, 0]).astype(np.float32)[:, None, None]
    y = np.arange(box_h, dtype=np.float32)[None, :, None] + (top + 0.5 - track[:, 1]).astype(np.float32)[:, None, None]
    coverage = np.clip(0.5 - signed_distance(item.shape, x, y, track[:, 2, None, None]), 0.0, 1.0)
    colour = np.array(COLOURS[item.colour], dtype=np.float32)
    for frame in range(num_frames):
        rows, columns = slice(top[frame], top[frame] + box_h), slice(left[frame], left[frame] + box_w)
        behind = video[frame, rows, columns]
        alpha = coverage[frame, :, :, None]
        behind[:] = behind + alpha * (colour - behind) + 0.5
        mask[frame, rows, columns] = coverage[frame] > 0.5
    return mask


def _paint_ground(spec: SceneSpec, height: int, width: int) -> np.ndarray:
    ground, side = spec.ground, min(height, width)
    shade = _shade(ground, height, width, side)
    picture = shade[:, :, None] + np.array(ground.tint, dtype=np.float32)
    if spec.text is not None:
        cell_px = max(1, side // 32)
        word = draw_word(spec.text, cell_px=cell_px)[: height - cell_px, : width - cell_px]
        ink = 255.0 if shade.mean() < 128 else 0.0
        picture[cell_px : cell_px + word.shape[0], cell_px : cell_px + word.shape[1]][word] = ink
    return np.clip(picture, 0, 255).astype(np.uint8)


def _shade(ground: GroundSpec, height: int, width: int, side: int) -> np.ndarray:
    if ground.kind in ("black", "grey", "white"):
        return np.full((height, width), ground.dark, dtype=np.float32)
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / side
    x = (np.arange(width, dtype=np.float32)[None, :] + 0.5) / side
    along = np.broadcast_to((x, y, (x + y) / 2**0.5)[ground.direction], (height, width))
    if ground.kind == "gradient":
        weight = along / along.max()
    elif ground.kind == "stripes":
        weight = _wave(along, ground.period, side)
    else:
        a, b = _wave(x, ground.period, side), _wave(y, ground.period, side)
        weight = a * (1 - b) + b * (1 - a)
    return ground.dark + (ground.light - ground.dark) * weight


def _wave(along: np.ndarray, period: float, side: int) -> np.ndarray:
    """A square wave in [0, 1] with edges one pixel soft."""
    return np.clip((abs((along / period) % 1.0 - 0.5) - 0.25) * period * side + 0.5, 0.0, 1.0)
