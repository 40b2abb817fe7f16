"""The caption grammar: many phrasings of one scene, chosen by the scene's seed; every word has one meaning in the toy world."""

import numpy as np

from moviegen_data.toyworld.scene import ObjectSpec, SceneSpec

SHAPE_WORDS = {
    "circle": ("circle", "disc"),
    "square": ("square",),
    "triangle": ("triangle",),
    "cross": ("cross", "plus sign"),
    "ring": ("ring", "hoop"),
}
SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
# Finite form, participle.
MOTION_WORDS = {
    "left": (("moves left", "moving left"), ("slides to the left", "sliding to the left"), ("travels left", "travelling left")),
    "right": (("moves right", "moving right"), ("slides to the right", "sliding to the right"), ("travels right", "travelling right")),
    "up": (("moves up", "moving up"), ("rises", "rising"), ("goes upward", "going upward")),
    "down": (("moves down", "moving down"), ("sinks", "sinking"), ("goes downward", "going downward")),
    "bounce": (("bounces", "bouncing"), ("bounces on the floor", "bouncing on the floor")),
    "grow": (("grows", "growing"), ("gets bigger", "getting bigger"), ("expands", "expanding")),
    "still": (("stays still", "staying still"), ("does not move", "not moving"), ("rests", "resting")),
}
GROUND_WORDS = {
    "black": "black",
    "grey": "grey",
    "white": "white",
    "stripes": "striped",
    "checker": "checkered",
    "gradient": "gradient",
}
VIDEO_TEMPLATES = (
    "{finite}{on}",
    "{participle}{on}",
    "a video of {participle}{on}",
    "a clip in which {finite}{on}",
    "an animation: {finite}{on}",
    "there is {nouns}{on}; {it}",
    "{upon}{finite}",
    "watch closely: {finite}{on}",
)
IMAGE_TEMPLATES = (
    "{nouns}{on}",
    "a picture of {nouns}{on}",
    "an image with {nouns}{on}",
    "{upon}{nouns}",
    "there is {nouns}{on}",
    "a frame showing {nouns}{on}",
)
TEXT_TEMPLATES = (', with the word "{}"', ', and the text reads "{}"', '; "{}" is written on it')


def caption_scene(spec: SceneSpec, *, image: bool = False, phrasing: int | None = None, ground_probability: float = 0.6) -> str:
    """Put a scene into words.

    Args:
        spec: the scene.
        image: true for a picture of one frame: motion is not mentioned.
        phrasing: another seed for the choice of words; None takes the scene's own.
        ground_probability: how often the ground is mentioned.
    """
    rng = np.random.default_rng([spec.seed if phrasing is None else phrasing, 7])
    nouns, finite, participle, it = zip(*(_words(item, rng) for item in spec.objects), strict=True)
    grounded = rng.random() < ground_probability
    place = f"a {GROUND_WORDS[spec.ground.kind]} background"
    templates = IMAGE_TEMPLATES if image else VIDEO_TEMPLATES
    text = templates[int(rng.integers(len(templates)))].format(
        nouns=" and ".join(nouns),
        finite=" and ".join(finite),
        participle=" and ".join(participle),
        it=_it(it, spec.objects),
        on=f" on {place}" if grounded else "",
        upon=f"on {place}, " if grounded else "",
    )
    if spec.text is not None:
        text += TEXT_TEMPLATES[int(rng.integers(len(TEXT_TEMPLATES)))].format(spec.text)
    return text


def _words(item: ObjectSpec, rng: np.random.Generator) -> tuple[str, str, str, str]:
    sized, size, shape, motion = rng.random() < 0.6, rng.random(), rng.random(), rng.random()
    adjective = f"{_choose(SIZE_WORDS[item.size], size)} " if sized else ""
    noun = f"a {adjective}{item.colour} {_choose(SHAPE_WORDS[item.shape], shape)}"
    finite, participle = _choose(MOTION_WORDS[item.motion], motion)
    return noun, f"{noun} {finite}", f"{noun} {participle}", finite


def _it(finite: tuple[str, ...], objects: tuple[ObjectSpec, ...]) -> str:
    if len(objects) == 1:
        return f"it {finite[0]}"
    return " and ".join(f"the {item.colour} one {verb}" for item, verb in zip(objects, finite, strict=True))


def _choose(options: tuple, number: float):
    return options[int(number * len(options))]
