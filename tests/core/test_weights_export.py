"""Weights on disk: export, import, inspection, and what Lightning makes of them."""

import json
import resource
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from safetensors.torch import load_file
from small_checkpoints import assert_states_equal, make_checkpoint, make_state
from torch import nn

from moviegen_core.callbacks.ema import ExponentialMovingAverage
from moviegen_core.cli import main
from moviegen_core.errors import UsageError
from moviegen_core.weights import (
    average,
    describe,
    export,
    import_,
    inspect,
    load_state_dict,
)


class TestExportImport:
    def test_component(self, tmp_path: Path) -> None:
        checkpoint = make_checkpoint(tmp_path / "x.ckpt")
        export(str(checkpoint), str(tmp_path / "out"), component="conditioners.text")
        assert list(load_file(tmp_path / "out" / "model.safetensors")) == ["projection.weight"]
        config = json.loads((tmp_path / "out" / "config.json").read_text())
        assert config["class_path"] == "package.Words" and config["init_args"] == {"dropout": 0.1}
        assert config["component"] == "conditioners.text" and config["global_step"] == 17

    def test_whole_model_there_and_back(self, tmp_path: Path) -> None:
        export(str(make_checkpoint(tmp_path / "x.ckpt")), str(tmp_path / "out"))
        assert json.loads((tmp_path / "out" / "config.json").read_text())["class_path"] == "package.TinyModel"
        import_(str(tmp_path / "out"), str(tmp_path / "back.ckpt"))
        assert_states_equal(load_state_dict(tmp_path / "back.ckpt"), make_state())

    def test_component_there_and_back(self, tmp_path: Path) -> None:
        export(str(make_checkpoint(tmp_path / "x.ckpt")), str(tmp_path / "out"), component="backbone")
        import_(str(tmp_path / "out"), str(tmp_path / "back.ckpt"))
        assert_states_equal(load_state_dict(tmp_path / "back.ckpt"), {k: v for k, v in make_state().items() if k.startswith("backbone.")})

    def test_config_of_the_run(self, tmp_path: Path) -> None:
        torch.save(make_state(), tmp_path / "x.ckpt")
        (tmp_path / "config.yaml").write_text("model: {class_path: a.B, init_args: {backbone: {class_path: a.C, init_args: {width: 7}}}}")
        export(str(tmp_path / "x.ckpt"), str(tmp_path / "out"), component="backbone", config=str(tmp_path / "config.yaml"))
        config = json.loads((tmp_path / "out" / "config.json").read_text())
        assert (config["class_path"], config["init_args"]) == ("a.C", {"width": 7})
        with pytest.raises(UsageError, match="no such file"):
            export(str(tmp_path / "x.ckpt"), str(tmp_path / "out"), config=str(tmp_path / "absent.yaml"))

    def test_replaces_a_component(self, tmp_path: Path) -> None:
        export(str(make_checkpoint(tmp_path / "new.ckpt", 1)), str(tmp_path / "out"), component="backbone")
        base = make_checkpoint(tmp_path / "base.ckpt", 0)
        import_(str(tmp_path / "out"), str(tmp_path / "mixed.ckpt"), into=str(base))
        mixed = load_state_dict(tmp_path / "mixed.ckpt")
        wanted = make_state(0) | {name: tensor for name, tensor in make_state(1).items() if name.startswith("backbone.")}
        assert_states_equal(mixed, wanted)
        with pytest.raises(UsageError, match="missing, new or of another shape"):
            import_(str(tmp_path / "out"), str(tmp_path / "mixed.ckpt"), component="autoencoder", into=str(base))

    def test_unknown_component(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="nearest component is 'backbone'.*give one of backbone, conditioners.text, autoencoder"):
            export(str(make_checkpoint(tmp_path / "x.ckpt")), str(tmp_path / "out"), component="backbon")
        assert not (tmp_path / "out").exists()

    def test_a_full_disk_leaves_nothing(self, tmp_path: Path) -> None:
        checkpoint = tmp_path / "x.ckpt"
        torch.save({"weight": torch.zeros(2**18)}, checkpoint)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
        try:
            with pytest.raises(OSError, match="could not write .*model.safetensors.*give a folder"):
                export(str(checkpoint), str(tmp_path / "out"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert list((tmp_path / "out").iterdir()) == []


class OneLayer(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.layer(batch).square().mean()

    def predict_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.layer(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def quiet() -> dict[str, object]:
    return {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }


@pytest.mark.filterwarnings("ignore:.*num_workers.*")
class TestWithLightning:
    @pytest.mark.parametrize("use_for_predict", [True, False])
    def test_average_and_trained_weights(self, tmp_path: Path, quiet: dict, use_for_predict: bool) -> None:
        model = OneLayer()
        ema = ExponentialMovingAverage(decay=0.5, warmup=False, use_for_predict=use_for_predict)
        trainer = Trainer(max_steps=4, callbacks=[ema], **quiet)
        trainer.fit(model, torch.utils.data.DataLoader(torch.randn(8, 2), batch_size=2))
        trainer.save_checkpoint(tmp_path / "x.ckpt")
        averaged, trained = ema.averages["layer.weight"], model.layer.weight.detach()
        assert not torch.equal(averaged, trained)
        for flag, wanted in ((True, averaged), (False, trained), (None, averaged if use_for_predict else trained)):
            export(str(tmp_path / "x.ckpt"), str(tmp_path / "out"), ema=flag)
            torch.testing.assert_close(load_file(tmp_path / "out" / "model.safetensors")["layer.weight"], wanted, rtol=0, atol=0)

    def test_one_version_only(self, tmp_path: Path) -> None:
        for flag in (True, False):
            with pytest.raises(UsageError, match="one version only"):
                export(str(make_checkpoint(tmp_path / "x.ckpt")), str(tmp_path / "out"), ema=flag)

    def test_predicts_from_imported_and_averaged_checkpoints(self, tmp_path: Path, quiet: dict) -> None:
        model, trainer = OneLayer(), Trainer(**quiet)
        trainer.strategy.connect(model)
        loader = torch.utils.data.DataLoader(torch.randn(4, 2), batch_size=4)
        trainer.save_checkpoint(tmp_path / "x.ckpt")
        export(str(tmp_path / "x.ckpt"), str(tmp_path / "out"))
        import_(str(tmp_path / "out"), str(tmp_path / "imported.ckpt"))
        average([str(tmp_path / "x.ckpt"), str(tmp_path / "imported.ckpt")], str(tmp_path / "mean.ckpt"))
        for name in ("imported.ckpt", "mean.ckpt"):
            (predicted,) = Trainer(**quiet).predict(OneLayer(), loader, ckpt_path=tmp_path / name)
            torch.testing.assert_close(predicted, model.layer(next(iter(loader))))


class TestInspect:
    def test_describes(self, tmp_path: Path) -> None:
        told = describe(make_checkpoint(tmp_path / "x.ckpt"))
        assert told["num_tensors"] == 6 and told["num_parameters"] == 12 + 5 + 1 + 4 + 3
        assert told["num_bytes"] == 48 + 10 + 8 + 32 + 3
        assert told["components"] == {"backbone": 18, "conditioners.text": 4, "autoencoder": 3}
        assert told["tensors"]["backbone.half"] == {"shape": [5], "dtype": "bfloat16"}
        assert told["metadata"]["global_step"] == 17

    def test_prints(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = str(make_checkpoint(tmp_path / "x.ckpt"))
        inspect(path, json=True)
        assert json.loads(capsys.readouterr().out)["components"]["backbone"] == 18
        inspect(path)
        assert "conditioners.text" in capsys.readouterr().out

    def test_on_the_command_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        one, two = make_checkpoint(tmp_path / "1.ckpt", 1), make_checkpoint(tmp_path / "2.ckpt", 2)
        mean, out, back = tmp_path / "mean.ckpt", tmp_path / "out", tmp_path / "back.ckpt"
        main(["weights", "average", f"[{one},{two}]", str(mean), "--weights", "[1, 3]"])
        main(["weights", "export", str(mean), str(out), "--component", "backbone"])
        main(["weights", "import", str(out), str(back)])
        capsys.readouterr()
        main(["weights", "inspect", str(back), "--json"])
        assert json.loads(capsys.readouterr().out)["components"] == {"backbone": 18}
        with pytest.raises(SystemExit):
            main(["weights", "inspect", str(tmp_path / "3.ckpt")])
        assert "nearest checkpoint" in capsys.readouterr().err
