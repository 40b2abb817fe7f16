"""How fast a training goes, what share of the machine it uses, and when it will be done."""

import time
from typing import Any

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from lightning.pytorch import Callback, LightningModule, Trainer

from moviegen_core.autoencoder import AudioAutoencoder
from moviegen_core.batch import MediaBatch
from moviegen_core.callbacks.machine import measure_peak_tflops, memory_gib, readable_time
from moviegen_core.errors import UsageError
from moviegen_core.parallel.precision import compute_dtype_of


class Throughput(Callback):
    """Logs rates over the last steps, under `throughput/`.

    Always: `samples_per_s` (all processes), `step_s`, `data_wait_share` (from the end of one batch to the start of the next),
    `memory_gib` (peak of the accelerator, or of the process on a CPU) and its parts `memory_parameters_gib`, `memory_gradients_gib`,
    `memory_optimizer_gib` and `memory_rest_gib` (activations and whatever else the peak held), and `remaining_s` where `max_steps` is set.
    Where the model has a `backbone` that counts: `tokens_per_s`, `model_tflops_per_s` (a forward pass and a backward pass of twice its
    cost, per process; recomputation does not count), and `mfu`, its share of the device's peak where that is known. Validation is in none
    of the rates. The progress bar shows seconds per step, tokens per second, MFU, and the time left.

    Args:
        every_n_steps: optimizer steps between two logged values.
        peak_tflops: what the device can do at most, in TFLOP/s; from Lightning's table of GPUs unless given or measured.
        measure_peak: time a large matrix product in the run's type when training starts, and take that for the peak.
    """

    def __init__(self, *, every_n_steps: int = 50, peak_tflops: float | None = None, measure_peak: bool = False) -> None:
        if every_n_steps < 1:
            raise UsageError(
                f"every_n_steps={every_n_steps} was given to Throughput", "it counts optimizer steps from 1", "give a larger number"
            )
        if measure_peak and peak_tflops is not None:
            raise UsageError(
                f"measure_peak and peak_tflops={peak_tflops} were given to Throughput", "there is one peak", "leave one of the two out"
            )
        self.every_n_steps = every_n_steps
        self.measure_peak = measure_peak
        self.peak_tflops = peak_tflops
        self._counts = False
        self._context_length = 0
        self._hook: Any = None
        self._costs: dict[tuple[int, ...], tuple[int, int]] = {}
        self._reset(0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look up the device, and how long contexts are at the first forward pass."""
        device = trainer.strategy.root_device
        dtype = compute_dtype_of(trainer)
        if self.peak_tflops is None and self.measure_peak:
            self.peak_tflops = measure_peak_tflops(device, dtype)
        elif self.peak_tflops is None and device.type == "cuda":
            flops = get_available_flops(device, dtype)
            self.peak_tflops = None if flops is None else flops / 1e12
        backbone = getattr(pl_module, "backbone", None)
        self._counts = hasattr(backbone, "num_flops")
        if self._counts:
            self._hook = backbone.register_forward_pre_hook(self._look)
        self._reset(trainer.global_step)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note how long the batch was waited for."""
        self._waited_s += time.perf_counter() - self._idle_since

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count, and log where enough steps have been made."""
        self._samples += len(batch) if hasattr(batch, "__len__") else 0
        if self._counts:
            self._count(pl_module, batch)
        step = trainer.global_step
        if step - self._first_step >= self.every_n_steps:
            self._log(trainer, pl_module, step)
            self._reset(step)
        self._idle_since = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._paused_at = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock again."""
        paused_s = time.perf_counter() - self._paused_at
        self._started += paused_s
        self._idle_since += paused_s

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave nothing on the model."""
        self._unhook()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing on the model."""
        self._unhook()

    # ------------------------------------------------------------------------------------------------------------------------------

    def _reset(self, step: int) -> None:
        self._first_step = step
        self._samples = self._tokens = self._flops = 0
        self._waited_s = 0.0
        self._started = self._idle_since = time.perf_counter()

    def _look(self, backbone: Any, inputs: tuple[Any, ...]) -> None:
        conditioning = inputs[2] if len(inputs) > 2 else None
        context = getattr(conditioning, "context", None)
        self._context_length = 0 if context is None else context.shape[1]
        self._unhook()

    def _unhook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _count(self, pl_module: LightningModule, batch: Any) -> None:
        if not isinstance(batch, MediaBatch):
            return
        has_sound = isinstance(getattr(pl_module, "autoencoder", None), AudioAutoencoder)
        media = batch.latents if batch.latents is not None else batch.audio if has_sound else batch.video
        if media is None:
            return
        key = (batch.latents is None, *media.shape[1:])
        if key not in self._costs:
            latent = pl_module.autoencoder.latent_shape(*media.shape[2:]) if batch.latents is None else tuple(media.shape[1:])
            backbone = pl_module.backbone
            self._costs[key] = backbone.num_tokens(latent), 3 * backbone.num_flops(latent, self._context_length)
        tokens, flops = self._costs[key]
        self._tokens += tokens * len(batch)
        self._flops += flops * len(batch)

    def _log(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        device = trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elapsed_s = time.perf_counter() - self._started
        step_s = elapsed_s / (step - self._first_step)
        # Processes of one tensor or context group see the same samples and share their work.
        num_replicas = (getattr(trainer.strategy, "distributed_sampler_kwargs", None) or {}).get("num_replicas", trainer.world_size)
        values = {
            "samples_per_s": self._samples * num_replicas / elapsed_s,
            "step_s": step_s,
            "data_wait_share": self._waited_s / elapsed_s,
            **memory_gib(trainer, pl_module),
        }
        if trainer.max_steps > 0:
            values["remaining_s"] = (trainer.max_steps - step) * step_s
        if self._tokens:
            values["tokens_per_s"] = self._tokens * num_replicas / elapsed_s
            values["model_tflops_per_s"] = self._flops * num_replicas / trainer.world_size / elapsed_s / 1e12
            if self.peak_tflops is not None:
                values["mfu"] = values["model_tflops_per_s"] / self.peak_tflops
        for logger in trainer.loggers:
            logger.log_metrics({f"throughput/{name}": value for name, value in values.items()}, step=step)
        shown: dict[str, Any] = {name: values[name] for name in ("step_s", "tokens_per_s", "mfu") if name in values}
        if "remaining_s" in values:
            shown["left"] = readable_time(values["remaining_s"])
        trainer.progress_bar_metrics.update(shown)
