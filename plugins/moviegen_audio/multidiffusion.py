"""MultiDiffusion over the paper's segments (6.1.5, figure 29): the default for sounds longer than the training's."""

from typing import Any, Literal

from moviegen_audio.segments import paper_segments
from moviegen_core.errors import UsageError
from moviegen_core.sampler import WindowedSampler


class MultiDiffusion(WindowedSampler):
    """Samples all segments side by side: one solver step on each, then their states are averaged where they overlap, then the next step.

    Lengths are in latent frames, 25 a second. The network sees `windows_per_batch` windows at a time, whatever the length of the whole.

    Args:
        window: length n_win of a segment (1000, that is 40 s, in the paper).
        hop: distance n_hop between the ends of neighbours, at most `window` (750, that is 30 s, in the paper).
        shape: `triangular` weights a segment by a Bartlett window, so that it fades in and out over the overlap; `uniform` averages.
        windows_per_batch: segments of one length that share a pass of the network.
        **options: those of `GuidedSampler`; the paper samples with `MidpointSolver`, 64 steps and dynamic guidance, its weight of 3 being a
            `guidance_scale` of 4.

    Raises:
        UsageError: the lengths do not fit.
    """

    def __init__(
        self,
        *,
        window: int = 1000,
        hop: int = 750,
        shape: Literal["triangular", "uniform"] = "triangular",
        windows_per_batch: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if windows_per_batch < 1:
            raise UsageError(f"windows_per_batch={windows_per_batch} was given", "it counts windows", "give 1, or more where memory allows")
        self.windows = paper_segments(window=window, hop=hop, shape=shape)
        self.windows_per_batch = windows_per_batch
