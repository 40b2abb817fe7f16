"""The command line end to end, in process, with the stranger's plugin as the model."""

import json
import subprocess
import sys

import pytest
import torch
import yaml
from lightning.pytorch import LightningModule
from torch import Tensor

from moviegen_core import __version__
from moviegen_core.batch import MediaBatch
from moviegen_core.cli import main
from moviegen_core.lightning_cli import MoviegenCLI
from moviegen_core.sampler import FlowSampler, Sampler

HELLO = """
trainer:
  accelerator: cpu
  logger: false
  max_steps: 2
  enable_progress_bar: false
  enable_model_summary: false
  limit_val_batches: 1
  callbacks+: [{class_path: ModelCheckpoint, init_args: {dirpath: checkpoints, save_last: true}}]
model:
  class_path: FlowModel
  init_args:
    backbone: {class_path: HelloBackbone, init_args: {num_layers: 2}}
    conditioners: {caption: {class_path: moviegen_hello.HelloConditioner, init_args: {dropout: 0.5}}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1e-3}}
data: {class_path: HelloLatents}
"""
DREAMER = """
trainer: {accelerator: cpu, logger: false, max_steps: 1, enable_progress_bar: false, enable_model_summary: false,
          callbacks: [{class_path: ModelCheckpoint, init_args: {dirpath: checkpoints, save_last: true}}]}
model: {class_path: DreamerModel, init_args: {size: 3}}
data: {class_path: HelloLatents}
sampler: {class_path: FlowSampler, init_args: {steps: 7}}
"""


class DreamerModel(LightningModule):
    """A model that keeps its hyper-parameters in the checkpoint, the sampler's steps among them, as Lightning's users do.

    Args:
        size: size of its only weight.
        steps: a hyper-parameter.
    """

    used: list[tuple[int, int]] = []

    def __init__(self, *, size: int = 2, steps: int = 5) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.steps = steps
        self.weight = torch.nn.Parameter(torch.zeros(size))
        self.sampler: Sampler | None = None

    def training_step(self, batch: MediaBatch, batch_idx: int) -> Tensor:
        return self.weight.square().sum()

    def validation_step(self, batch: MediaBatch, batch_idx: int) -> None:
        pass

    def predict_step(self, batch: MediaBatch, batch_idx: int) -> tuple[int, int]:
        assert isinstance(self.sampler, FlowSampler)
        self.used.append((self.sampler.steps, self.steps))
        return self.used[-1]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def here(hello, tmp_path, monkeypatch):
    """An empty folder to run in, with two configs and the stranger's plugin installed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hello.yaml").write_text(HELLO)
    (tmp_path / "dreamer.yaml").write_text(DREAMER)
    DreamerModel.used.clear()
    return tmp_path


def refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run what must fail by a user's mistake; give the one line he reads."""
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("moviegen: error: ")]
    assert told.count("; ") >= 2, f"not in three parts: {told}"
    return told


def test_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"moviegen {__version__}\n"


def test_module_equals_command(capsys):
    main(["--help"])
    expected = capsys.readouterr().out
    module = subprocess.run([sys.executable, "-m", "moviegen_core", "--help"], capture_output=True, text=True, check=True)
    assert module.stdout == expected
    for command in ("fit", "predict", "plugins list", "presets show"):
        assert f"  {command} " in expected


def test_fit_a_strangers_classes_by_short_name(here):
    main(["fit", "--config", "hello.yaml"])
    assert {path.name for path in here.iterdir()} == {"checkpoints", "dreamer.yaml", "hello.yaml", "site-packages"}
    state = torch.load(here / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 2
    assert any(key.startswith("backbone.layers.1.") for key in state["state_dict"])
    main(["validate", "--config", "hello.yaml", "--ckpt_path", "checkpoints/last.ckpt"])


def test_config_is_saved_beside_the_run_each_command_in_its_own_file(here):
    main(["fit", "--config", "hello.yaml", "--trainer.default_root_dir", "run"])
    main(["validate", "--config", "hello.yaml", "--trainer.default_root_dir", "run", "--seed_everything", "3"])
    saved = {path.name: yaml.safe_load(path.read_text()) for path in (here / "run").glob("*.yaml")}
    assert {name: config["seed_everything"] for name, config in saved.items()} == {"config.yaml": 0, "config_validate.yaml": 3}
    assert saved["config.yaml"]["model"]["init_args"]["backbone"]["class_path"] == "moviegen_hello.HelloBackbone"


def test_fit_without_any_file(here):
    args = ["fit", "--model", "FlowModel", "--model.backbone", "HelloBackbone", "--model.conditioners", "{}", "--data", "HelloLatents"]
    args += ["--trainer.max_steps", "2", "--trainer.accelerator", "cpu", "--trainer.logger", "false", "--trainer.limit_val_batches", "0"]
    main([*args, "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"])
    assert list(here.glob("checkpoints/*.ckpt"))


def test_what_is_typed_beats_what_the_checkpoint_says(here):
    main(["fit", "--config", "dreamer.yaml"])
    predict = ["predict", "--config", "dreamer.yaml", "--ckpt_path", "checkpoints/last.ckpt"]
    main([*predict, "--sampler.steps", "12", "--model.steps", "6"])
    main(predict)
    assert DreamerModel.used == [(12, 6)] * 4 + [(7, 5)] * 4


def test_model_comes_from_the_checkpoint_where_nothing_names_one(here):
    main(["fit", "--config", "dreamer.yaml", "--model.steps", "8"])
    bare = ["predict", "--data", "HelloLatents", "--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]
    main([*bare, "--trainer.accelerator", "cpu", "--ckpt_path", "checkpoints/last.ckpt", "--sampler.steps", "12"])
    assert DreamerModel.used == [(12, 8)] * 4


def test_sampler_section_reaches_the_model_or_is_refused(here, capsys):
    cli = MoviegenCLI(["--config", "hello.yaml", "--sampler.guidance_scale", "2.5"], run=False)
    assert cli.model.sampler.guidance_scale == 2.5
    assert "`sampler` was given; LightningModule does not sample" in refused(
        ["predict", "--config", "hello.yaml", "--model", "lightning.pytorch.LightningModule", "--sampler.steps", "3"], capsys
    )


def printed(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([*args, "--print_config"])
    assert not stop.value.code
    return capsys.readouterr().out


def test_printed_config_parses_to_itself(here, capsys):
    once = printed(["fit", "--config", "dreamer.yaml", "--config", "hello.yaml", "--sampler.steps", "9"], capsys)
    (here / "printed.yaml").write_text(once)
    assert printed(["fit", "--config", "printed.yaml"], capsys) == once
    config = yaml.safe_load(once)
    assert config["sampler"]["init_args"]["steps"] == 9
    assert config["model"]["init_args"]["backbone"]["init_args"]["num_layers"] == 2


def test_later_configs_merge_deeply_and_the_command_line_wins_wherever_it_stands(here, capsys):
    (here / "more.yaml").write_text("trainer: {max_steps: 5}\nmodel: {init_args: {backbone: {init_args: {width: 16}}}}\n")
    args = ["fit", "--model.backbone.num_layers=3", "-c", "hello.yaml", "--config=more.yaml", "--trainer.max_epochs", "4"]
    config = yaml.safe_load(printed(args, capsys))
    assert config["model"]["init_args"]["backbone"]["init_args"] == {"in_channels": 4, "width": 16, "num_layers": 3}
    assert config["model"]["init_args"]["conditioners"]["caption"]["init_args"]["dropout"] == 0.5
    assert (config["trainer"]["max_steps"], config["trainer"]["max_epochs"]) == (5, 4)


def test_callbacks_append_through_includes_and_on_the_command_line(here, capsys):
    (here / "timed.yaml").write_text("include: [hello.yaml]\ntrainer: {callbacks+: [{class_path: ModelSummary}]}\n")
    config = yaml.safe_load(printed(["fit", "--config", "timed.yaml", "--trainer.callbacks+", "RichProgressBar"], capsys))
    names = [callback["class_path"].rpartition(".")[2] for callback in config["trainer"]["callbacks"]]
    assert names == ["ModelCheckpoint", "ModelSummary", "RichProgressBar"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("FlowModel", "FlowModl", "model: class 'FlowModl' was given; the nearest class is 'FlowModel'"),
        ("HelloBackbone", "HelloBakbone", "model.backbone: class 'HelloBakbone' was given; the nearest class is 'HelloBackbone'"),
        ("moviegen_hello.HelloC", "moviegen_hello.HeloC", "the nearest class is 'HelloConditioner'"),
        ("moviegen_hello.", "moviegen_nowhere.", "moviegen_nowhere does not import"),
        ("ModelCheckpoint", "ModelCheckpont", "the nearest class is 'ModelCheckpoint'"),
        ("num_layers", "num_layer", "'model.backbone.num_layer' was given; the nearest argument of HelloBackbone is 'num_layers'"),
        ("dropout", "droput", "'model.conditioners.caption.droput' was given; the nearest argument of HelloConditioner is 'dropout'"),
        ("max_steps", "max_stepz", "'trainer.max_stepz' was given; the nearest argument of Trainer is 'max_steps'"),
        ("\ndata:", "\ndatta:", "the config key 'datta' was given; the nearest section is 'data'"),
        ("num_layers: 2", "num_layers: two", "model.backbone.num_layers: two was given; the type int is expected"),
        ("max_steps: 2", "max_steps: two", "trainer.max_steps: two was given; the type int is expected"),
        ("torch.optim.AdamW", "lightning.pytorch.cli.ReduceLROnPlateau", "model.optimizer"),
    ],
)
def test_wrong_configs_are_told_in_one_line(here, capsys, old, new, told):
    assert old in HELLO
    (here / "wrong.yaml").write_text(HELLO.replace(old, new))
    assert told in refused(["fit", "--config", "wrong.yaml"], capsys)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--model.backbone", "HelloBakbone"], "the nearest class is 'HelloBackbone'"),
        (["--model.backbone.num_leyers", "3"], "the nearest argument of HelloBackbone is 'num_layers'"),
        (["--sampler.step", "3"], "the nearest argument of FlowSampler is 'steps'"),
        (["--smapler.steps", "3"], "the nearest section is 'sampler'"),
        (["--trainer.max_steps", "three"], "trainer.max_steps: three was given; the type int is expected"),
        (["--config", "helo.yaml"], "the nearest file there is 'hello.yaml'"),
        (["--config"], "it takes a preset or a file"),
        (["--ckpt_path", "hello.ckpt"], "no such file; there is no checkpoint in ."),
    ],
)
def test_wrong_options_are_told_in_one_line(here, capsys, args, told):
    assert told in refused(["fit", "--config", "hello.yaml", *args], capsys)


def test_wrong_class_without_any_file(here, capsys):
    assert "class 'FlowModle' was given; the nearest class is 'FlowModel'" in refused(["fit", "--model", "FlowModle"], capsys)
    told = refused(["fit", "--model", "FlowModel", "--model.backbone", "HelloBakbone", "--data", "HelloLatents"], capsys)
    assert "class 'HelloBakbone' was given; the nearest class is 'HelloBackbone'" in told


def test_nothing_given_says_what_is_missing(here, capsys):
    assert "model' is required and missing" in refused(["fit"], capsys)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--trainer.strategy.class_path", "MeshStrategy", "--trainer.strategy.timeout_s", "-3"], "timeout_s=-3.0 was given; it is a time"),
        (["--trainer.callbacks+=LastCheckpoint", "--trainer.callbacks.every_n_train_steps", "0"], "every_n_train_steps=0 was given; it"),
        (
            ["--trainer.callbacks+=LastCheckpoint", "--trainer.callbacks.dirpath", "/proc/none"],
            "LastCheckpoint was given dirpath=/proc/none",
        ),
        (["--trainer.accelerator", "gpu"], "the section `trainer` was refused"),
        (
            ["--trainer.devices", "2", "--trainer.strategy", "MeshStrategy", "--trainer.num_nodes", "0"],
            "must be a positive integer, but got 0",
        ),
    ],
)
def test_what_a_constructor_refuses_is_told_in_one_line(here, capsys, monkeypatch, args, told):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert told in refused(["fit", "--config", "hello.yaml", *args], capsys)


@pytest.mark.parametrize("wrong", ["model.backbone.init_args.num_layers=0", "model.backbone.init_args.width=-32", "data.batch_size=0"])
def test_numbers_that_are_too_small_are_told_in_one_line(tmp_path, monkeypatch, capsys, wrong):
    monkeypatch.chdir(tmp_path)
    told = wrong.rpartition(".")[2] + " was given; it is at least 1"
    assert told in refused(["fit", "--config", "t2v/debug", f"--{wrong}"], capsys)


def test_exported_weights_are_no_checkpoint(here, capsys):
    main(["fit", "--config", "hello.yaml"])
    main(["weights", "export", "checkpoints/last.ckpt", "exported"])
    assert "holds weights alone" in refused(["fit", "--config", "hello.yaml", "--ckpt_path", "exported"], capsys)


def test_checkpoint_of_another_model(here, capsys):
    main(["fit", "--config", "dreamer.yaml"])
    told = refused(["validate", "--config", "hello.yaml", "--ckpt_path", "checkpoints/last.ckpt"], capsys)
    assert "checkpoints/last.ckpt was given; it holds another model than this FlowModel" in told and "moviegen weights inspect" in told


def test_ambiguous_short_name_names_both_packages(here, install, capsys):
    offer = "from moviegen_core import Component, hookimpl\n@hookimpl\ndef moviegen_components():\n"
    install("rival", offer + "    yield Component('backbone', 'moviegen_rival.HelloBackbone', 'the same name')\n")
    told = refused(["fit", "--config", "hello.yaml"], capsys)
    assert "moviegen-hello 1.2.3" in told and "moviegen-rival 1.0" in told
    (here / "full.yaml").write_text(HELLO.replace("class_path: HelloBackbone", "class_path: moviegen_hello.HelloBackbone"))
    MoviegenCLI(["--config", "full.yaml"], run=False)


def test_offered_class_that_does_not_import(here, install, capsys):
    offer = "from moviegen_core import Component, hookimpl\n@hookimpl\ndef moviegen_components():\n"
    install("late", offer + "    yield Component('backbone', 'moviegen_late.model.LateBackbone', 'its module is missing')\n")
    told = refused(["fit", "--config", "hello.yaml", "--model.backbone", "LateBackbone"], capsys)
    assert "moviegen_late.model of package moviegen-late 1.0 does not import" in told
    MoviegenCLI(["--config", "hello.yaml"], run=False)


def test_typed_functions_are_commands(hello, capsys):
    main(["hello", "greet", "world", "--times", "2", "--loud"])
    main(["hello", "greet", "world", "-l", "-t=1"])
    main(["hello", "greet", "--loud", "false", "world"])
    assert capsys.readouterr().out == "HELLO WORLD\nHELLO WORLD\nHELLO WORLD\nhello world\n"
    with pytest.raises(SystemExit):
        main(["hello", "greet", "--help"])
    assert "how often" in capsys.readouterr().out
    main(["hello"])
    assert "greet somebody" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["hello", "gret"], "command 'hello gret' was given; the nearest command is 'greet'"),
        (["helo", "greet"], "command 'helo' was given; the nearest command is 'hello'"),
        (["fitt"], "the nearest command is 'fit'"),
        (["hello", "greet"], "name"),
        (["hello", "greet", "x", "--times", "many"], "many"),
        (["hello", "greet", "x", "--tmies", "2"], "--tmies"),
    ],
)
def test_wrong_commands_are_told_in_one_line(hello, capsys, args, told):
    assert told in refused(args, capsys)


def test_our_own_mistakes_keep_their_trace(hello, monkeypatch):
    import moviegen_hello

    monkeypatch.setattr(moviegen_hello, "greet", lambda name: int("not a number"))
    with pytest.raises((ValueError, TypeError)):
        main(["hello", "greet", "x"])


@pytest.mark.parametrize(("words", "told"), [([], "moviegen: interrupted\n"), (["it goes on"], "moviegen: interrupted: it goes on\n")])
def test_an_interrupt_is_told_in_one_line(hello, capsys, monkeypatch, words, told):
    import moviegen_hello

    def interrupted(name: str) -> None:
        raise KeyboardInterrupt(*words)

    monkeypatch.setattr(moviegen_hello, "greet", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["hello", "greet", "x"])
    assert ended.value.code == 130 and capsys.readouterr().err == told
    monkeypatch.setenv("MOVIEGEN_TRACEBACK", "1")
    with pytest.raises(KeyboardInterrupt):
        main(["hello", "greet", "x"])


def test_trace_on_demand(monkeypatch):
    monkeypatch.setenv("MOVIEGEN_TRACEBACK", "1")
    with pytest.raises(ValueError, match="command 'fitt'"):
        main(["fitt"])


def test_parameters_by_component(here, capsys):
    main(["presets", "show", "hello.yaml", "--params", "--json"])
    sizes = json.loads(capsys.readouterr().out)
    backbone = sizes["components"]["backbone"]
    assert backbone["total"] == sum(backbone["parts"].values()) == (4 * 27 + 1) * 8 + 2 * (8 * 27 + 1) * 8 + (8 * 27 + 1) * 4 + 16
    assert sizes["components"]["conditioners.caption"]["total"] == 32 * 8
    assert sizes["total"] == backbone["total"] + 32 * 8
    assert sizes["num_tokens"] is None
    main(["presets", "show", "hello.yaml", "--params"])
    assert f"{sizes['total']:,}" in capsys.readouterr().out
