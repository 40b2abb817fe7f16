"""A scene's sound in words: many phrasings, chosen by the scene's seed; every one tells the timbre by its own words or by the shape's."""

from dataclasses import dataclass

import numpy as np

from moviegen_data.toyworld.captions import MOTION_WORDS, SHAPE_WORDS
from moviegen_data.toyworld.events import is_heard
from moviegen_data.toyworld.scene import ObjectSpec, SceneSpec
from moviegen_data.toyworld.sound import AMBIENCES, TIMBRES

# Once, and again and again; "{}" is where the pitch is told.
TIMBRE_WORDS = {
    "bell": (("a clear {}bell tone", "clear {}bell tones"), ("the {}chime of a bell", "{}bell chimes")),
    "wood": (("a hollow {}wooden knock", "hollow {}wooden knocks"), ("a {}tap on a woodblock", "{}woodblock taps")),
    "metal": (("a {}metallic clang", "{}metallic clangs"), ("a {}strike on jangling metal", "{}strikes on jangling metal")),
    "burst": (("a {}burst of noise", "{}bursts of noise"), ("a {}crash of static", "{}crashes of static")),
    "spring": (("a {}springy boing", "{}springy boings"), ("a rubbery {}twang that rises", "rubbery {}twangs that rise")),
}
PITCH_WORDS = {"small": ("high ", "high-pitched "), "large": ("low ", "deep ")}
AMBIENCE_WORDS = {
    "silence": ("silence",),
    "hum": ("a low hum", "the hum of a transformer"),
    "air": ("a soft hiss of air", "hissing air"),
    "fan": ("a pulsing whirr", "the whirr of a fan"),
    "murmur": ("a steady murmur", "a dull murmur"),
    "wind": ("a gentle wind", "wind that swells"),
}
STOP_WORDS = (("and stops", "and stopping"), ("and comes to rest", "and coming to rest"))
TEMPLATES = (
    "{clause}: {sound}{over}",
    "{sound}{over}",
    "{sound} as {clause}{over}",
    "the sound of {participle}{over}",
    "{clause}{over}: {sound}",
)
MUSIC_WORDS = ("; a quiet tune plays along", ", with a gentle melody behind it", "; soft broken chords accompany it")


@dataclass(frozen=True)
class SoundFacts:
    """What is true of a scene's sound, in the fields of the paper's audio captions (Table 27).

    Args:
        quality: 1 to 10; the paper asks for 7.0 without music and 8.0 with it.
        speech: whether somebody speaks.
        singing: whether somebody sings.
        description: the sound in words.
        music_likelihood: 0 to 1; the paper asks for 0.01 without music and 0.90 with it.
        music_description: the music in words, there or not.
    """

    quality: float
    speech: bool
    singing: bool
    description: str
    music_likelihood: float
    music_description: str


def hears(spec: SceneSpec, *, phrasing: int | None = None) -> SoundFacts:
    """What a caption of the scene's sound has to tell; `phrasing` is that of `sound_caption`."""
    return SoundFacts(
        quality=8.0 if spec.music else 7.0,
        speech=False,
        singing=False,
        description=sound_caption(spec, phrasing=phrasing),
        music_likelihood=0.90 if spec.music else 0.01,
        music_description="A calm and simple piece of soft, slow broken chords.",
    )


def sound_caption(spec: SceneSpec, *, phrasing: int | None = None, ambience_probability: float = 0.8) -> str:
    """Put what is heard of a scene into words.

    Args:
        spec: the scene.
        phrasing: another seed for the choice of words; None takes the scene's own.
        ambience_probability: how often the ambience is mentioned; where nothing else is heard it always is.
    """
    rng = np.random.default_rng([spec.seed if phrasing is None else phrasing, 23])
    ambience = AMBIENCES[spec.ground.kind]
    background = _choose(AMBIENCE_WORDS[ambience], rng)
    told = rng.random() < ambience_probability and ambience != "silence"
    over = _choose((f" over {background}", f" with {background} in the background"), rng) if told else ""
    template, tune = _choose(TEMPLATES, rng), _choose(MUSIC_WORDS, rng)
    heard = [item for item in spec.objects if is_heard(item)]
    if heard:
        clause, participle, sound = (" and ".join(part) for part in zip(*(_words(item, rng) for item in heard), strict=True))
        text = template.format(clause=clause, participle=participle, sound=sound, over=over)
    else:
        text = _choose((background, f"nothing but {background}", f"only {background}"), rng)
    return text + (tune if spec.music else "")


def _words(item: ObjectSpec, rng: np.random.Generator) -> tuple[str, str, str]:
    """What the object does, twice, and how it sounds."""
    noun, verbs = f"a {_choose(SHAPE_WORDS[item.shape], rng)}", _choose(MOTION_WORDS[item.motion], rng)
    bounces = item.motion == "bounce"
    ends = ("", "") if bounces else tuple(f" {words}" for words in _choose(STOP_WORDS, rng))
    pitch = _choose(PITCH_WORDS[item.size], rng) if rng.random() < 0.5 else ""
    sound = _choose(TIMBRE_WORDS[TIMBRES[item.shape]], rng)[bounces].format(pitch)
    return f"{noun} {verbs[0]}{ends[0]}", f"{noun} {verbs[1]}{ends[1]}", sound


def _choose(options: tuple, rng: np.random.Generator):
    return options[int(rng.integers(len(options)))]
