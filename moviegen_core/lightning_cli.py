"""`fit`, `validate`, `test` and `predict`: LightningCLI with presets, lazy short class names, a sampler section and readable errors."""

import importlib
import re
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.strategies import StrategyRegistry
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from moviegen_core.callbacks.configuration import ConfigurationSaver
from moviegen_core.diagnosis import diagnose
from moviegen_core.errors import UsageError, what_exists
from moviegen_core.memory import keep_freed_memory
from moviegen_core.plugins import PluginHost, plugin_host
from moviegen_core.presets import Config, compose
from moviegen_core.sampler import Sampler
from moviegen_core.weights import open_weights
from moviegen_core.weights.checkpoint_io import use_whole_checkpoints
from moviegen_core.weights.reading import SafetensorsWeights

DEFAULT_SAMPLER = "moviegen_core.sampler.FlowSampler"
# Warnings of Lightning's that nobody who trains or predicts with us can or should act on.
_NOT_FOR_USERS = (
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"Couldn't infer the batch indices fetched from your dataloader",
    r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",
    r"Found \d+ module\(s\) in eval mode at the start of training",
    r"The '\w+_dataloader' does not have many workers",
    r"Your `IterableDataset` has `__len__` defined",
    r"FSDP2-wrapped module \(\w+\) returned a view tensor",  # nothing of ours writes into an output
)
_KNOWN_CHECKPOINTS = ("best", "last", "hpc", "registry")


class ParseFailure(Exception):
    """The parser refused the command line; not a ValueError, which jsonargparse would take for a failed alternative."""


class MoviegenParser(LightningArgumentParser):
    """A parser that raises instead of printing everything it knows."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise `ParseFailure` from the outermost parser; nested ones keep jsonargparse's own error."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise ParseFailure(message) from ex


class ConfigKeeper(SaveConfigCallback):
    """Saves the config beside the run; a run that logs nothing and names no folder leaves nothing where it was started.

    Arguments are those of `SaveConfigCallback`.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save, where the run has a folder of its own."""
        if trainer.loggers or Path(trainer.default_root_dir).resolve() != Path.cwd().resolve():
            super().setup(trainer, pl_module, stage)


class MoviegenCLI(LightningCLI):
    """LightningCLI whose `--config` also takes presets by name, and whose command line always beats a checkpoint.

    Args:
        args: the command line, the sub-command first where one is run.
        run: run the sub-command; otherwise only build trainer, model and data.
        host: the plugins; the installed ones unless given.
    """

    def __init__(self, args: Sequence[str], *, run: bool = True, host: PluginHost | None = None) -> None:
        self.host = host or plugin_host()
        self.command = args[0] if run else None
        names, self.overrides = _split_configs(args[1:] if run else args)
        self.composed = compose(names, self.host)
        if "stages" in self.composed:
            given = f"--config {' '.join(names)} was given"
            raise UsageError(given, "it has stages of curation, not a model", "use it with `moviegen data curate FOLDER OUTPUT`")
        self._complete_config()
        import_named_components(yaml.safe_dump(self.composed) + " ".join(self.overrides), self.host)
        arguments = [self.command] if self.command else []
        if self.composed:
            arguments += ["--config", yaml.safe_dump(self.composed, sort_keys=False)]
        file_name = "config.yaml" if self.command in (None, "fit") else f"config_{self.command}.yaml"
        super().__init__(
            args=[*arguments, *self.overrides],
            run=run,
            parser_class=MoviegenParser,
            parser_kwargs={"prog": "moviegen"},
            seed_everything_default=0,
            trainer_defaults={"use_distributed_sampler": False},  # shards are split by the data modules
            save_config_callback=ConfigKeeper,
            save_config_kwargs={"overwrite": True, "config_filename": file_name},
            auto_configure_optimizers=False,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # only the one that is run: a parser costs time
        """The sub-command that is run, and Trainer's arguments that do not come from the command line."""
        everything = LightningCLI.subcommands()
        return {self.command: everything[self.command]} if self.command else everything

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the section `sampler`, beside `model` so that no checkpoint's hyper-parameters reach it."""
        parser.add_subclass_arguments(Sampler, "sampler", required=False, help="How `predict` and validation sample.")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; what fails is told in three parts."""
        try:
            self.config = parser.parse_args(args)
        except ParseFailure as failure:
            raise diagnose(str(failure), self.composed, self.overrides, self.command, self.host) from failure

    def _parse_ckpt_path(self) -> None:
        """Leave the config alone: Lightning lets hyper-parameters inside a checkpoint beat the command line, in silence."""

    def before_instantiate_classes(self) -> None:
        """Refuse a checkpoint that is not there, or not whole, before anything is built."""
        given = self._get(self.config, "ckpt_path")
        if given is None or given in _KNOWN_CHECKPOINTS or "://" in str(given):
            return
        if Path(given).exists():
            if Path(given).is_dir() and isinstance(open_weights(given), SafetensorsWeights):  # says what is missing from a folder
                raise UsageError(
                    f"--ckpt_path {given} was given",
                    "it holds weights alone, as `moviegen weights export` writes them",
                    f"make a checkpoint of them first: `moviegen weights import {given} OUTPUT.ckpt`",
                )
            return
        folder = Path(given).parent
        exists = f"the folder {folder} does not exist"
        if folder.is_dir():
            files = [path.name for path in folder.iterdir() if path.suffix in (".ckpt", ".safetensors")]
            exists = what_exists(Path(given).name, files, noun=f"checkpoint in {folder}")
        raise UsageError(f"--ckpt_path {given} was given, and there is no such file", exists, "correct the path")

    def instantiate_classes(self) -> None:
        """Build trainer, model and data; what a constructor refuses, and what Lightning does, is told without a trace."""
        try:
            super().instantiate_classes()
        except Exception as error:
            # jsonargparse tries one type after the other, and tells of all of them.
            if not isinstance(error, UsageError) and (told := _usage_error_behind(error)) is not None:
                raise told from error
            if isinstance(error, (MisconfigurationException, ValueError)) and _is_lightnings(error):
                refused = f"the section `trainer` was refused: {' '.join(str(error).split())}"
                exists = "this machine or these settings do not allow it"
                raise UsageError(refused, exists, "change trainer.accelerator or what it names") from error
            raise

    def after_instantiate_classes(self) -> None:
        """Hand the sampler to the model, and the model's configuration to its checkpoints, which are written whole or not at all."""
        use_whole_checkpoints(self.trainer)
        if self.command == "fit":
            config = self.config.get(self.command)
            model = yaml.safe_load(self._parser(self.command).dump(config, skip_validation=True))["model"]
            self.trainer.callbacks.append(ConfigurationSaver(class_path=model["class_path"], init_args=model.get("init_args", {})))
        sampler = self._get(self.config_init, "sampler")
        if sampler is None:
            return
        if not hasattr(self.model, "sampler"):
            exists = f"{type(self.model).__name__} does not sample"
            raise UsageError("a section `sampler` was given", exists, "leave the section out, or choose a model that generates")
        self.model.sampler = sampler

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        kwargs["weights_only"] = kwargs.get("weights_only") is not False  # Lightning reads checkpoints as pickles unless told
        if subcommand == "predict" and kwargs.get("return_predictions") is None:
            kwargs["return_predictions"] = False  # writers have them; keeping every film would fill the memory
        return kwargs

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except KeyError as error:
            if "restore optimizer state" not in str(error):
                raise
            raise UsageError(
                f"--ckpt_path {self._get(self.config, 'ckpt_path')} was given to resume from",
                "it holds no optimizer state",
                "start from its weights with `--model.init_checkpoint`",
            ) from error
        except RuntimeError as error:
            if "loading state_dict" not in str(error):
                raise
            differences = [line.strip().rstrip(".") for line in str(error).splitlines()[1:] if line.strip()]
            shown = "; ".join(line if len(line) < 160 else line[:160] + "..." for line in differences[:3])
            raise UsageError(
                f"--ckpt_path {self._get(self.config, 'ckpt_path')} was given",
                f"it holds another model than this {type(self.model).__name__}: {shown}",
                "give the config the checkpoint was trained with, or see `moviegen weights inspect` for what it holds",
            ) from error

    def _complete_config(self) -> None:
        """Take the model from the checkpoint where nothing else names one, and the sampler's class where only its values are given."""
        named = any(re.match(r"--model(=|\.class_path|$)", arg) for arg in self.overrides)
        if "model" not in self.composed and not named:
            path = _option(self.overrides, "ckpt_path") or self.composed.get("ckpt_path")
            model = _model_of_checkpoint(Path(path)) if path is not None else None
            self.composed |= {"model": model} if model else {}
        sampler = self.composed.get("sampler")
        no_class = isinstance(sampler, dict) and "class_path" not in sampler
        if no_class or (sampler is None and any(arg.startswith("--sampler.") for arg in self.overrides)):
            self.composed["sampler"] = {"class_path": DEFAULT_SAMPLER, **(sampler or {})}


def run_trainer(args: Sequence[str]) -> None:
    """Run `fit`, `validate`, `test` or `predict`."""
    keep_freed_memory()
    with warnings.catch_warnings():
        for message in _NOT_FOR_USERS:
            warnings.filterwarnings("ignore", message=message)
        MoviegenCLI(args)


def import_named_components(text: str, host: PluginHost) -> None:
    """Import the offered classes whose short names occur in a text, so that jsonargparse finds them; others cost no time.

    Raises:
        UsageError: the name is offered twice, or its module does not import.
    """
    for name in sorted(set(re.findall(r"(?<![\w.])[A-Za-z_]\w*(?![\w.])", text)) & set(host.components)):
        component = host.component(name)
        module, _, _ = component.class_path.rpartition(".")
        try:
            found = hasattr(importlib.import_module(module), name)
        except Exception as error:
            _, plugin = host.components[name][0]
            raise UsageError(
                f"class '{name}' was given",
                f"{module} of package {plugin.package} {plugin.version} does not import: {type(error).__name__}: {error}",
                f"repair or reinstall {plugin.package}",
            ) from error
        if not found:
            raise UsageError(f"class '{name}' was given", f"{module} has no such class", "tell the plugin's author")
        if component.kind == "strategy" and name.lower() not in StrategyRegistry:
            # `trainer.strategy: NAME` is a plain word to jsonargparse, and Lightning looks it up in lower case.
            StrategyRegistry.register(name.lower(), getattr(importlib.import_module(module), name), description=component.summary)


def _usage_error_behind(error: BaseException) -> UsageError | None:
    """The error in three parts that another one was made of; of those that jsonargparse collected it keeps the text alone."""
    for line in str(error).splitlines():
        parts = line.strip(" -").split("; ")
        if len(parts) >= 3:
            return UsageError(parts[0], parts[1], "; ".join(parts[2:]))
    return None


def _is_lightnings(error: BaseException) -> bool:
    """True where Lightning itself raised an error."""
    frame, _ = list(traceback.walk_tb(error.__traceback__))[-1]
    return str(frame.f_globals.get("__name__", "")).startswith("lightning.")


def _split_configs(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part `--config` values from the other arguments."""
    names: list[str] = []
    others: list[str] = []
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        option, equals, value = arg.partition("=")
        if option not in ("--config", "-c"):
            others.append(arg)
        elif equals or rest:
            names.append(value if equals else rest.pop(0))
        else:
            raise UsageError(f"{option} was given without a value", "it takes a preset or a file", "see `moviegen presets list`")
    return names, others


def _option(args: Sequence[str], name: str) -> str | None:
    """The last value of a plain option."""
    found = None
    for arg, following in zip(args, [*args[1:], ""], strict=False):
        option, equals, value = arg.partition("=")
        if option == f"--{name}":
            found = value if equals else following
    return found


def _model_of_checkpoint(path: Path) -> Config | None:
    """The model section a checkpoint was saved with, where its model saved any."""
    if not path.exists() or path.suffix == ".safetensors":
        return None
    stored = open_weights(path).metadata.get("hyper_parameters") or {}
    class_path = stored.get("_class_path")
    init_args = {key: value for key, value in stored.items() if key not in ("_class_path", "_instantiator")}
    return {"class_path": class_path, "init_args": init_args} if class_path else None
