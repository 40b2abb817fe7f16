"""Reconstruction measures of 3.6.3: PSNR, SSIM and, with a feature network, the Frechet distance; all per frame."""

import warnings

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics import MeanMetric, SumMetric
from torchmetrics.functional.image import peak_signal_noise_ratio
from torchmetrics.image import StructuralSimilarityIndexMeasure
from torchmetrics.image.fid import FrechetInceptionDistance

_KINDS = ("image", "video")


class ReconstructionMetrics(nn.Module):
    """Averages over the frames of all processes: of everything, and of images and videos apart where both occurred.

    Args:
        features: network from uint8 frames (b, 3, h, w) to features (b, d) with an attribute `num_features` (torchmetrics' convention).
    """

    def __init__(self, *, features: nn.Module | None = None) -> None:
        super().__init__()
        # Not the class for PSNR: its list of frames cannot be exchanged with a process that has none.
        self.psnr = nn.ModuleDict({kind: MeanMetric() for kind in _KINDS})
        self.ssim = nn.ModuleDict({kind: StructuralSimilarityIndexMeasure(data_range=1.0) for kind in _KINDS})
        self.fid = nn.ModuleDict()
        if features is not None:
            self.fid.update({kind: FrechetInceptionDistance(feature=features, normalize=True) for kind in _KINDS})
        self.num_frames = nn.ModuleDict({kind: SumMetric() for kind in _KINDS})

    @torch.no_grad()
    def update(self, decoded: Float[Tensor, "b 3 t h w"], video: Float[Tensor, "b 3 t h w"], *, is_image: bool) -> None:
        """Add a batch with pixels in [-1, 1]."""
        kind = "image" if is_image else "video"
        ours, real = (_frames(x) for x in (decoded, video))
        self.psnr[kind].update(peak_signal_noise_ratio(ours, real, data_range=1.0, dim=(1, 2, 3), reduction="none"))
        self.ssim[kind].update(ours, real)
        self.num_frames[kind].update(ours.shape[0])
        if self.fid:
            self.fid[kind].update(real, real=True)
            self.fid[kind].update(ours, real=False)

    def compute(self) -> dict[str, Tensor]:
        """`psnr` and `ssim` of everything, `fid` where features were given; where both kinds occurred, `image_*` and `video_*` of each.

        The Frechet distance has no average over kinds, so it then comes by kind alone. Every process takes part in every exchange, also
        one that saw no frame of a kind.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
            counts = {kind: metric.compute() for kind, metric in self.num_frames.items()}
            kinds = [kind for kind in _KINDS if counts[kind] > 0]
            total = sum(counts.values())
            values: dict[str, Tensor] = {}
            for name, metrics in (("psnr", self.psnr), ("ssim", self.ssim), ("fid", self.fid)):
                by_kind = {kind: metrics[kind].compute() for kind in kinds if kind in metrics}
                if by_kind and (name != "fid" or len(kinds) == 1):
                    values[name] = sum(value * (counts[kind] / total) for kind, value in by_kind.items())
                if len(kinds) > 1:
                    values |= {f"{kind}_{name}": value for kind, value in by_kind.items()}
        return values

    def reset(self) -> None:
        """Forget everything."""
        for metrics in (self.psnr, self.ssim, self.fid, self.num_frames):
            for metric in metrics.values():
                metric.reset()


def _frames(video: Tensor) -> Tensor:
    return ((video.float().clamp(-1.0, 1.0) + 1.0) / 2.0).transpose(1, 2).flatten(0, 1)
