"""Training, validation and prediction of the temporal autoencoder (3.1.1, 3.6.3)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch import Tensor, nn

from moviegen_core.adversarial import TaughtByDiscriminator
from moviegen_core.autoencoder import Autoencoder
from moviegen_core.batch import MediaBatch
from moviegen_core.latent_statistics import LatentMoments, follow_latents
from moviegen_core.randomness import seed_step
from moviegen_tae.discriminator import PatchDiscriminator
from moviegen_tae.inflation import load_image_autoencoder
from moviegen_tae.loss import (
    LossWeights,
    adaptive_weight,
    hinge_discriminator_loss,
    pixel_scale,
    reconstruction,
    regularisation,
)
from moviegen_tae.metrics import ReconstructionMetrics
from moviegen_tae.model import AutoencoderNetwork, Dimensionality
from moviegen_tae.perceptual import PerceptualLoss
from moviegen_tae.tiling import TemporalTiling


class TemporalAutoencoder(TaughtByDiscriminator, Autoencoder):
    """The temporal autoencoder (TAE) of Movie Gen Video, 3.1.1; with `dimensionality: 2d` the frame-wise image autoencoder it starts from.

    Frames t' encode to ceil(t' / temporal_factor) latent frames and decode to temporal_factor times as many; spurious ones at the end are
    dropped. An image is a video of one frame; its reconstruction is the first decoded frame. The latents' statistics follow the training
    batches as a running average, are measured at every validation over all of it, and travel in the checkpoint.

    Args:
        base_channels: width of the first level (128 in latent diffusion).
        channel_multipliers: width of each level as a multiple of `base_channels`; n levels compress space by 2^(n-1).
        num_res_blocks: residual blocks of each encoder level (2 in latent diffusion; the decoder has one more).
        latent_channels: channels of the latent (16 in 3.1.1).
        temporal_factor: compression of time: a power of 2 up to 2^(n-1), 8 in 3.1.1; 1 in `2d`.
        dimensionality: `2d` (frame by frame), `2.5d` (the paper's) or `3d` (ablation of 3.6.4).
        norm_groups: groups of the normalisation (32 in latent diffusion).
        patch_size: pixels of a side that are folded into channels before the first level (1 in latent diffusion). Patches of 2 with one
            level less compress as much at a fraction of the time, since nothing runs at full resolution.
        gradient_checkpointing: recompute blocks in the backward pass, for less memory.
        loss: weights of the losses.
        perceptual_weights: file with VGG-16 and LPIPS weights; None takes torchmetrics' own where torchvision is installed.
        discriminator: builds the discriminator; a frame-wise patch discriminator unless given. Used where `loss.adversarial` is not 0.
        image_checkpoint: image autoencoder to inflate at the start of fit: a folder or file in diffusers' `AutoencoderKL` layout, or a
            checkpoint of this class with `dimensionality: 2d`.
        optimizer: builds the optimizer of the autoencoder.
        discriminator_optimizer: builds the discriminator's; as `optimizer` unless given.
        lr_scheduler: builds the learning-rate schedule, stepped at every optimizer step.
        gradient_clip_norm: largest norm of the autoencoder's gradient; None leaves it alone.
        tile_frames: length of a temporal tile in raw frames for encoding and decoding (32 in 3.1.1); None takes videos whole.
        tile_overlap_frames: overlap of neighbouring tiles in decoding, in raw frames (16 in 3.1.1).
        fid_features: builds a network from uint8 frames (b, 3, h, w) to features (b, d) with an attribute `num_features`, for the
            Frechet distance at validation; None leaves it out.

    Raises:
        ValueError: sizes that do not fit together; the message names what does.
    """

    def __init__(
        self,
        *,
        base_channels: int = 128,
        channel_multipliers: Sequence[int] = (1, 2, 4, 4),
        num_res_blocks: int = 2,
        latent_channels: int = 16,
        temporal_factor: int = 8,
        dimensionality: Dimensionality = "2.5d",
        norm_groups: int = 32,
        patch_size: int = 1,
        gradient_checkpointing: bool = False,
        loss: LossWeights = LossWeights(),  # noqa: B008 (frozen)
        perceptual_weights: str | None = None,
        discriminator: Callable[[], nn.Module] | None = None,
        image_checkpoint: str | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        discriminator_optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        gradient_clip_norm: float | None = 1.0,
        tile_frames: int | None = None,
        tile_overlap_frames: int = 16,
        fid_features: Callable[[], nn.Module] | None = None,
    ) -> None:
        super().__init__(
            latent_channels=latent_channels,
            temporal_factor=temporal_factor,
            spatial_factor=patch_size * 2 ** (len(channel_multipliers) - 1),
        )
        self.network = AutoencoderNetwork(
            base_channels=base_channels,
            channel_multipliers=channel_multipliers,
            num_res_blocks=num_res_blocks,
            latent_channels=latent_channels,
            temporal_factor=temporal_factor,
            dimensionality=dimensionality,
            norm_groups=norm_groups,
            patch_size=patch_size,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.tiling = None
        if tile_frames is not None:
            self.tiling = TemporalTiling(tile_frames=tile_frames, overlap_frames=tile_overlap_frames, temporal_factor=temporal_factor)
        self.loss = loss
        self.image_checkpoint = image_checkpoint
        self.factories = (optimizer, discriminator_optimizer or optimizer, lr_scheduler, discriminator or PatchDiscriminator, fid_features)
        self.perceptual_weights = perceptual_weights
        self.gradient_clip_norm = gradient_clip_norm
        self.automatic_optimization = not loss.adversarial
        # Frozen helpers are kept out of the module tree, so that they are neither trained nor saved.
        self._helpers: dict[str, Any] = {}

    def reset_parameters(self) -> None:
        """Draw all weights anew (temporal layers so that they leave a static video as it is) and forget the latents' statistics."""
        for module in [module for child in self.children() for module in child.modules()]:
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        nn.init.zeros_(self.latent_mean)
        nn.init.ones_(self.latent_std)

    # -- encoding and decoding -----------------------------------------------------------------------------------------------------

    def encode_raw(self, video: Float[Tensor, "b 3 t h w"], *, sample: bool = False) -> Float[Tensor, "b c s y x"]:
        """Encode to latents before normalisation: the posterior's mean, or a sample of it."""
        self.latent_shape(*video.shape[2:])  # refuses sizes that do not fit

        def encode(tile: Tensor) -> Tensor:
            mean, logvar = self.network.encode(tile)
            return _sample(mean, logvar) if sample else mean

        return encode(video) if self.tiling is None else self.tiling.encode(encode, video)

    def decode_raw(self, latent: Float[Tensor, "b c s y x"]) -> Float[Tensor, "b 3 t h w"]:
        """Decode latents before normalisation; all frames, the spurious ones included."""
        return self.network.decode(latent) if self.tiling is None else self.tiling.decode(self.network.decode, latent)

    def forward(self, video: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b 3 t h w"]:
        """Reconstruct."""
        return self.decode(self.encode(video), num_frames=video.shape[2])

    # -- training ------------------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Build what only some stages need."""
        if self.loss.adversarial and self.discriminator is None:
            self.discriminator = self.factories[3]()
            self.refuse_fp16()
        if stage == "fit":
            if self.loss.perceptual:
                self._helpers["perceptual"] = PerceptualLoss(weights=self.perceptual_weights)
            if self.image_checkpoint is not None:
                load_image_autoencoder(self, self.image_checkpoint)
        if stage in ("fit", "validate", "test"):
            features = self.factories[4]
            self._helpers["metrics"] = ReconstructionMetrics(features=None if features is None else features())

    def configure_optimizers(self) -> Any:
        """The autoencoder's optimizer and schedule, and the discriminator's optimizer where there is one."""
        make, make_discriminator, make_schedule = self.factories[:3]
        optimizer = make(list(self.network.parameters()))
        optimizers = [optimizer] if self.discriminator is None else [optimizer, make_discriminator(list(self.discriminator.parameters()))]
        if make_schedule is None:
            return optimizers
        schedule = make_schedule(optimizer)
        entry: dict[str, Any] = {"scheduler": schedule, "interval": "step"}
        if isinstance(schedule, ReduceLROnPlateau):
            if not self.automatic_optimization:
                raise ValueError(
                    "a plateau schedule was given together with an adversarial loss; that loss steps its optimizers itself and takes "
                    "schedules by step only; give another lr_scheduler, or set loss.adversarial to 0"
                )
            entry = {"scheduler": schedule, "monitor": schedule.monitor}
        return optimizers, [entry]

    def training_step(self, batch: MediaBatch, batch_idx: int) -> Tensor | None:
        """One step on a batch of videos or images."""
        seed_step(self, batch_idx)
        video = _pixels(batch)
        self.latent_shape(*video.shape[2:])
        mean, logvar = self.network.encode(video)
        latent = _sample(mean, logvar)
        decoded = self.network.decode(latent)[:, :, : video.shape[2]]
        terms = reconstruction(decoded, video, self.loss)
        if self.loss.perceptual:
            perceptual = self._helper("perceptual")(decoded, video)
            terms["perceptual"] = self.loss.perceptual * pixel_scale(video, self.loss) * perceptual
        fidelity = sum(terms.values())
        terms |= regularisation(mean, logvar, latent, self.loss)
        follow_latents(self, mean, step=self.global_step)
        if self.discriminator is not None:
            terms |= self._adversarial_steps(video, decoded, fidelity, sum(terms.values()))
        loss = sum(terms.values())
        self.log("train_loss", loss.detach(), prog_bar=True, batch_size=len(batch))
        self.log_dict({f"train_{name}": term.detach() for name, term in terms.items()}, batch_size=len(batch))
        return loss if self.automatic_optimization else None

    def _adversarial_steps(self, video: Tensor, decoded: Tensor, fidelity: Tensor, loss: Tensor) -> dict[str, Tensor]:
        """Step the autoencoder, then the discriminator; before the start step the autoencoder alone."""
        optimizer, _ = self.optimizers()
        _, discriminator_optimizer = self.optimizers(use_pl_optimizer=False)  # so that a step of training counts once
        active = self.global_step >= self.loss.adversarial_start_step
        terms = {}
        if active:
            self.discriminator.requires_grad_(False)
            adversarial = -self.discriminator(decoded).float().mean()
            weight = adaptive_weight(fidelity, adversarial, self.network.decoder.conv_out.spatial.weight)
            terms["adversarial"] = self.loss.adversarial * weight * adversarial
            loss = loss + terms["adversarial"]
            self.discriminator.requires_grad_(True)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        if active:
            judged = hinge_discriminator_loss(self.discriminator(video), self.discriminator(decoded.detach()))
            discriminator_optimizer.zero_grad()
            self.manual_backward(judged)
            discriminator_optimizer.step()
            self.log("train_discriminator", judged.detach(), batch_size=video.shape[0])
        if (schedule := self.lr_schedulers()) is not None:
            schedule.step()
        return {name: term.detach() for name, term in terms.items()}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the autoencoder's gradient."""
        if self.gradient_clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.gradient_clip_norm)

    # -- validation and prediction -------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Start measuring the latents anew."""
        self._helpers["moments"] = LatentMoments(self.latent_channels)

    def validation_step(self, batch: MediaBatch, batch_idx: int) -> None:
        """Reconstruct from the posterior's mean and measure per frame."""
        video = _pixels(batch)
        latent = self.encode_raw(video)
        decoded = self.decode_raw(latent)[:, :, : video.shape[2]].float().clamp(-1.0, 1.0)
        self._helpers["moments"].add(latent)
        self._helper("metrics").update(decoded, video, is_image=batch.is_image)
        self.log("val_loss", (decoded - video.float()).abs().mean(), batch_size=len(batch), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log the measures; set the latents' statistics unless this was only Lightning's sanity check."""
        metrics = self._helper("metrics")
        values = metrics.compute()
        metrics.reset()
        self.log_dict({f"val_{name}": value for name, value in values.items()}, rank_zero_only=False)
        if not self.trainer.sanity_checking:
            self._helpers["moments"].store_in(self)

    def test_step(self, batch: MediaBatch, batch_idx: int) -> None:
        """As validation, under names that begin with `test_`."""
        video = _pixels(batch)
        decoded = self.decode_raw(self.encode_raw(video))[:, :, : video.shape[2]].float().clamp(-1.0, 1.0)
        self._helper("metrics").update(decoded, video, is_image=batch.is_image)

    def on_test_epoch_end(self) -> None:
        """Log the measures."""
        metrics = self._helper("metrics")
        self.log_dict({f"test_{name}": value for name, value in metrics.compute().items()})
        metrics.reset()

    def predict_step(self, batch: MediaBatch, batch_idx: int) -> dict[str, Any]:
        """Normalised latents of a batch, for the latent cache."""
        latents = self.encode(_pixels(batch)).float()
        return {"keys": batch.keys, "captions": batch.captions, "latents": latents, "metadata": batch.metadata}

    def _helper(self, name: str) -> Any:
        return self._helpers[name].to(self.device)


def _sample(mean: Tensor, logvar: Tensor) -> Tensor:
    return mean + (0.5 * logvar).exp() * torch.randn_like(mean)


def _pixels(batch: MediaBatch) -> Tensor:
    if batch.video is None:
        raise ValueError(
            f"the batch of {len(batch)} samples (first '{batch.keys[0]}') holds no pixels; an autoencoder needs video; "
            "point `data` at shards with media, not at cached latents"
        )
    return batch.video
