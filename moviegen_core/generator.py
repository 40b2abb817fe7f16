"""FlowModel joins autoencoder, conditioners, backbone and sampler: training, validation, prediction."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch import Tensor, nn
from torch.optim import Optimizer

from moviegen_core.autoencoder import Autoencoder
from moviegen_core.backbone import Backbone
from moviegen_core.batch import MediaBatch, size_wanted
from moviegen_core.building import build_backbone
from moviegen_core.conditioner import Conditioner, Conditioning
from moviegen_core.errors import UsageError
from moviegen_core.flow.objective import squared_error
from moviegen_core.flow.path import OptimalTransportPath, Path
from moviegen_core.flow.timesteps import LogitNormalTimesteps, Timesteps
from moviegen_core.nn.initialization import draw_weights, seeded
from moviegen_core.origins import LatentOrigin
from moviegen_core.parallel.clipping import clip_gradients, is_sharded
from moviegen_core.parallel.precision import compute_dtype_of
from moviegen_core.progress import progress
from moviegen_core.randomness import keyed_noise, keyed_share, run_seed, seed_step
from moviegen_core.sampler import Conditionings, FlowSampler, Sampler
from moviegen_core.stages import load_stage
from moviegen_core.weights import load_into, open_weights


class FlowModel(LightningModule):
    """A generator trained by flow matching in the latents of an autoencoder (paper 3.1.2).

    Text-to-video, upsampling, personalisation, editing and audio are all this class with other conditioners.

    Args:
        backbone: builds the velocity network.
        conditioners: by name, each builds a conditioner for a given width.
        autoencoder: builds the autoencoder; None where latents are precomputed and nothing is ever decoded.
        autoencoder_checkpoint: file with the autoencoder's weights and latent statistics.
        init_checkpoint: file with the weights of an earlier stage to start from; growth of tables happens on the way.
        optimizer: builds the optimizer from the trainable parameters.
        lr_scheduler: builds the learning-rate schedule, stepped at every optimizer step. To halve the rate when the validation loss
            stops falling (3.3), add the callback `HalveOnPlateau`.
        path: path from noise to data; optimal transport unless given.
        timesteps: distribution of training times; logit-normal unless given.
        check_memory: refuse a training that cannot fit the machine by the planner's estimate, before weights are drawn.
        joint_dropout: probability that ALL conditions of a training sample are dropped together, beside each one's own dropout.
        num_frames: frames of a generated sample where the prompt does not say.
        height: rows of a generated sample in pixels where the prompt does not say.
        width: columns of a generated sample in pixels where the prompt does not say.
        fps: frames per second of a generated sample where the prompt does not say.
        seed: seed of the noise; every prompt's noise depends on the seed and its key alone, not on the batch or the machine.
    """

    starting_points = ("autoencoder_checkpoint", "init_checkpoint")

    def __init__(
        self,
        *,
        backbone: Callable[[], Backbone],
        conditioners: dict[str, Callable[[int], Conditioner]],
        autoencoder: Callable[[], Autoencoder] | None = None,
        autoencoder_checkpoint: str | None = None,
        init_checkpoint: str | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        path: Path | None = None,
        timesteps: Timesteps | None = None,
        check_memory: bool = True,
        joint_dropout: float = 0.0,
        num_frames: int = 16,
        height: int = 64,
        width: int = 64,
        fps: float = 16.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0.0 <= joint_dropout <= 1.0:
            raise UsageError(f"joint_dropout={joint_dropout:g} was given", "it is a probability", "give a number from 0 to 1")
        self.factories = (backbone, dict(conditioners), autoencoder)
        self.autoencoder_checkpoint = autoencoder_checkpoint
        self.init_checkpoint = init_checkpoint
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.path = path or OptimalTransportPath()
        self.timesteps = timesteps or LogitNormalTimesteps()
        self.check_memory = check_memory
        self.joint_dropout = joint_dropout
        self.num_frames, self.height, self.width, self.fps = num_frames, height, width, fps
        self.seed = seed
        self.sampler: Sampler = FlowSampler()
        self.backbone: Backbone | None = None
        self.conditioners = nn.ModuleDict()
        self.autoencoder: Autoencoder | None = None
        self._latent_origin = LatentOrigin()

    # -- building ------------------------------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Build the parts, once, and shard them where the strategy has a plan; weights of earlier stages are loaded here.

        Initial weights depend on the run's seed alone. A backbone that allows it is built without memory, sharded, and only then given
        weights, so that on a mesh of processes it never exists whole.
        """
        if self.backbone is not None:
            return
        try:
            self._build()
        except BaseException:
            self.backbone = None  # Lightning moves what there is to the CPU, and a backbone without weights cannot be moved
            raise

    def _build(self) -> None:
        backbone, conditioners, autoencoder = self.factories
        plan = getattr(self._trainer.strategy, "plan", None) if self._trainer is not None else None
        self.backbone = build_backbone(backbone)
        if plan is not None:
            self.backbone.parallelize(plan)
        if self.backbone.builds_on_meta:
            self._refuse_what_cannot_fit()
        for name, factory in conditioners.items():
            with seeded(run_seed(), name):
                self.conditioners[name] = factory(self.backbone.width)
            if plan is not None:
                self.conditioners[name].parallelize(plan)
        if self.backbone.builds_on_meta:
            self.backbone.to_empty(device=torch.get_default_device() if plan is None else plan.device)
            draw_weights(self.backbone, run_seed(), name="backbone")
        if autoencoder is not None:
            with seeded(run_seed(), "autoencoder"):
                self.autoencoder = autoencoder()
                self.autoencoder.configure_model()
            if self.autoencoder_checkpoint is not None:
                load_into(self.autoencoder, open_weights(self.autoencoder_checkpoint), source=self.autoencoder_checkpoint)
            self.autoencoder.requires_grad_(False).eval()
        if self.init_checkpoint is not None:
            self.load_stage(self.init_checkpoint)

    def _refuse_what_cannot_fit(self) -> None:
        """Ask the planner, before weights are drawn and encoders loaded."""
        if self.check_memory and self._trainer is not None and self._trainer.state.fn == "fit":
            from moviegen_core.parallel.planner.checking import check_run

            check_run(self, self._trainer)

    def sample_shape(self, autoencoder: Autoencoder) -> tuple[int, ...]:
        """Latent shape of a sample of the model's default size."""
        return tuple(autoencoder.latent_shape(self.num_frames, self.height, self.width))

    def training_shapes(self, autoencoder: Autoencoder, data: Any) -> list[tuple[int, ...]]:
        """Latent shapes of the samples that a data module trains on; none where it does not say."""
        from moviegen_core.parallel.planner.checking import sizes_of

        return [tuple(autoencoder.latent_shape(*size)) for size in sizes_of(data)]

    def load_stage(self, checkpoint: str | FilePath) -> None:
        """Start from the backbone and conditioners of an earlier stage; `adapt_state_dict` may grow them on the way."""
        load_stage(self, checkpoint)

    def adapt_state_dict(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Fit an earlier stage's weights to this model; the identity here.

        `state` reads a tensor when it is asked for one. Return `ChainMap(changes, state)`, and the rest is read one by one.
        """
        return state

    def train(self, mode: bool = True) -> "FlowModel":
        """Set the training mode of everything but the frozen autoencoder."""
        super().train(mode)
        if self.autoencoder is not None:
            self.autoencoder.eval()
        return self

    def configure_optimizers(self) -> Any:
        """The optimizer over trainable parameters and, where asked for, its schedule."""
        optimizer = self.optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.lr_scheduler(optimizer)
        if isinstance(scheduler, ReduceLROnPlateau):
            raise ValueError(
                "lr_scheduler ReduceLROnPlateau was given; Lightning steps it at the end of an epoch, which an endless stream of "
                "shards never reaches; leave lr_scheduler out and add the callback HalveOnPlateau"
            )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: int | float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip by the norm over all parameters of all processes, however each is sharded; a sharded model's norm is logged."""
        if gradient_clip_val and gradient_clip_val > 0 and gradient_clip_algorithm in (None, "norm") and is_sharded(self):
            self.log("grad_norm", clip_gradients(self, gradient_clip_val))
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    # -- training ------------------------------------------------------------------------------------------------------------------

    def training_step(self, batch: MediaBatch, batch_idx: int) -> Tensor:
        """The loss of one batch at random times and with random conditions dropped, and the conditioners' own terms."""
        seed_step(self, batch_idx)
        x_1 = self.latents(batch)
        t = self.timesteps.sample(len(batch), device=x_1.device)
        noise, dropped = torch.randn_like(x_1), self._draw_dropped(batch)
        given = replace(batch, latents=x_1)  # conditioners may see what is generated, or parts of it
        told = self._told(given)
        loss = self.losses(x_1, noise, t, self._joined(told, given, dropped)).mean()
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch))
        for name, term in self._auxiliary_losses(given, told).items():
            self.log(f"train_{name}_loss", term, batch_size=len(batch))
            loss = loss + term
        return loss

    def validation_step(self, batch: MediaBatch, batch_idx: int) -> None:
        """The loss at noise and times that depend on the samples' keys alone, so that two validations differ by the weights alone."""
        x_1 = self.latents(batch)
        noise = torch.stack([keyed_noise(x_1.shape[1:], self.seed, key) for key in batch.keys]).to(x_1)
        t = self.timesteps.quantile(torch.tensor([keyed_share(key) for key in batch.keys])).to(x_1.device)
        given = replace(batch, latents=x_1)
        told = self._told(given)
        loss = self.losses(x_1, noise, t, self._joined(told, given)).mean()
        self.log("val_loss", loss, prog_bar=True, batch_size=len(batch), sync_dist=True)
        for name, term in self._auxiliary_losses(given, told).items():
            self.log(f"val_{name}_loss", term, batch_size=len(batch), sync_dist=True)

    def losses(
        self, x_1: Float[Tensor, "b c ..."], x_0: Float[Tensor, "b c ..."], t: Float[Tensor, " b"], conditioning: Conditioning
    ) -> Float[Tensor, " b"]:
        """Squared error of every sample at time t on its path from x_0 to x_1 (eq. 2)."""
        point = self.path.sample(x_0, x_1, t)
        return squared_error(self.backbone(point.x_t, point.t, conditioning), point.target)

    @torch.no_grad()
    def latents(self, batch: MediaBatch) -> Float[Tensor, "b c t h w"]:
        """The batch's latents: cached ones as they are, pixels through the autoencoder (a sample of its posterior in training).

        Raises:
            UsageError: cached latents were made by an autoencoder of other weights than this model's.
            ValueError: there is nothing to encode.
        """
        if batch.latents is not None:
            self._latent_origin.check(batch, self.autoencoder, checkpoint=self.autoencoder_checkpoint)
            return batch.latents.float()
        if batch.video is None or self.autoencoder is None:
            missing = "neither pixels nor latents" if batch.video is None else "pixels, but no autoencoder to encode them"
            raise ValueError(f"the batch holds {missing}; give `model.autoencoder`, or shards with latents and `data.latents: true`")
        with self._frozen_precision():
            # Noise is drawn in the order of the memory: a cache of the same latents then sees the same noise.
            return self.autoencoder.encode(batch.video, sample=self.training).float().contiguous()

    def condition(self, batch: MediaBatch, dropped: dict[str, Tensor] | None = None) -> Conditioning:
        """Merge all conditioners' outputs; `dropped` marks, per conditioner, the samples that see its null version (b,)."""
        return self._joined(self._told(batch), batch, dropped)

    def _told(self, batch: MediaBatch) -> dict[str, Conditioning]:
        return {name: conditioner(batch) for name, conditioner in self.conditioners.items()}

    def _joined(self, told: dict[str, Conditioning], batch: MediaBatch, dropped: dict[str, Tensor] | None = None) -> Conditioning:
        if dropped is not None:
            told = {name: part.drop(dropped[name].to(self.device), self.conditioners[name].null(batch)) for name, part in told.items()}
        return Conditioning.merge(list(told.values()))

    def _auxiliary_losses(self, batch: MediaBatch, told: dict[str, Conditioning]) -> dict[str, Tensor]:
        terms = {name: conditioner.auxiliary_loss(batch, told[name]) for name, conditioner in self.conditioners.items()}
        return {name: term for name, term in terms.items() if term is not None}

    def _draw_dropped(self, batch: MediaBatch) -> dict[str, Tensor] | None:
        rates = {name: conditioner.dropout for name, conditioner in self.conditioners.items()}
        if not self.joint_dropout and not any(rates.values()):
            return None
        together = torch.rand(len(batch)) < self.joint_dropout
        return {name: together | (torch.rand(len(batch)) < rate) for name, rate in rates.items()}

    # -- prediction ----------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        captions: Sequence[str],
        *,
        keys: Sequence[str] | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        drop: bool = False,
    ) -> Float[Tensor, "b 3 t h w"]:
        """Generate a video in [-1, 1] for every caption.

        Args:
            captions: prompts, with the prefixes the model was trained with.
            keys: names that choose the noise together with `seed`; the captions' positions unless given.
            num_frames: frames; the model's own default unless given.
            height: rows in pixels, likewise.
            width: columns in pixels, likewise.
            drop: condition on nothing instead, the ablation that every figure is quoted beside.
        """
        keys = list(keys) if keys is not None else [str(position) for position in range(len(captions))]
        batch = MediaBatch(captions=list(captions), keys=keys)
        num_frames = num_frames or self.num_frames
        return self.decode(self.sample(batch, num_frames, height or self.height, width or self.width, drop=drop), num_frames)

    @torch.no_grad()
    def sample(self, batch: MediaBatch, num_frames: int, height: int, width: int, *, drop: bool = False) -> Float[Tensor, "b c t h w"]:
        """Sample the latents of videos for the batch's conditions."""
        return self.sample_latents(batch, self._require_autoencoder().latent_shape(num_frames, height, width), drop=drop)

    @torch.no_grad()
    def sample_latents(self, batch: MediaBatch, shape: Sequence[int], *, drop: bool = False) -> Float[Tensor, "b c ..."]:
        """Sample latents of a shape (c, ...) for the batch's conditions; with `drop` for none of them."""
        noise = torch.stack([keyed_noise(shape, self.seed, key) for key in batch.keys])
        return self.integrate(noise, self.sampling_conditions(batch, shape[1], drop=drop))

    def sampling_conditions(self, batch: MediaBatch, length: int, *, drop: bool = False) -> Conditionings:
        """The conditions of all variants that the sampler wants, for `length` latent frames; with `drop` nothing is told in any."""
        names = list(self.conditioners)
        return self.conditionings(batch, [frozenset(names) if drop else variant for variant in self.sampler.variants(names)], length)

    def integrate(self, noise: Float[Tensor, "b c ..."], conditionings: Conditionings) -> Float[Tensor, "b c ..."]:
        """Take noise to latents by the sampler, which is told what `sampling_conditions` gives.

        Raises:
            UsageError: what comes out holds NaN or infinity.
        """

        def velocity(x: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
            return self.path.velocity(x, self.backbone(x, t, conditioning).float(), t)

        with progress(f"sampling {len(noise)}") as report:
            made = self.sampler.sample(velocity, noise.to(self.device), conditionings, progress=report)
        _require_finite(made, "sampled latents", "weights hold some, or the guidance is too strong", "or a guidance_scale nearer to 1")
        return made

    def conditionings(self, batch: MediaBatch, variants: Sequence[frozenset[str]], length: int) -> Conditionings:
        """What the sampler is told for `length` latent frames; override it to give the sampler's segments conditions of their own."""
        return [self._variant(batch, variant) for variant in variants]

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c t h w"], num_frames: int) -> Float[Tensor, "b 3 t h w"]:
        """Decode latents to pixels clamped to [-1, 1].

        Raises:
            UsageError: what comes out holds NaN or infinity.
        """
        with self._frozen_precision():
            media = self._require_autoencoder().decode(latents, num_frames=num_frames).float()
        _require_finite(media, "decoded media", "the autoencoder's weights hold some", "or autoencoder_checkpoint")
        return media.clamp(-1.0, 1.0)

    def _frozen_precision(self) -> AbstractContextManager[Any]:
        """Autocast for the autoencoder where FSDP computes in half precision, since FSDP has not sharded it."""
        dtype = compute_dtype_of(self._trainer) if self._trainer is not None else torch.float32
        sharded_half = dtype == torch.bfloat16 and not torch.is_autocast_enabled(self.device.type)
        return torch.autocast(self.device.type, dtype) if sharded_half else nullcontext()

    def predict_step(self, batch: MediaBatch, batch_idx: int) -> dict[str, Any]:
        """Generate for a batch of prompts; the sizes are those of the batch's own clips, else its prompts', else the model's defaults."""
        num_frames, height, width = size_wanted(batch, num_frames=self.num_frames, height=self.height, width=self.width)
        latents = self.sample(batch, num_frames, height, width)
        fps = batch.fps.tolist() if batch.fps is not None else [self.fps] * len(batch)
        return {
            "keys": batch.keys,
            "captions": batch.captions,
            "latents": latents,
            "video": self.decode(latents, num_frames),
            "fps": fps,
            "metadata": batch.metadata,
        }

    def _variant(self, batch: MediaBatch, dropped: frozenset[str]) -> Conditioning:
        return Conditioning.merge(
            [conditioner.null(batch) if name in dropped else conditioner(batch) for name, conditioner in self.conditioners.items()]
        )

    def _require_autoencoder(self) -> Autoencoder:
        if self.autoencoder is None:
            raise ValueError(
                "this model has no autoencoder, so it cannot decode; give `model.autoencoder` and `model.autoencoder_checkpoint`"
            )
        return self.autoencoder


def _require_finite(made: Tensor, what: str, cause: str, advice: str) -> None:
    if not bool(made.isfinite().all()):
        raise UsageError(f"{what} with NaN or infinite values came out", cause, f"give another checkpoint, {advice}")
