"""What a sound is conditioned on beside its caption: the frames of a video, and the parts of the sound that are known (6.1.3)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from moviegen_audio.alignment import nearest_frames, take_frames
from moviegen_audio.envelope import EnvelopeHead
from moviegen_audio.frames import FrameEncoder
from moviegen_audio.masking import ContextMask
from moviegen_core.batch import MediaBatch
from moviegen_core.conditioner import Conditioner, Conditioning
from moviegen_core.errors import UsageError
from moviegen_core.randomness import keyed_share

if TYPE_CHECKING:
    from moviegen_core.parallel.plan import ParallelPlan

METACLIP_WIDTH = 1024


class VideoFrames(Conditioner):
    """The video, frame by frame: for every latent frame of the sound the nearest frame's embedding, through a gated linear projection,
    added to the latent frame (6.1.3).

    Embeddings come from the batch where it has them, as `extras["visual_features"]` (b, f, e) with `extras["visual_fps"]` (b,), and
    else from its video by the encoder. A batch that has neither, and the null version, add nothing.

    From the velocity's loss alone, a frame encoder that starts from nothing hardly finds out when something is heard: a sound is a few
    loud latent frames, and at most times t the noisy latent itself shows where they are. With `envelope_weight` the added features also
    have to tell the latents' envelope; the paper, whose frame encoder is a trained one, has no such term.

    Args:
        width: width of the backbone.
        encoder: builds the frame encoder; only precomputed embeddings are taken unless given.
        feature_width: width of precomputed embeddings where there is no encoder to tell it (1024 of MetaCLIP in 6.1.3).
        latent_hz: latent frames of the sound per second (25 in 6.1.3); that of the autoencoder.
        envelope_weight: weight of the squared error in telling the latents' envelope (`latent_envelope`) in the loss; 0 for no such
            term. The next stage of a training may begin or end with it.
        dropout: probability in [0, 1] that a training sample sees no video (0.1 in 6.1.6).
    """

    has_context = False
    auxiliary_parts = ("envelope",)

    def __init__(
        self,
        width: int,
        *,
        encoder: Callable[[], FrameEncoder] | None = None,
        feature_width: int | None = None,
        latent_hz: float = 25.0,
        envelope_weight: float = 0.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(dropout=dropout)
        if not 0.0 <= envelope_weight < float("inf"):
            raise UsageError(
                f"envelope_weight={envelope_weight} was given to VideoFrames",
                "it weighs a squared error in the loss",
                "give 0 for none, or e.g. 1.0",
            )
        self.encoder = None if encoder is None else encoder()
        found = METACLIP_WIDTH if self.encoder is None else self.encoder.feature_width
        if self.encoder is not None and feature_width not in (None, found):
            raise UsageError(
                f"feature_width={feature_width} was given to VideoFrames",
                f"{type(self.encoder).__name__} gives {found}",
                "leave feature_width out, or give that",
            )
        self.feature_width = feature_width or found
        self.latent_hz = latent_hz
        self.width = width
        self.projection = nn.Linear(self.feature_width, 2 * width)
        self.envelope_weight = envelope_weight
        self.envelope = EnvelopeHead(width=width) if envelope_weight else None

    def forward(self, batch: MediaBatch) -> Conditioning:
        """Add the nearest frames' embeddings."""
        features, fps = self._embed(batch)
        if features is None:
            parts = (self.projection,) if self.encoder is None else (self.encoder, self.projection)
            return Conditioning(aligned=self._nothing(batch) + _touched(*parts))
        nearest = nearest_frames(_num_latent_frames(batch, self), self.latent_hz, fps.to(features.device), features.shape[1])
        projected = self.projection(features.to(self.projection.weight.dtype))
        return Conditioning(aligned=take_frames(F.glu(projected, dim=-1), nearest))

    def null(self, batch: MediaBatch) -> Conditioning:
        """Add nothing."""
        return Conditioning(aligned=self._nothing(batch))

    def embed(self, batch: MediaBatch) -> tuple[Float[Tensor, "b f e"], Float[Tensor, " b"]] | tuple[None, None]:
        """The frames' embeddings and their rate, before they are aligned.

        Raises:
            UsageError: there is no frame rate, no encoder for the video, or embeddings have another width.
        """
        return self._embed(batch)

    def parallelize(self, plan: "ParallelPlan") -> None:
        """Shard this conditioner in place; it is whole while one of its methods that need it runs."""
        plan.shard(self, methods=["null", "embed", "auxiliary_loss"])

    def auxiliary_loss(self, batch: MediaBatch, conditioning: Conditioning) -> Float[Tensor, ""] | None:
        """The weighted error in telling the latents' envelope; zero for a batch without video."""
        if self.envelope is None:
            return None
        if "visual_features" not in batch.extras and batch.video is None:
            return 0.0 * conditioning.aligned.sum() + _touched(self.envelope)
        return self.envelope_weight * self.envelope.loss(conditioning.aligned, _latents(batch, self))

    def _embed(self, batch: MediaBatch) -> tuple[Tensor, Tensor] | tuple[None, None]:
        device = self.projection.weight.device
        features, fps = batch.extras.get("visual_features"), batch.extras.get("visual_fps")
        if features is not None:
            self._check_features(features, fps)
            return features.to(device), fps
        if batch.video is None:
            return None, None
        if batch.fps is None:
            raise UsageError("a video without a frame rate was given", "sound is aligned to its frames by time", "give `fps` beside it")
        if self.encoder is None:
            raise UsageError(
                "a video was given to VideoFrames without `encoder`",
                'it takes precomputed embeddings, `extras["visual_features"]`',
                "give them, or an `encoder` such as ClipFrameEncoder",
            )
        return self.encoder(batch.video.to(device)), batch.fps

    def _check_features(self, features: Tensor, fps: Tensor | None) -> None:
        if features.shape[-1] != self.feature_width or fps is None:
            missing = " and no visual_fps" if fps is None else ""
            raise UsageError(
                f"visual_features of width {features.shape[-1]}{missing} were given",
                f"VideoFrames takes {self.feature_width}, with frames per second as visual_fps",
                "give embeddings of the encoder that it was built for, and both extras",
            )

    def _nothing(self, batch: MediaBatch) -> Float[Tensor, "b t d"]:
        weight = self.projection.weight
        return weight.new_zeros(len(batch), _num_latent_frames(batch, self), self.width)


class AudioContext(Conditioner):
    """The parts of the sound that are known, zeros elsewhere, beside the noisy latent on channels (6.1.3).

    `extras["context_mask"]` (b, t) tells which latent frames are given, where a batch has it; `latents` hold them. Otherwise, in training,
    a stretch of 75 to 100 % is masked at random, and in validation one that depends on the sample's key alone.

    Args:
        width: width of the backbone; the context does not depend on it.
        masked_min: smallest share of a training sample that is masked (0.75 in 6.1.6).
        masked_max: largest share.
        at_end: probability that the mask reaches an end of the sound; the paper does not tell how masks are placed.
        dropout: probability in [0, 1] that a training sample sees no context at all (0.5 in 6.1.6).
    """

    has_context = False

    def __init__(self, width: int, *, masked_min: float = 0.75, masked_max: float = 1.0, at_end: float = 0.5, dropout: float = 0.5) -> None:
        super().__init__(dropout=dropout)
        if not 0.0 <= masked_min <= masked_max <= 1.0 or not 0.0 <= at_end <= 1.0:
            raise UsageError(
                f"masked_min={masked_min}, masked_max={masked_max} and at_end={at_end} were given to AudioContext",
                "they are shares from 0 to 1, masked_min the smaller one",
                "give e.g. 0.75, 1.0 and 0.5",
            )
        self.masks = ContextMask(masked_min=masked_min, masked_max=masked_max, at_end=at_end)

    def forward(self, batch: MediaBatch) -> Conditioning:
        """Give the known latents, with zeros where they are masked."""
        latents = _latents(batch, self)
        given = self.given(batch).to(latents.device)
        return Conditioning(channels=torch.where(given[:, None], latents, 0.0))

    def null(self, batch: MediaBatch) -> Conditioning:
        """Give nothing but zeros."""
        return Conditioning(channels=torch.zeros_like(_latents(batch, self)))

    def given(self, batch: MediaBatch) -> Bool[Tensor, "b t"]:
        """True where the batch's latent frames are context."""
        if "context_mask" in batch.extras:
            return batch.extras["context_mask"]
        uniform = torch.rand(len(batch), 3) if self.training else torch.tensor([_keyed_draws(key) for key in batch.keys])
        return self.masks.given(uniform, _num_latent_frames(batch, self))

    def parallelize(self, plan: "ParallelPlan") -> None:
        """Leave it: it has no weights to shard."""


def _keyed_draws(key: str) -> list[float]:
    return [keyed_share(f"{key}/context/{draw}") for draw in range(3)]


def _latents(batch: MediaBatch, conditioner: Conditioner) -> Float[Tensor, "b c t"]:
    if batch.latents is None:
        raise UsageError(
            f"a batch without latents was given to {type(conditioner).__name__}",
            "it aligns its condition to the latent frames of the sound",
            "give `latents` (b, c, t), zeros where they are not known; VideoToAudio does",
        )
    return batch.latents


def _num_latent_frames(batch: MediaBatch, conditioner: Conditioner) -> int:
    return _latents(batch, conditioner).shape[-1]


def _touched(*modules: nn.Module) -> Tensor | float:
    """Zero, with a gradient of zero for every weight of the modules.

    Processes without video exchange gradients with those that have some, after each method that was called: those of the very same weights.
    """
    trained = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    return 0.0 * torch.stack([parameter.sum() for parameter in trained]).sum() if trained and torch.is_grad_enabled() else 0.0
