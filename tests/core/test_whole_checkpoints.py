"""Checkpoints take their name in one step: whatever goes wrong before, the earlier one is still there and nothing else looks like one."""

import errno
import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from moviegen_core import files
from moviegen_core.errors import UsageError
from moviegen_core.weights import checkpoint_io, open_weights
from moviegen_core.weights.checkpoint_io import WholeCheckpointIO, use_whole_checkpoints
from moviegen_core.weights.sharded import ShardedFolder, StoredTensor, key_of, put_back, take_out


class Crash(BaseException):
    pass


def write(path, text):
    if path.suffix == ".folder":
        path.mkdir()
        (path / "content").write_text(text)
    else:
        path.write_text(text)


def read(path):
    return ((path / "content") if path.is_dir() else path).read_text()


@pytest.fixture(params=["exchange", "two renames"])
def system(request, monkeypatch):
    """A file system that can exchange two names, and one that cannot."""
    if request.param == "two renames":
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    return request.param


@pytest.mark.parametrize("kinds", [("file", "file"), ("folder", "folder"), ("file", "folder"), ("folder", "file")])
def test_the_new_one_takes_the_name(tmp_path, kinds, system):
    path = tmp_path / "last.ckpt"
    for number, kind in enumerate(kinds):
        with files.replacing(path) as temporary:
            write(source := tmp_path / f"made.{kind}", str(number))
            source.rename(temporary)
            assert not path.exists() if number == 0 else read(path) == "0"
        assert read(path) == str(number) and path.is_dir() == (kind == "folder")
    assert [child.name for child in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_failed_one_leaves_the_earlier(tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_text("old")
    with pytest.raises(OSError, match="free some space"), files.replacing(path) as temporary:
        temporary.mkdir()
        raise OSError(errno.ENOSPC, "no space")
    assert [child.name for child in tmp_path.iterdir()] == ["last.ckpt"] and path.read_text() == "old"


@pytest.mark.parametrize("step", range(5))
def test_a_crash_between_two_renames_is_set_right(tmp_path, monkeypatch, step):
    """Where names cannot be exchanged, the folder is cut off after every operation on names in turn."""
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    path = tmp_path / "last.ckpt"
    with files.replacing(path) as temporary:
        temporary.mkdir()
        write(temporary / "content", "old")
    left = [step]

    def counting(operation):
        def counted(*args):
            left[0] -= 1
            if left[0] < 0:
                raise Crash
            return operation(*args)

        return counted

    with monkeypatch.context() as patches:
        patches.setattr(files.os, "rename", counting(files.os.rename))
        patches.setattr(files, "remove", counting(files.remove))
        temporary = files.partial_path(path)
        temporary.mkdir()
        write(temporary / "content", "new")
        try:
            files.publish(temporary, path)
        except Crash:
            pass
    files.recover(tmp_path, ".ckpt")
    assert [child.name for child in tmp_path.iterdir()] == ["last.ckpt"]
    assert read(path) == ("old" if step < 3 else "new")


def test_only_names_of_checkpoints_are_cleared_away(tmp_path):
    for name in (".last.ckpt.partial", ".film.mp4.partial", "last.ckpt.partial", ".last.ckpt"):
        (tmp_path / name).write_text("")
    files.recover(tmp_path, ".ckpt")
    assert sorted(child.name for child in tmp_path.iterdir()) == [".film.mp4.partial", ".last.ckpt", "last.ckpt.partial"]


def test_a_file_that_cannot_be_written_leaves_the_earlier(tmp_path, monkeypatch):
    checkpoints, path = WholeCheckpointIO(), tmp_path / "run" / "last.ckpt"
    checkpoints.save_checkpoint({"state_dict": {"a": torch.ones(3)}}, path)

    monkeypatch.setattr(checkpoint_io, "open", lambda path, mode: open("/dev/full", mode), raising=False)
    for size in (3, 1_000_000):
        with pytest.raises(OSError, match="free some space"):
            checkpoints.save_checkpoint({"state_dict": {"a": torch.zeros(size)}}, path)
    assert torch.equal(checkpoints.load_checkpoint(path)["state_dict"]["a"], torch.ones(3))
    assert [child.name for child in path.parent.iterdir()] == ["last.ckpt"]


def test_a_cut_file_is_told(tmp_path):
    checkpoints, path = WholeCheckpointIO(), tmp_path / "last.ckpt"
    checkpoints.save_checkpoint({"state_dict": {"a": torch.ones(3000)}}, path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UsageError, match="cut short"):
        checkpoints.load_checkpoint(path)
    with pytest.raises(UsageError, match="the nearest checkpoint is 'last.ckpt'"):
        checkpoints.load_checkpoint(tmp_path / "lost.ckpt")


class Simple(LightningModule):
    def __init__(self):
        super().__init__()
        self.frozen = torch.nn.Linear(2, 2).requires_grad_(False)
        self.layer = torch.nn.Linear(2, 2)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.layer.parameters(), lr=0.1)


def fit(model, steps, **options):
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=-1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    use_whole_checkpoints(trainer)
    trainer.fit(model, DataLoader(torch.linspace(-1, 1, 8).view(4, 2), batch_size=4), **options)
    return trainer


@pytest.fixture
def folder(tmp_path):
    """What a sharded training would have left of a model after four steps, and that model."""
    torch.manual_seed(0)
    model = Simple()
    trainer = fit(model, 4)
    rest = trainer._checkpoint_connector.dump_checkpoint()
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    state = rest.pop("optimizer_states")[0]
    groups = [{**group, "params": [names[number] for number in group["params"]]} for group in state["param_groups"]]
    optimizer = {"state": {names[number]: values for number, values in state["state"].items()}, "param_groups": groups}
    path = tmp_path / "last.ckpt"
    with pytest.warns(UserWarning, match="torch.distributed is"):
        dcp.save({"state_dict": rest.pop("state_dict"), "optimizer_0": optimizer, "extra.a.b": torch.arange(3.0)}, checkpoint_id=path)
    torch.save({**rest, "sharded": [(["extra", "a", "b"], "extra.a.b")]}, path / "meta.pt")
    return path, model


def test_one_process_goes_on_from_a_folder(folder):
    path, _ = folder
    torch.manual_seed(0)
    whole, resumed = Simple(), Simple()
    fit(whole, 7)
    fit(resumed, 7, ckpt_path=path)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_what_lies_in_shards_is_found_at_its_place(folder):
    stored = open_weights(folder[0]).metadata["extra"]["a"]["b"]
    assert isinstance(stored, StoredTensor) and torch.equal(stored.read(), torch.arange(3.0))
    target = torch.zeros(3)
    stored.read_into(target)
    assert torch.equal(target, torch.arange(3.0))


def test_taking_out_and_putting_back():
    tree = {"a": {"b": torch.ones(1), "c": 1}, "d": {"e": {"f": torch.ones(2)}}, "g": [torch.ones(3)]}
    original = {key: dict(value) for key, value in tree.items() if isinstance(value, dict)}
    rest = dict(tree)
    taken = take_out(rest, torch.Tensor)
    assert {key_of(path) for path in taken} == {"a.b", "d.e.f"} and rest["a"] == {"c": 1}
    assert tree["a"] == original["a"], "the caller's dictionaries stay as they are"
    put_back(rest, taken)
    assert rest == tree


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: next(path.glob("*.distcp")).unlink(), "shard __0_0.distcp is missing"),
        (lambda path: next(path.glob("*.distcp")).write_bytes(b"x"), "is cut: it has 1 of"),
        (lambda path: (path / ".metadata").unlink(), "index .metadata is missing"),
        (lambda path: (path / ".metadata").write_bytes(b"\x80\x04."), "index cannot be read"),
        (lambda path: (path / "meta.pt").write_bytes(b"PK\x03\x04"), "cut short"),
    ],
)
def test_damaged_folders_are_told(folder, damage, told):
    path, _ = folder
    damage(path)
    model = Simple()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UsageError, match=told):
        fit(model, 7, ckpt_path=path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_unfinished_folder_is_told(folder):
    path, _ = folder
    unfinished = files.partial_path(path)
    shutil.move(path, unfinished)
    for look in (open_weights, ShardedFolder, WholeCheckpointIO().load_checkpoint):
        with pytest.raises(UsageError, match="unfinished.*lies beside it"):
            look(unfinished)


def test_values_that_run_code_are_refused(tmp_path):
    """torch's own planner unpickles values that are no tensors."""
    path = tmp_path / "last.ckpt"
    with pytest.warns(UserWarning, match="torch.distributed is"):
        dcp.save(
            {"state_dict": {"a": torch.ones(2)}, "optimizer_0": {"param_groups": [{"params": ["a"], "hook": print}]}}, checkpoint_id=path
        )
    torch.save({}, path / "meta.pt")
    with pytest.raises(UsageError, match="cannot be read"):
        WholeCheckpointIO().load_checkpoint(path)
