"""Training, validation and prediction of the DAC-VAE (6.1.3)."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch import Tensor, nn
from torchmetrics import MeanMetric

from moviegen_audio.bottleneck import Posterior, bits_per_second
from moviegen_audio.codec import CodecNetwork
from moviegen_audio.dac_import import load_dac
from moviegen_audio.loss import (
    ReconstructionLoss,
    SoundLossWeights,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)
from moviegen_audio.metrics import SoundMetrics
from moviegen_audio.spectral import LOG_FLOOR
from moviegen_audio.streaming import ChunkedMap
from moviegen_core.adversarial import TaughtByDiscriminator
from moviegen_core.autoencoder import AudioAutoencoder
from moviegen_core.batch import MediaBatch
from moviegen_core.errors import UsageError
from moviegen_core.latent_statistics import LatentMoments, follow_latents
from moviegen_core.randomness import seed_step

logger = logging.getLogger(__name__)


class DacVae(TaughtByDiscriminator, AudioAutoencoder):
    """The DAC-VAE of Movie Gen Audio, 6.1.3: Descript Audio Codec with a Gaussian bottleneck in place of its quantiser.

    s samples encode to ceil(s / hop) latent frames, the hop being `patch_size` times the product of the strides, and decode to hop times
    as many. The latents' statistics follow the training batches as a running average, are measured at every validation over all of it,
    and travel in the checkpoint.

    Args:
        audio_channels: channels of a sound, 1 mono or 2 stereo.
        sample_rate: samples per second (48 kHz).
        strides: downsampling of the encoder's levels; the decoder has them in reverse.
        encoder_width: channels of the encoder's first level (64 in DAC); each further level has twice as many.
        decoder_width: channels of the decoder's first level (1536 in DAC); each further level has half as many.
        latent_channels: channels of the latent (128).
        patch_size: samples that are folded into channels before the first level (1 in DAC). With patches nothing runs at the full
            rate, where most of the time of a narrow codec goes.
        weight_norm: keep lengths and directions of kernels apart, as DAC does.
        filter_bank: start as a low-pass filter bank, which passes sound from the first step, instead of at random.
        loss: weights of the losses.
        mel_windows: window lengths of the mel loss in samples.
        mel_bands: mel bands for each window.
        stft_windows: window lengths of the STFT loss in samples.
        log_floor: smallest magnitude that the losses' logarithms tell apart; raise it where sounds hold digital silence, which
            weighs more than all that sounds otherwise.
        discriminator: builds a discriminator from the number of channels of a sound, e.g. `SoundDiscriminator`; none unless given.
        dac_checkpoint: weights of a Descript Audio Codec to start fit from, where shapes agree: a folder or file in the layout of
            transformers' `DacModel`.
        optimizer: builds the optimizer of the autoencoder.
        discriminator_optimizer: builds the discriminator's; as `optimizer` unless given.
        lr_scheduler: builds the learning-rate schedule of each optimizer, stepped at every optimizer step.
        gradient_clip_norm: largest norm of the autoencoder's gradient (1000 in DAC); None leaves it alone.
        discriminator_clip_norm: largest norm of the discriminator's gradient (10 in DAC); None leaves it alone.
        chunk_frames: latent frames that are encoded or decoded at once outside of training; the result is that of the whole sound, the
            memory that of a chunk. None takes sounds whole.

    Raises:
        UsageError: sizes that do not fit together; an optimizer for a discriminator that is not there.
    """

    def __init__(
        self,
        *,
        audio_channels: int = 1,
        sample_rate: int = 48000,
        strides: Sequence[int] = (2, 4, 5, 6, 8),
        encoder_width: int = 64,
        decoder_width: int = 1536,
        latent_channels: int = 128,
        patch_size: int = 1,
        weight_norm: bool = True,
        filter_bank: bool = False,
        loss: SoundLossWeights = SoundLossWeights(),
        mel_windows: Sequence[int] = (32, 64, 128, 256, 512, 1024, 2048),
        mel_bands: Sequence[int] = (5, 10, 20, 40, 80, 160, 320),
        stft_windows: Sequence[int] = (2048, 512),
        log_floor: float = LOG_FLOOR,
        discriminator: Callable[[int], nn.Module] | None = None,
        dac_checkpoint: str | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        discriminator_optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        gradient_clip_norm: float | None = 1000.0,
        discriminator_clip_norm: float | None = 10.0,
        chunk_frames: int | None = None,
    ) -> None:
        if discriminator is None and discriminator_optimizer is not None:
            raise UsageError("discriminator_optimizer was given", "there is no discriminator to train", "give `discriminator` too")
        for name, norm in (("gradient_clip_norm", gradient_clip_norm), ("discriminator_clip_norm", discriminator_clip_norm)):
            if norm is not None and not norm > 0:
                raise UsageError(f"{name}={norm} was given", "a largest norm is above 0", "give e.g. 10, or null to leave gradients alone")
        hop_length = patch_size * math.prod(strides)
        super().__init__(latent_channels=latent_channels, sample_rate=sample_rate, hop_length=hop_length, audio_channels=audio_channels)
        self.network = CodecNetwork(
            audio_channels=audio_channels,
            encoder_width=encoder_width,
            decoder_width=decoder_width,
            strides=strides,
            latent_channels=latent_channels,
            patch_size=patch_size,
            weight_norm=weight_norm,
            filter_bank=filter_bank,
        )
        self.encoder_chunks, self.decoder_chunks = _chunked_maps(self.network, chunk_frames, hop_length)
        self.loss = loss
        self.distance = ReconstructionLoss(
            weights=loss,
            sample_rate=sample_rate,
            mel_windows=mel_windows,
            mel_bands=mel_bands,
            stft_windows=stft_windows,
            log_floor=log_floor,
        )
        self.dac_checkpoint = dac_checkpoint
        self.optimizer, self.discriminator_optimizer = optimizer, discriminator_optimizer or optimizer
        self.lr_scheduler, self.discriminator_factory = lr_scheduler, discriminator
        self.gradient_clip_norm, self.discriminator_clip_norm = gradient_clip_norm, discriminator_clip_norm
        self.automatic_optimization = discriminator is None
        # Measures are kept out of the module tree, so that they are neither trained nor saved.
        self._helpers: dict[str, Any] = {}

    def reset_parameters(self) -> None:
        """Draw all weights anew and forget the latents' statistics."""
        for module in self.network.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        nn.init.zeros_(self.latent_mean)
        nn.init.ones_(self.latent_std)

    # -- encoding and decoding -----------------------------------------------------------------------------------------------------

    def posterior(self, audio: Float[Tensor, "b a s"]) -> Posterior:
        """The Gaussian of every latent frame and channel, before normalisation, of a sound of whole latent frames."""
        encode = self.network.encode
        return Posterior.from_moments(encode(audio) if self.encoder_chunks is None else self.encoder_chunks(encode, audio))

    def encode_raw(self, media: Float[Tensor, "b a s"], *, sample: bool = False) -> Float[Tensor, "b c t"]:
        """Encode to latents before normalisation: the posterior's mean, or a sample of it."""
        posterior = self.posterior(media)
        return (posterior.sample() if sample else posterior.mean).to(media.dtype)

    def decode_raw(self, latent: Float[Tensor, "b c t"]) -> Float[Tensor, "b a s"]:
        """Decode latents before normalisation; whole latent frames."""
        return self.network.decode(latent) if self.decoder_chunks is None else self.decoder_chunks(self.network.decode, latent)

    def forward(self, audio: Float[Tensor, "b a s"]) -> Float[Tensor, "b a s"]:
        """Reconstruct."""
        return self.decode(self.encode(audio), num_frames=audio.shape[-1])

    def stream_encode(self, pieces: Iterable[Float[Tensor, "b a s"]], *, chunk_frames: int = 250) -> Iterator[Float[Tensor, "b c t"]]:
        """Encode successive pieces of a sound, of any lengths, to normalised latents; no more than a chunk and its context is held.

        Args:
            pieces: the sound in pieces.
            chunk_frames: latent frames of a chunk, where the constructor was given none.
        """
        chunks = self.encoder_chunks or _chunked_maps(self.network, chunk_frames, self.hop_length)[0]
        shift, scale = self.latent_mean[:, None], self.latent_std[:, None]
        for moments in chunks.stream(self.network.encode, _whole_frames(pieces, self.hop_length)):
            yield (Posterior.from_moments(moments).mean - shift) / scale

    def stream_decode(self, pieces: Iterable[Float[Tensor, "b c t"]], *, chunk_frames: int = 250) -> Iterator[Float[Tensor, "b a s"]]:
        """Decode successive pieces of normalised latents, of any lengths.

        Args:
            pieces: the latents in pieces.
            chunk_frames: latent frames of a chunk, where the constructor was given none.
        """
        chunks = self.decoder_chunks or _chunked_maps(self.network, chunk_frames, self.hop_length)[1]
        shift, scale = self.latent_mean[:, None], self.latent_std[:, None]
        yield from chunks.stream(self.network.decode, (piece * scale + shift for piece in pieces))

    # -- training ------------------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Build what only some stages need."""
        if stage == "fit" and self.discriminator_factory is not None and self.discriminator is None:
            self.discriminator = self.discriminator_factory(self.audio_channels)
            self.refuse_fp16()
        if stage == "fit" and self.dac_checkpoint is not None:
            logger.info("%s", load_dac(self.network, self.dac_checkpoint).summary())
        if stage in ("fit", "validate", "test"):
            self._helpers["metrics"] = SoundMetrics(sample_rate=self.sample_rate)
            self._helpers["kl"] = MeanMetric()

    def configure_optimizers(self) -> Any:
        """The autoencoder's optimizer, the discriminator's where there is one, and their schedules."""
        optimizers = [self.optimizer(list(self.network.parameters()))]
        if self.discriminator is not None:
            optimizers.append(self.discriminator_optimizer(list(self.discriminator.parameters())))
        if self.lr_scheduler is None:
            return optimizers
        schedules = [self.lr_scheduler(optimizer) for optimizer in optimizers]
        if isinstance(schedules[0], ReduceLROnPlateau):
            if not self.automatic_optimization:
                raise UsageError(
                    "a plateau schedule was given together with a discriminator",
                    "its optimizers are stepped by hand, with schedules by step only",
                    "give another lr_scheduler, or no discriminator",
                )
            return optimizers, [{"scheduler": schedules[0], "monitor": schedules[0].monitor}]
        return optimizers, [{"scheduler": schedule, "interval": "step"} for schedule in schedules]

    def training_step(self, batch: MediaBatch, batch_idx: int) -> Tensor | None:
        """One step on a batch of sounds."""
        seed_step(self, batch_idx)
        audio = _padded(self.sound_of(batch), self.hop_length)
        posterior = Posterior.from_moments(self.network.encode(audio))
        decoded = self.network.decode(posterior.sample())
        terms = self.distance(decoded, audio, posterior)
        follow_latents(self, posterior.mean, step=self.global_step)
        if self.discriminator is not None:
            terms |= self._adversarial_steps(audio, decoded, sum(terms.values()))
        loss = sum(terms.values())
        self.log("train_loss", loss.detach(), prog_bar=True, batch_size=len(batch))
        self.log_dict({f"train_{name}": term.detach() for name, term in terms.items()}, batch_size=len(batch))
        return loss if self.automatic_optimization else None

    def _adversarial_steps(self, audio: Tensor, decoded: Tensor, loss: Tensor) -> dict[str, Tensor]:
        """Step the discriminator, then the autoencoder against it; before the start step the autoencoder alone."""
        optimizer = self.optimizers()[0]
        terms, judged = {}, self.global_step >= self.loss.adversarial_start_step
        if judged:
            self._step_discriminator(audio, decoded.detach())
            self.discriminator.requires_grad_(False)
            with torch.no_grad():
                real = self.discriminator(audio)
            fake = self.discriminator(decoded)
            terms["adversarial"] = self.loss.adversarial * adversarial_loss(fake)
            terms["feature_matching"] = self.loss.feature_matching * feature_matching_loss(real, fake)
            self.discriminator.requires_grad_(True)
        optimizer.zero_grad()
        self.manual_backward(loss + sum(terms.values()))
        optimizer.step()
        for schedule in (self.lr_schedulers() or [])[: 2 if judged else 1]:  # of those that have stepped
            schedule.step()
        return {name: term.detach() for name, term in terms.items()}

    def _step_discriminator(self, audio: Tensor, decoded: Tensor) -> None:
        optimizer = self.optimizers(use_pl_optimizer=False)[1]  # so that a step of training counts once
        judged = discriminator_loss(self.discriminator(audio), self.discriminator(decoded))
        optimizer.zero_grad()
        self.manual_backward(judged)
        if self.discriminator_clip_norm is not None:
            nn.utils.clip_grad_norm_(self.discriminator.parameters(), self.discriminator_clip_norm)
        optimizer.step()
        self.log("train_discriminator", judged.detach(), batch_size=audio.shape[0])

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the autoencoder's gradient."""
        if self.gradient_clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.gradient_clip_norm)

    # -- validation and prediction -------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Start measuring the latents anew."""
        self._helpers["moments"] = LatentMoments(self.latent_channels)

    def validation_step(self, batch: MediaBatch, batch_idx: int) -> None:
        """Reconstruct from the posterior's mean and measure."""
        posterior, loss = self._measure(batch)
        self._helpers["moments"].add(posterior.mean)
        self.log("val_loss", loss, batch_size=len(batch), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log the measures; set the latents' statistics unless this was only Lightning's sanity check."""
        self.log_dict({f"val_{name}": value for name, value in self._measures().items()}, rank_zero_only=False)
        if not self.trainer.sanity_checking:
            self._helpers["moments"].store_in(self)

    def test_step(self, batch: MediaBatch, batch_idx: int) -> None:
        """As validation, under names that begin with `test_`."""
        self._measure(batch)

    def on_test_epoch_end(self) -> None:
        """Log the measures."""
        self.log_dict({f"test_{name}": value for name, value in self._measures().items()}, rank_zero_only=False)

    def _measure(self, batch: MediaBatch) -> tuple[Posterior, Tensor]:
        audio = self.sound_of(batch)
        posterior = self.posterior(_padded(audio, self.hop_length))
        decoded = self.decode_raw(posterior.mean.to(audio.dtype))[..., : audio.shape[-1]].float()
        self._helper("metrics").update(decoded.clamp(-1.0, 1.0), audio)
        self._helper("kl").update(posterior.kl(), weight=len(batch))
        return posterior, sum(self.distance(decoded, audio, posterior).values())

    def _measures(self) -> dict[str, Tensor]:
        """Values of the metrics, which are then forgotten; `kl` in nats per latent frame, and the bits per second that it stands for."""
        metrics, kl = self._helper("metrics"), self._helper("kl")
        values = metrics.compute() | {"kl": kl.compute()}
        values["bits_per_second"] = values["kl"] * bits_per_second(1.0, self.latent_rate)
        metrics.reset()
        kl.reset()
        return values

    def _helper(self, name: str) -> Any:
        return self._helpers[name].to(self.device)


def _chunked_maps(network: CodecNetwork, chunk_frames: int | None, hop: int) -> tuple[ChunkedMap | None, ChunkedMap | None]:
    if chunk_frames is None:
        return None, None
    return (
        ChunkedMap(network.encoder_layers(), chunk_frames=chunk_frames, input_per_frame=hop, output_per_frame=1),
        ChunkedMap(network.decoder_layers(), chunk_frames=chunk_frames, input_per_frame=1, output_per_frame=hop),
    )


def _whole_frames(pieces: Iterable[Tensor], hop: int) -> Iterator[Tensor]:
    """The pieces, and silence up to a whole latent frame."""
    total, last = 0, None
    for last in pieces:
        total += last.shape[-1]
        yield last
    if total % hop:
        yield last.new_zeros(*last.shape[:2], -total % hop)


def _padded(audio: Tensor, hop: int) -> Tensor:
    return nn.functional.pad(audio, (0, -audio.shape[-1] % hop))
