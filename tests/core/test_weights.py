"""Weights on disk: safe reading, loading into modules, averaging, export and import, inspection."""

import json
import os
import pickle
import resource
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from lightning.pytorch import LightningModule, Trainer
from safetensors.torch import load_file, save_file
from torch import nn

from moviegen_core.callbacks.ema import ExponentialMovingAverage
from moviegen_core.cli import main
from moviegen_core.errors import UsageError
from moviegen_core.weights import (
    TensorInfo,
    average,
    averaging,
    describe,
    export,
    import_,
    inspect,
    load_checkpoint,
    load_into,
    load_state_dict,
    open_weights,
    save_safetensors,
)


def make_state(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "backbone.weight": torch.randn(4, 3, generator=generator),
        "backbone.half": torch.randn(5, generator=generator).bfloat16(),
        "backbone.steps": torch.tensor(seed),
        "conditioners.text.projection.weight": torch.randn(2, 2, generator=generator, dtype=torch.float64),
        "autoencoder.flag": torch.tensor([True, False, True]),
        "autoencoder.none": torch.empty(0, 4),
    }


def make_checkpoint(path: Path, seed: int = 0, **more: object) -> Path:
    parameters = {
        "_class_path": "package.TinyModel",
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
        "backbone": {"class_path": "package.TinyBackbone", "init_args": {"width": 3}},
        "conditioners": {"text": {"class_path": "package.Words", "init_args": {"dropout": 0.1}}},
    }
    torch.save({"state_dict": make_state(seed), "hyper_parameters": parameters, "epoch": 3, "global_step": 17, **more}, path)
    return path


def assert_states_equal(given: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert given.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert given[name].dtype == tensor.dtype, name
        torch.testing.assert_close(given[name], tensor, rtol=0, atol=0)


class TestReading:
    @pytest.fixture(params=["ckpt", "bare", "legacy", "safetensors", "folder", "sharded"])
    def written(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        path, state = tmp_path / "weights.ckpt", make_state()
        match request.param:
            case "ckpt":
                make_checkpoint(path)
            case "bare":
                torch.save(state, path)
            case "legacy":
                torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=False)
            case "safetensors":
                save_file(state, path := tmp_path / "weights.safetensors")
            case "folder":
                path = tmp_path / "folder"
                path.mkdir()
                names = list(state)
                save_file({name: state[name] for name in names[:2]}, path / "model-1.safetensors")
                save_file({name: state[name] for name in names[2:]}, path / "model-2.safetensors")
            case "sharded":
                path = tmp_path / "sharded"
                with pytest.warns(UserWarning, match="torch.distributed is"):
                    dcp.save({"state_dict": state}, checkpoint_id=path)
                torch.save({"global_step": 17}, path / "meta.pt")
        return path

    def test_every_kind_gives_the_same_tensors(self, written: Path) -> None:
        assert_states_equal(load_state_dict(written), make_state())
        file = open_weights(written)
        assert_states_equal(dict(file), make_state())
        assert file.infos["backbone.half"] == TensorInfo((5,), torch.bfloat16)

    def test_what_else_a_checkpoint_holds(self, tmp_path: Path) -> None:
        content = load_checkpoint(make_checkpoint(tmp_path / "x.ckpt"))
        assert content["epoch"] == 3 and content["hyper_parameters"]["_class_path"] == "package.TinyModel"

    def test_own_safetensors_are_read_by_the_reference(self, tmp_path: Path) -> None:
        state = make_state()
        infos = {name: TensorInfo(tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}
        save_safetensors(tmp_path / "x.safetensors", infos, state.__getitem__, metadata={"a": "b"})
        assert_states_equal(load_file(tmp_path / "x.safetensors"), state)
        assert open_weights(tmp_path / "x.safetensors").metadata["a"] == "b"


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.target),)


class TestHostileFiles:
    @pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))], ids=["zip", "pickle"])
    def test_a_pickle_that_runs_code(self, tmp_path: Path, write: object) -> None:
        path = tmp_path / "evil.ckpt"
        write({"state_dict": make_state(), "payload": Bomb(tmp_path / "exploded")}, path)
        for read in (load_checkpoint, open_weights, describe):
            with pytest.raises(UsageError, match=r"evil\.ckpt.*calls (posix\.mkdir|code) when.*safetensors"):
                read(path)
        assert not (tmp_path / "exploded").exists()

    def test_an_index_that_runs_code(self, tmp_path: Path) -> None:
        (tmp_path / "sharded").mkdir()
        (tmp_path / "sharded" / ".metadata").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
        with pytest.raises(UsageError, match=r"calls \S*mkdir"):
            load_state_dict(tmp_path / "sharded")
        assert not (tmp_path / "exploded").exists()

    def test_an_index_that_reaches_through_a_record_module(self, tmp_path: Path) -> None:
        (tmp_path / "sharded").mkdir()
        # Protocol 4 resolves dotted names: os is imported by torch's own metadata module.
        code = b"\x80\x04\x8c\x25torch.distributed.checkpoint.metadata\x8c\x09os.system\x93\x8c\x04true\x85R."
        (tmp_path / "sharded" / ".metadata").write_bytes(code)
        with pytest.raises(UsageError, match=r"calls \S*os\.system"):
            load_state_dict(tmp_path / "sharded")

    @pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
    @pytest.mark.parametrize("keep", [0, 1, 100, -40])
    def test_a_cut_file(self, tmp_path: Path, suffix: str, keep: int) -> None:
        path = tmp_path / f"cut{suffix}"
        if suffix == ".ckpt":
            make_checkpoint(path)
        else:
            save_file(make_state(), path)
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(UsageError, match=r"cut\..*bytes; it cannot be read.*copy or download"):
            load_checkpoint(path)

    @pytest.mark.parametrize("content", [b"just text\n" * 50, b"\x00\x00\x00\x18ftypmp42" + b"\x00" * 500, b"{}"])
    @pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
    def test_not_weights_at_all(self, tmp_path: Path, suffix: str, content: bytes) -> None:
        path = tmp_path / f"film{suffix}"
        path.write_bytes(content)
        with pytest.raises(UsageError, match="no checkpoint at all"):
            load_checkpoint(path)

    @pytest.mark.parametrize("content", [{}, {"state_dict": {}}, {"optimizer": 3}, [1, 2], torch.zeros(3), {"state_dict": {"a": "b"}}])
    def test_no_tensors_by_name(self, tmp_path: Path, content: object) -> None:
        torch.save(content, tmp_path / "x.ckpt")
        with pytest.raises(UsageError, match="instead of tensors by name"):
            load_checkpoint(tmp_path / "x.ckpt")

    def test_absent(self, tmp_path: Path) -> None:
        make_checkpoint(tmp_path / "last.ckpt")
        with pytest.raises(UsageError, match="nearest checkpoint is 'last.ckpt'"):
            load_checkpoint(tmp_path / "lost.ckpt")

    def test_a_folder_of_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="neither a sharded checkpoint"):
            load_checkpoint(tmp_path)

    def test_a_missing_shard(self, tmp_path: Path) -> None:
        with pytest.warns(UserWarning, match="torch.distributed is"):
            dcp.save({"state_dict": make_state()}, checkpoint_id=tmp_path / "sharded")
        next((tmp_path / "sharded").glob("*.distcp")).unlink()
        with pytest.raises(UsageError, match="shard __0_0.distcp is missing"):
            load_state_dict(tmp_path / "sharded")


class Tiny(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.backbone = nn.Linear(width, 2)
        self.head = nn.BatchNorm1d(2)


class TestLoadInto:
    def test_copies_values(self) -> None:
        source, target = Tiny(), Tiny()
        load_into(target, source.state_dict())
        assert_states_equal(dict(target.state_dict()), dict(source.state_dict()))

    def test_keeps_the_target_dtype(self) -> None:
        source, target = Tiny(), Tiny().bfloat16()
        load_into(target, source.state_dict())
        torch.testing.assert_close(target.backbone.weight, source.backbone.weight.bfloat16())

    def test_only_the_prefixes(self) -> None:
        source, target = Tiny(), Tiny()
        untouched = target.head.weight.clone()
        load_into(target, {name: t for name, t in source.state_dict().items() if name.startswith("backbone.")}, prefixes=("backbone.",))
        torch.testing.assert_close(target.backbone.weight, source.backbone.weight)
        torch.testing.assert_close(target.head.weight, untouched)

    def test_another_size(self) -> None:
        with pytest.raises(
            UsageError, match=r"big\.ckpt were given for Tiny; 1 have another shape \(backbone\.weight: \(2, 5\) given, \(2, 3\)"
        ):
            load_into(Tiny(), Tiny(5).state_dict(), source="big.ckpt", strict=False)

    def test_missing_and_unexpected(self) -> None:
        state = dict(Tiny().state_dict())
        state["backbone.wight"] = state.pop("backbone.weight")
        with pytest.raises(
            UsageError, match=r"1 of its 7 tensors are missing.*1 are unexpected.*nearest to 'backbone.weight' is 'backbone.wight'"
        ):
            load_into(Tiny(), state)
        load_into(Tiny(), state, strict=False)

    def test_component_in_a_whole_model(self) -> None:
        whole = {f"autoencoder.{name}": tensor for name, tensor in Tiny().state_dict().items()}
        with pytest.raises(UsageError, match="weights export x.ckpt OUTPUT --component autoencoder"):
            load_into(Tiny(), whole, source="x.ckpt")
        with pytest.raises(UsageError, match="weights import x.ckpt OUTPUT --component backbone"):
            load_into(Tiny(), Tiny().backbone.state_dict(), source="x.ckpt")

    def test_nothing_for_the_prefix(self) -> None:
        with pytest.raises(UsageError, match="missing"):
            load_into(Tiny(), {"other": torch.zeros(1)}, prefixes=("backbone.",))

    def test_meta_is_never_a_silent_no_op(self) -> None:
        with torch.device("meta"):
            target = Tiny()
        with pytest.raises(AssertionError, match="materialise"):
            load_into(target, Tiny().state_dict())


class TestAverage:
    @pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
    def test_uniform(self, tmp_path: Path, suffix: str) -> None:
        paths = [str(make_checkpoint(tmp_path / f"sft-{seed}.ckpt", seed)) for seed in range(3)]
        average(paths, str(tmp_path / f"mean{suffix}"))
        mean, states = load_state_dict(tmp_path / f"mean{suffix}"), [make_state(seed) for seed in range(3)]
        for name in ("backbone.weight", "backbone.half", "conditioners.text.projection.weight"):
            wanted = torch.stack([state[name].double() for state in states]).mean(0).to(states[0][name].dtype)
            torch.testing.assert_close(mean[name], wanted, rtol=0, atol=0 if wanted.dtype != torch.float64 else 1e-15)
        assert mean["backbone.steps"] == 0 and mean["autoencoder.flag"].tolist() == [True, False, True]

    def test_weighted_and_globbed(self, tmp_path: Path) -> None:
        for seed in range(2):
            make_checkpoint(tmp_path / f"sft-{seed}.ckpt", seed)
        average([str(tmp_path / "sft-*.ckpt")], str(tmp_path / "mean.safetensors"), weights=[3.0, 1.0])
        wanted = 0.75 * make_state(0)["backbone.weight"].double() + 0.25 * make_state(1)["backbone.weight"].double()
        torch.testing.assert_close(load_state_dict(tmp_path / "mean.safetensors")["backbone.weight"], wanted.float(), rtol=0, atol=0)

    def test_keeps_hyper_parameters_but_no_training_state(self, tmp_path: Path) -> None:
        for seed in range(2):
            make_checkpoint(tmp_path / f"{seed}.ckpt", seed, optimizer_states=[{}], callbacks={"x": {}}, loops={})
        average([str(tmp_path / "0.ckpt"), str(tmp_path / "1.ckpt")], str(tmp_path / "mean.ckpt"))
        content = load_checkpoint(tmp_path / "mean.ckpt")
        assert content["hyper_parameters"]["_class_path"] == "package.TinyModel"
        assert not {"optimizer_states", "callbacks", "loops"} & content.keys()

    @pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]])
    def test_bad_weights(self, tmp_path: Path, weights: list[float]) -> None:
        paths = [str(make_checkpoint(tmp_path / f"{seed}.ckpt", seed)) for seed in range(2)]
        with pytest.raises(UsageError, match="there are 2 checkpoints"):
            average(paths, str(tmp_path / "mean.ckpt"), weights=weights)

    def test_other_models_and_bad_outputs(self, tmp_path: Path) -> None:
        one, two = make_checkpoint(tmp_path / "1.ckpt"), tmp_path / "2.ckpt"
        torch.save(make_state() | {"backbone.weight": torch.zeros(9, 9)}, two)
        with pytest.raises(UsageError, match="1 differ in shape, e.g. 'backbone.weight'"):
            average([str(one), str(two)], str(tmp_path / "mean.ckpt"))
        torch.save({"other": torch.zeros(1)}, two)
        with pytest.raises(UsageError, match="6 tensors are only in the first, 1 only in the second"):
            average([str(one), str(two)], str(tmp_path / "mean.ckpt"))
        with pytest.raises(UsageError, match="give two or more"):
            average([str(one)], str(tmp_path / "mean.ckpt"))
        with pytest.raises(UsageError, match="one of the inputs"):
            average([str(one), str(one)], str(one))
        with pytest.raises(UsageError, match="formats are"):
            average([str(one), str(one)], str(tmp_path / "mean.bin"))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["1.ckpt", "2.ckpt"]

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc, which only Linux has")
    def test_memory_stays_at_a_few_tensors(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two checkpoints of 96 MiB in tensors of 1 MiB are averaged within 48 MiB of private memory."""
        state = {str(index): torch.full((2**18,), float(index)) for index in range(96)}
        torch.save(state, tmp_path / "1.ckpt")
        torch.save(state, tmp_path / "2.ckpt")
        start, most, averager = private_mib(), [0], averaging._averager

        def watched(*args: object) -> object:
            mean = averager(*args)

            def read(name: str) -> torch.Tensor:
                tensor = mean(name)
                most[0] = max(most[0], private_mib())
                return tensor

            return read

        monkeypatch.setattr(averaging, "_averager", watched)
        average([str(tmp_path / "1.ckpt"), str(tmp_path / "2.ckpt")], str(tmp_path / "mean.safetensors"))
        assert most[0] - start < 48
        assert open_weights(tmp_path / "mean.safetensors")["23"][5] == 23.0


def private_mib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) // 1024


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
