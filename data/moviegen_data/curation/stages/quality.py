"""How good a clip looks: by the LAION aesthetic predictor (Table 39), or by classical measures, under other names."""

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from moviegen_core.errors import UsageError, require_at_least
from moviegen_data.curation.aesthetics import AestheticPredictor
from moviegen_data.curation.batched import BatchedStage
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.fingerprints import fingerprint_of
from moviegen_data.curation.looking import look
from moviegen_data.curation.media import Media
from moviegen_data.curation.stage import ClipStage
from moviegen_data.faults import SampleError

_COMPARED_PX = 512  # longer side at which sharpness and contrast of clips of all sizes are compared


class Aesthetics(BatchedStage):
    """Drops clips whose middle frame has too low an aesthetic score (Table 39), by LAION's predictor on CLIP embeddings.

    Score `aesthetic`, about 1 to 10.

    Args:
        clip_path: folder of the CLIP model that the head was trained on, ViT-L/14 for LAION's, as `save_pretrained` wrote it.
        head_path: file of the head, linear layers one after another, as safetensors or of `torch.save`; e.g. LAION's
            `sac+logos+ava1-l14-linearMSE.pth` or `sa_0_4_vit_l_14_linear.pth`. It is read weights-only.
        min_score: least score that passes (Table 39: 4.0).
        batch_size: frames that are embedded at once on a GPU.
        device: `cpu`, `cuda`, ...; the GPU where there is one unless given.

    Raises:
        UsageError: `batch_size` is below 1, or `min_score` is no number; at the first clip, a path is absent, or the head does not fit the
            model.
    """

    def __init__(self, *, clip_path: str, head_path: str, min_score: float = 4.0, batch_size: int = 16, device: str | None = None) -> None:
        super().__init__(batch=batch_size)
        if not math.isfinite(min_score):
            raise UsageError(f"min_score={min_score} was given to Aesthetics", "scores are about 1 to 10", "give e.g. 4.0")
        self.clip_path, self.head_path, self.min_score, self.device = clip_path, head_path, min_score, device
        self.uses_gpu = device != "cpu"

    def fingerprint(self) -> str:
        return fingerprint_of(self.clip_path, self.head_path)

    def look(self, clip: Clip, media: Media) -> UInt8[np.ndarray, "h w 3"]:
        """The middle frame."""
        return look(clip, media, count=1)[0]

    def answer(self, shown: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[float]:
        """Aesthetic scores."""
        return self._predictor.score(shown, batch=self.batch)

    def judge(self, clip: Clip, answer: float) -> Clip:
        """Compare the score with the least."""
        if not math.isfinite(answer):
            raise SampleError("cannot be scored", f"the aesthetic score is {answer}")
        clip = clip.scored(aesthetic=answer)
        if answer >= self.min_score:
            return clip
        return clip.dropped("low aesthetic score", measured=f"{answer:.2f}", wanted=f"at least {self.min_score:g}")

    @cached_property
    def _predictor(self) -> AestheticPredictor:
        return AestheticPredictor(clip_path=self.clip_path, head_path=self.head_path, device=self.device)


class ClassicalQuality(ClipStage):
    """Drops clips that are blurred, flat, too dark or too bright, by measures that need no model.

    They say nothing about beauty, and so are never called `aesthetic`. Each score is the median of a few frames, on luma in [0, 1] at a
    longer side of 512 px, so that clips of all sizes compare; smaller ones are judged at their own size.

    - `sharpness`: standard deviation of the Laplacian. Below 0.01 hardly an edge is sharp.
    - `contrast`: what lies between the 5th and the 95th percentile of luma.
    - `brightness`: mean of luma.
    - `clipped`: share of pixels that are black or white without shades (luma below 0.02 or above 0.98).

    Args:
        min_sharpness: least `sharpness`.
        min_contrast: least `contrast`.
        min_brightness: least `brightness`.
        max_brightness: most `brightness`.
        max_clipped: most `clipped`.
        num_frames: frames that are looked at.

    Raises:
        UsageError: a limit is out of range.
    """

    def __init__(
        self,
        *,
        min_sharpness: float = 0.01,
        min_contrast: float = 0.15,
        min_brightness: float = 0.05,
        max_brightness: float = 0.95,
        max_clipped: float = 0.7,
        num_frames: int = 4,
    ) -> None:
        require_at_least(1, num_frames=num_frames)
        shares = (min_contrast, min_brightness, max_brightness, max_clipped)
        if not all(0.0 <= share <= 1.0 for share in shares) or not min_sharpness >= 0.0 or min_brightness > max_brightness:
            given = f"limits of contrast, brightness and clipping of {shares} and of sharpness of {min_sharpness} were given"
            raise UsageError(given, "they are 0 to 1, that of sharpness 0 or more", "correct them")
        self.limits = {
            "sharpness": (min_sharpness, float("inf")),
            "contrast": (min_contrast, 1.0),
            "brightness": (min_brightness, max_brightness),
            "clipped": (0.0, max_clipped),
        }
        self.num_frames = num_frames

    def apply(self, clip: Clip, media: Media) -> Clip:
        """Measure one clip."""
        pictures = look(clip, media, count=self.num_frames, max_side=_COMPARED_PX)
        rows = [measures(picture) for picture in pictures]
        scores = {name: float(np.median([row[name] for row in rows])) for name in self.limits}
        clip = clip.scored(**scores)
        for name, (least, most) in self.limits.items():
            if scores[name] < least:
                return clip.dropped(f"low {name}", measured=f"{scores[name]:.3g}", wanted=f"at least {least:g}")
            if scores[name] > most:
                return clip.dropped(f"high {name}", measured=f"{scores[name]:.3g}", wanted=f"at most {most:g}")
        return clip


def measures(picture: UInt8[np.ndarray, "h w 3"]) -> dict[str, float]:
    """Sharpness, contrast, brightness and clipping of a picture, as `ClassicalQuality` names them."""
    luma = torch.from_numpy(np.array(Image.fromarray(picture).convert("L"))).float() / 255.0
    low, high = np.quantile(luma.numpy(), (0.05, 0.95))
    return {
        "sharpness": float(laplacian(luma).std(correction=0)),
        "contrast": float(high - low),
        "brightness": float(luma.mean()),
        "clipped": float(((luma < 0.02) | (luma > 0.98)).float().mean()),
    }


def laplacian(luma: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Sum of the four neighbours less four times the pixel; the margin repeats."""
    padded = F.pad(luma[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    return padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4.0 * luma
