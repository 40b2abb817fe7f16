"""What the core itself offers, by the same hooks as any plugin."""

from collections.abc import Iterator

from moviegen_core.hookspecs import Command, Component, PresetDirectory, hookimpl
from moviegen_core.presets import core_preset_directory


@hookimpl
def moviegen_components() -> Iterator[Component]:
    """The classes that join the parts."""
    yield Component("model", "moviegen_core.generator.FlowModel", "a generator trained by flow matching in latents (3.1.2)")
    yield Component("sampler", "moviegen_core.sampler.FlowSampler", "schedule x solver x guidance x windows (3.4.2)")
    yield Component("strategy", "moviegen_core.parallel.strategy.MeshStrategy", "FSDP x context x tensor parallelism (3.1.6)")
    callbacks = "moviegen_core.callbacks"
    yield Component("callback", f"{callbacks}.ema.ExponentialMovingAverage", "average of the weights, used to validate and predict (6.1.6)")
    yield Component("callback", f"{callbacks}.checkpoint.LastCheckpoint", "last.ckpt, every so many steps and when training ends")
    yield Component("callback", f"{callbacks}.plateau.HalveOnPlateau", "halves the learning rate where the validation loss stalls (3.2.2)")
    yield Component("callback", f"{callbacks}.media.SampleLogger", "generated samples on TensorBoard")
    yield Component("callback", f"{callbacks}.media.ReconstructionLogger", "an autoencoder's input above its output on TensorBoard")
    yield Component("callback", f"{callbacks}.throughput.Throughput", "samples, tokens and FLOP/s, memory, time left")
    yield Component("callback", f"{callbacks}.writers.PredictionWriter", "predictions as mp4, gif, png, strip, wav and contact sheet")


@hookimpl
def moviegen_commands() -> Iterator[Command]:
    """Look at plugins and presets; handle weights."""
    yield Command("plugins", "list", "moviegen_core.commands:list_plugins", "installed plugins, their packages and hooks")
    yield Command("plugins", "show", "moviegen_core.commands:show_plugin", "what one plugin offers")
    yield Command("plugins", "new", "moviegen_core.scaffold:new_plugin", "write the first files of a plugin of your own")
    yield Command("presets", "list", "moviegen_core.commands:list_presets", "presets by name")
    yield Command("presets", "show", "moviegen_core.commands:show_preset", "one preset, composed; with --params its parameter counts")
    planner = "moviegen_core.parallel.planner.command"
    yield Command(
        "", "plan", f"{planner}:plan", "the mesh, checkpointing and batch for a preset on given GPUs, e.g. `moviegen plan t2v/1b --gpus 8`"
    )
    yield Command("weights", "average", "moviegen_core.weights:average", "one model from several finetuning runs (3.3)")
    yield Command("weights", "export", "moviegen_core.weights:export", "a checkpoint, or one component, as safetensors and a config")
    yield Command("weights", "import", "moviegen_core.weights:import_", "safetensors or a component into a checkpoint")
    yield Command("weights", "inspect", "moviegen_core.weights:inspect", "what a checkpoint holds: names, shapes, counts by component")


@hookimpl
def moviegen_presets() -> Iterator[PresetDirectory]:
    """The presets that ship with moviegen."""
    yield PresetDirectory(core_preset_directory())
