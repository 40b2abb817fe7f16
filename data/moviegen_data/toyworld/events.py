"""What would be heard of a scene, and when."""

from dataclasses import dataclass

from moviegen_data.toyworld.scene import ObjectSpec, SceneSpec
from moviegen_data.toyworld.tracks import TRAVELS, count_bounces


@dataclass(frozen=True)
class Event:
    """Something that would be heard.

    Args:
        kind: what happens; "bounce" is a touch of the floor, "contact" the arrival of an object that then rests.
        time_s: when, in seconds from the first frame.
        object_index: which object of the scene.
    """

    kind: str
    time_s: float
    object_index: int


def is_heard(item: ObjectSpec) -> bool:
    """True for an object that bounces, or that arrives before the clip ends."""
    return item.motion == "bounce" or (item.motion in TRAVELS and item.arrival < 1.0)


def find_events(spec: SceneSpec, *, num_frames: int, fps: float) -> list[Event]:
    """What happens in a clip of the scene, in order of time; nothing does in a picture."""
    if num_frames == 1:
        return []
    duration_s, bounces = (num_frames - 1) / fps, count_bounces(num_frames / fps)
    events = []
    for index, item in enumerate(spec.objects):
        kind = "bounce" if item.motion == "bounce" else "contact"
        events += [Event(kind, moment * duration_s, index) for moment in heard_moments(item, bounces=bounces)]
    return sorted(events, key=lambda event: event.time_s)


def heard_moments(item: ObjectSpec, *, bounces: int = 1) -> list[float]:
    """When an object is heard, 0 the first frame and 1 the last.

    Args:
        item: the object.
        bounces: touches of the floor at a pace of 1.
    """
    if not is_heard(item):
        return []
    if item.motion in TRAVELS:
        return [item.arrival]
    total = bounces * item.pace
    touches = ((k + 0.5 - item.phase) / total for k in range(int(total + item.phase) + 2))
    return [moment for moment in touches if 0.0 <= moment <= 1.0]
