"""Segment-level autoregressive generation (6.1.5): one segment after another, each told of the end of the one before."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from moviegen_audio.segments import paper_segments
from moviegen_core.conditioner import Conditioning
from moviegen_core.errors import UsageError
from moviegen_core.flow.windows import Window
from moviegen_core.sampler import Conditionings, GuidedSampler, Progress, VelocityField, segment_conditionings


@dataclass(frozen=True)
class Generated:
    """What has been generated so far, and what the next segment needs to know of how.

    Args:
        latents: all frames up to the end of the last segment, at t = 1 (b, c, t, ...).
        noise: the noise that the frames shared with the next segment came from.
        trajectory: the states of these frames after every solver step; empty where nobody asks.
    """

    latents: Float[Tensor, "b c ..."]
    noise: Float[Tensor, "b c ..."]
    trajectory: tuple[Tensor, ...] = ()

    @classmethod
    def nothing(cls, noise: Float[Tensor, "b c ..."]) -> "Generated":
        """Nothing yet of a sample from this noise."""
        return cls(latents=noise[:, :, :0], noise=noise[:, :, :0])

    @property
    def length(self) -> int:
        """Frames so far."""
        return self.latents.shape[2]


class SegmentAutoregressive(GuidedSampler):
    """Samples one segment after another; information passes through the n_ctx frames that neighbours share, by one or two routes.

    With `context` the last frames of the segment before, as they came out, are the audio context of the next: they are written into the
    `channels` door of the conditional variant, whose other frames stay as the model gave them (zeros where nothing is known). With
    `trajectory` the states of the shared frames are drawn, after every solver step, to those of the segment before, by weights that fall
    from 1 to 0 over the overlap. Either way the later segment's frames are kept. Shared frames start from the same noise in both segments.
    With neither, segments of `hop` frames are sampled independently and put end to end: the baseline that 6.1.3 warns of.

    Lengths are in latent frames, 25 a second. The network sees one segment at a time, whatever the length of the whole.

    Args:
        window: length n_win of a segment (1000, that is 40 s, in the paper).
        hop: distance n_hop between the ends of neighbours, at most `window` (750, that is 30 s, in the paper).
        context: condition on the end of the segment before; the model needs a conditioner that opens the `channels` door for context.
        trajectory: regularise the trajectory by that of the segment before.
        **options: those of `GuidedSampler`.

    Raises:
        UsageError: the lengths do not fit.
    """

    def __init__(self, *, window: int = 1000, hop: int = 750, context: bool = True, trajectory: bool = False, **options: Any) -> None:
        super().__init__(**options)
        paper_segments(window=window, hop=hop)
        self.context = context
        self.trajectory = trajectory
        self.cuts = paper_segments(window=window if context or trajectory else hop, hop=hop)

    def segments(self, length: int) -> list[Window]:
        """The paper's segments."""
        return self.cuts(length)

    def sample(self, velocity, noise, conditionings, *, progress=None):
        """Sample segment after segment; see `Sampler.sample`."""
        windows = self.segments(noise.shape[2])
        report = step_counter(progress, len(windows) * self.steps)
        generated = Generated.nothing(noise)
        for index, window in enumerate(windows):
            told = self.told(conditionings, index, windows, noise)
            fresh = noise[:, :, generated.length : window.stop]
            generated = self.extend(velocity, generated, fresh, told, windows[index : index + 2], report)
        return generated.latents

    def told(self, conditionings: Conditionings, index: int, windows: Sequence[Window], noise: Tensor) -> Sequence[Conditioning]:
        """The conditionings of one segment.

        Raises:
            UsageError: context is to be passed on, and the model has no door for it.
        """
        told = segment_conditionings(conditionings, index, windows[index], noise.shape[2])
        if self.context and len(windows) > 1:
            _check_door(told[0].channels, noise.shape[1])
        return told

    def extend(
        self,
        velocity: VelocityField,
        before: Generated,
        fresh: Float[Tensor, "b c ..."],
        told: Sequence[Conditioning],
        windows: Sequence[Window],
        report: Callable[[], None],
    ) -> Generated:
        """Sample the next segment.

        Args:
            velocity: (x, t, conditioning) -> dx/dt.
            before: what has been generated.
            fresh: noise of the frames that are new.
            told: the segment's conditionings.
            windows: the segment, and the one after it where there is one.
            report: called after each step.
        """
        window = windows[0]
        shared = before.length - window.start
        x = torch.cat([before.noise, fresh], dim=2)
        if self.context and shared:
            told = _with_context(told, before.latents[:, :, window.start :])
        ramp = (torch.arange(shared) / max(shared, 1)).to(x).view(-1, *[1] * (x.ndim - 3))
        passed_on = slice(windows[1].start - window.start, None) if len(windows) > 1 else slice(0, 0)
        noise, trajectory = x[:, :, passed_on], []
        for step, (t, t_next) in enumerate(self.intervals()):
            x = self.advance(velocity, x, t, t_next, told)
            if self.trajectory:
                if shared:
                    drawn = torch.lerp(before.trajectory[step], x[:, :, :shared], ramp)
                    x = torch.cat([drawn, x[:, :, shared:]], dim=2)
                trajectory.append(x[:, :, passed_on].clone())  # a view would keep the whole state
            report()
        latents = torch.cat([before.latents[:, :, : window.start], x], dim=2)
        return Generated(latents=latents, noise=noise, trajectory=tuple(trajectory))


def step_counter(progress: Progress | None, total: int) -> Callable[[], None]:
    """Counts steps over all segments.

    Args:
        progress: told of every step as progress(step, total).
        total: how many steps there will be.
    """
    done = 0

    def report() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    return report


def _check_door(channels: Tensor | None, latent_channels: int) -> None:
    if channels is not None and channels.shape[1] == latent_channels:
        return
    found = "no conditioner opens the channels door" if channels is None else f"the channels door holds {channels.shape[1]} channels"
    raise UsageError(
        "the sampler shall pass audio context from segment to segment (context: true)",
        f"{found}, context of these latents takes {latent_channels}",
        "use a model with a conditioner for audio context, or set `context: false` and `trajectory: true`, or take MultiDiffusion",
    )


def _with_context(told: Sequence[Conditioning], known: Tensor) -> list[Conditioning]:
    """The given variant told of the first frames; the null version knows of nothing."""
    channels = told[0].channels.clone()
    channels[:, :, : known.shape[2]] = known.to(channels)
    return [replace(told[0], channels=channels), *told[1:]]
