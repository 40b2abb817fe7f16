"""Reconstruction measures of 3.6.3: PSNR, SSIM and, with a feature network, the Frechet distance; all per frame."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure
from torchmetrics.image.fid import FrechetInceptionDistance


class ReconstructionMetrics(nn.Module):
    """Averages over frames of everything, and of images and videos apart where both occurred.

    Args:
        features: network from uint8 frames (b, 3, h, w) to features (b, d) with an attribute `num_features` (torchmetrics' convention).
    """

    def __init__(self, *, features: nn.Module | None = None) -> None:
        super().__init__()
        self.psnr = nn.ModuleDict(
            {kind: PeakSignalNoiseRatio(data_range=1.0, dim=(1, 2, 3), reduction="elementwise_mean") for kind in ("image", "video")}
        )
        self.ssim = nn.ModuleDict({kind: StructuralSimilarityIndexMeasure(data_range=1.0) for kind in ("image", "video")})
        self.fid = None if features is None else FrechetInceptionDistance(feature=features, normalize=True)
        self.num_frames = {"image": 0, "video": 0}

    @torch.no_grad()
    def update(self, decoded: Float[Tensor, "b 3 t h w"], video: Float[Tensor, "b 3 t h w"], *, is_image: bool) -> None:
        """Add a batch with pixels in [-1, 1]."""
        kind = "image" if is_image else "video"
        ours, real = (_frames(x) for x in (decoded, video))
        self.psnr[kind].update(ours, real)
        self.ssim[kind].update(ours, real)
        self.num_frames[kind] += ours.shape[0]
        if self.fid is not None:
            self.fid.update(real, real=True)
            self.fid.update(ours, real=False)

    def compute(self) -> dict[str, Tensor]:
        """`psnr`, `ssim`, and `image_*` and `video_*` where both occurred, `fid` where features were given."""
        kinds = [kind for kind, count in self.num_frames.items() if count]
        total = sum(self.num_frames.values())
        values: dict[str, Tensor] = {}
        for name in ("psnr", "ssim"):
            by_kind = {kind: getattr(self, name)[kind].compute() for kind in kinds}
            values[name] = sum(value * (self.num_frames[kind] / total) for kind, value in by_kind.items())
            if len(kinds) > 1:
                values |= {f"{kind}_{name}": value for kind, value in by_kind.items()}
        if self.fid is not None:
            values["fid"] = self.fid.compute()
        return values

    def reset(self) -> None:
        """Forget everything."""
        for metric in [*self.psnr.values(), *self.ssim.values(), *([self.fid] if self.fid is not None else [])]:
            metric.reset()
        self.num_frames = {"image": 0, "video": 0}


def _frames(video: Tensor) -> Tensor:
    return ((video.float().clamp(-1.0, 1.0) + 1.0) / 2.0).transpose(1, 2).flatten(0, 1)
