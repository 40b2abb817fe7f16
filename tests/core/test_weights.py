"""Weights on disk: safe reading, and loading into modules."""

import os
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from small_checkpoints import assert_states_equal, make_checkpoint, make_state
from torch import nn

from moviegen_core.errors import UsageError
from moviegen_core.weights import (
    TensorInfo,
    describe,
    load_checkpoint,
    load_into,
    load_state_dict,
    open_weights,
    save_safetensors,
)


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
