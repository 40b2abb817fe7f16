"""What a clip looks like by classical means: a vector of signs."""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.fft import dctn

from moviegen_core.errors import require_at_least
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.looking import look
from moviegen_data.curation.media import Media
from moviegen_data.curation.stage import ClipStage

_SIDE = 8  # lowest frequencies kept each way
_SAMPLES = 32  # pixels each way of which the frequencies are taken
_FLAT = 1.0  # grey levels; a picture that varies less shows nothing that could be told apart


class PerceptualHash(ClipStage):
    """Embeds a clip by the signs of the lowest frequencies of a few of its frames; needs no model.

    Each frame is brought to 32 x 32 grey pixels and its cosine transform taken; the 63 lowest frequencies but the mean are +1 where
    they are above their median, else -1. The cosine of two clips is then 1 - 2 x (share of signs that differ). Re-encoding, resizing,
    brightness and contrast change few signs, a crop of a few percent some, another picture about half. Frames without structure
    (black, white) are -1 throughout, and so alike.

    Args:
        num_frames: frames looked at, evenly spread over the clip.
    """

    def __init__(self, *, num_frames: int = 4) -> None:
        require_at_least(1, num_frames=num_frames)
        self.num_frames = num_frames

    def apply(self, clip: Clip, media: Media) -> Clip:
        """Embed it."""
        pictures = look(clip, media, count=self.num_frames, max_side=512)  # as ClassicalQuality does, and so decoded once for both
        signs = [hash_picture(picture) for picture in pictures]
        # A picture, which gives itself once, is a clip in which nothing moves.
        return clip.embedded(perceptual_hash=np.concatenate(signs * (self.num_frames // len(signs))))


def hash_picture(picture: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "63"]:
    """The signs of a picture's lowest frequencies."""
    grey = Image.fromarray(picture).convert("L").resize((_SAMPLES, _SAMPLES), Image.Resampling.LANCZOS)
    pixels = np.asarray(grey, dtype=np.float64)
    if pixels.std() < _FLAT:
        return np.full(_SIDE * _SIDE - 1, -1.0)
    frequencies = dctn(pixels, type=2)[:_SIDE, :_SIDE].reshape(-1)[1:]
    return np.where(frequencies > np.median(frequencies), 1.0, -1.0)
