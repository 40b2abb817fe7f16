"""Shards of a run on their way into the output folder: killed, full disks, media that go wrong when they are cut."""

import json
import os
import shutil
from pathlib import Path

import pytest

from moviegen_core.errors import UsageError
from moviegen_data import ShardReader
from moviegen_data.curation import Clip, curate, output, publishing
from moviegen_data.curation.output import ShardSettings, WriteShard, plan_shards
from moviegen_data.curation.tries import KILLED, Tries, Watch
from moviegen_data.curation.work import Results
from moviegen_data.faults import SampleError
from moviegen_data.shards import ShardWriter


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


class Calls:
    """Counts what changes names in a folder, and ends with one of these calls."""

    def __init__(self, monkeypatch, folder: Path) -> None:
        self.count, self.last, self.folder = 0, 1 << 30, str(folder)
        for name in ("link", "unlink", "replace", "rename", "rmdir"):
            monkeypatch.setattr(os, name, self._counting(getattr(os, name)))

    def _counting(self, function):
        def call(*paths, **options):
            if self.folder in os.fspath(paths[-1]) or "dir_fd" in options:
                self.count += 1
                if self.count > self.last:
                    raise Killed
            return function(*paths, **options)

        return call


def is_whole(folder: Path) -> bool:
    (index,) = folder.glob("*.index.json")
    shards = json.loads(index.read_text())["shards"]
    return all((folder / shard["file"]).stat().st_size == shard["num_bytes"] for shard in shards)


def keys_of(folder: Path) -> list[str]:
    reader = ShardReader(str(folder))
    return [reader[number].key for number in range(len(reader))]


def planned(folder: Path, tmp_path: Path, name: str, count: int, **settings: object):
    """Shards of one medium each, written and not published."""
    clips = Results(tmp_path / f"work-{name}", ("one",), (name,))
    clips.write(0, [Clip(f"{name}{number}", f"v{number:03d}.mp4") for number in range(count)])
    plan = plan_shards(tmp_path / "run", folder, ShardSettings(max_samples=1, **settings), clips)
    for number in plan.missing():
        plan.write(number, Watch())
    return plan


@pytest.mark.parametrize("prefix", ["shard", "another"])
def test_killed_between_any_two_calls_an_index_tells_the_truth(prefix, make_folder, hash_of, tmp_path, monkeypatch):
    folder, out = make_folder(4), tmp_path / "out"
    many, few = planned(folder, tmp_path, "many", 4), planned(folder, tmp_path, "few", 2, prefix=prefix)
    few.publish(out)
    whole = hash_of(out)
    shutil.rmtree(out)
    calls = Calls(monkeypatch, out)
    for last in range(1000):
        many.publish(out)
        calls.count, calls.last = 0, last
        try:
            few.publish(out)
        except Killed:
            assert len(list(out.glob("*.index.json"))) <= 1 and all(is_whole(out) for _ in out.glob("*.index.json"))
            found = {key[:3] for key in keys_of(out)} if list(out.glob("*.tar")) else set()
            assert len(found) < 2, "shards of two sets side by side"
            calls.last = 1 << 30
            few.publish(out)
            assert hash_of(out) == whole
        else:
            break
        shutil.rmtree(out)
    assert last >= 8 and hash_of(out) == whole, "it was killed at every call"


def test_names_are_on_the_disk_before_the_index(make_folder, tmp_path, monkeypatch):
    plan, seen = planned(make_folder(2), tmp_path, "two", 2), []
    monkeypatch.setattr(publishing, "flush", lambda folder: seen.append(sorted(path.name for path in folder.iterdir())))
    plan.publish(tmp_path / "out")
    assert seen == [[".curation", "shard-000000.tar", "shard-000001.tar"]]


def test_other_settings_after_a_kill_while_old_ones_were_removed(make_folder, make_config, hash_of, tmp_path, monkeypatch):
    folder, many, few = make_folder(3), make_config(least=0.0, name="many.yaml"), make_config(name="few.yaml")
    curate(str(folder), str(tmp_path / "out"), config=many)
    first, removed = hash_of(tmp_path / "out"), []

    def half(path, *_, **__):
        tars = sorted(Path(path).rglob("*.tar"))
        removed.extend(tars)
        if tars:
            tars[0].unlink()
            raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(shutil, "rmtree", half)
        curate(str(folder), str(tmp_path / "out"), config=few)
    assert removed
    curate(str(folder), str(tmp_path / "out"), config=many)
    assert hash_of(tmp_path / "out") == first
    assert not list((tmp_path / "out" / ".curation").glob(".*")), "nothing half removed stays"


def test_what_killed_runs_left_unfinished_is_removed(make_folder, make_config, tmp_path):
    folder, out = make_folder(3), tmp_path / "out"
    curate(str(folder), str(out), config=make_config())
    (step,) = (out / ".curation").glob("step-*")
    (step / ".0123.partial").write_bytes(b"x")
    curate(str(folder), str(out), config=make_config())
    assert not list(step.glob(".*"))


def test_file_systems_without_links(make_folder, make_config, hash_of, tmp_path, monkeypatch):
    folder = make_folder(3)
    curate(str(folder), str(tmp_path / "linked"), config=make_config())

    def no_link(*_):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", no_link)
    curate(str(folder), str(tmp_path / "copied"), config=make_config())
    assert hash_of(tmp_path / "copied") == hash_of(tmp_path / "linked")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="free some space"):
        curate(str(folder), str(tmp_path / "full"), config=make_config())
    assert sorted(path.name for path in (tmp_path / "full").iterdir()) == [".curation"], "nothing half-written"


def test_an_index_of_others_goes_before_their_shards(make_folder, make_config, make_shards, tmp_path, monkeypatch):
    out = make_shards("out")
    prefix = next(out.glob("*.index.json")).name.split(".")[0]
    monkeypatch.setattr(publishing, "_link", lambda source, target: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        curate(str(make_folder(1)), str(out), config=make_config(prefix=prefix), overwrite=True)
    assert not list(out.glob("*.index.json")) and not list(out.glob("*.tar"))


@pytest.mark.parametrize("prefix", ["shard", "another"])
def test_what_others_put_in_the_place_of_a_run_is_theirs(prefix, make_folder, make_config, tmp_path):
    folder, out = make_folder(2), tmp_path / "out"
    curate(str(folder), str(out), config=make_config())
    with ShardWriter(out, overwrite=True) as writer:
        writer.write("theirs", {"json": {}})
    told = {"shard": "it already holds 1 named shard-", "another": "it already holds shard-000000.tar, which"}[prefix]
    with pytest.raises(UsageError, match=told):
        curate(str(folder), str(out), config=make_config(prefix=prefix))
    assert keys_of(out / "shard-000000.tar") == ["theirs"] and (out / "shard.index.json").is_file()
    curate(str(folder), str(out), config=make_config(), overwrite=True)
    assert "theirs" not in keys_of(out / "shard-000000.tar")


@pytest.mark.parametrize("made_from", ["", "as it was"])
@pytest.mark.parametrize("prefix", ["shard", "another"])
def test_a_folder_of_the_version_that_kept_no_sizes(prefix, made_from, make_folder, make_config, hash_of, tmp_path):
    folder, out, fresh = make_folder(2), tmp_path / "out", tmp_path / "fresh"
    curate(str(folder), str(out), config=make_config())
    record = out / ".curation" / "published.json"
    told = json.loads(record.read_text())
    record.write_text(json.dumps({"made_from": made_from and told["made_from"], "files": [*told["files"], "shard-000009.tar"]}))
    curate(str(folder), str(out), config=make_config(prefix=prefix))
    curate(str(folder), str(fresh), config=make_config(prefix=prefix))
    assert hash_of(out) == hash_of(fresh)
    sizes = {path.name: [path.stat().st_size] for path in out.glob(f"{prefix}[-.]*")}
    assert json.loads(record.read_text())["files"] == sizes and len(sizes) == 3


@pytest.fixture
def plan(make_folder, tmp_path):
    folder = make_folder(2)
    clips = Results(tmp_path / "work", ("one",), ("one",))
    clips.write(0, [Clip("a", "v000.mp4"), Clip("b", "v001.mp4", 0.0, 1.0)])
    return plan_shards(tmp_path / "run", folder, ShardSettings(), clips)


@pytest.mark.parametrize("error", [SampleError("too short", "no frame"), ZeroDivisionError("no rate"), ValueError("odd size")])
def test_media_that_cannot_be_cut_end_no_run(error, plan, monkeypatch):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(output, "copy_stretch", broken)
    plan.write(0, Watch())
    ((key, why),) = plan.faults()
    assert key == "b" and str(error) in why and plan.missing() == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError()])
def test_the_machines_faults_end_the_cutting(error, plan, monkeypatch):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(output, "copy_stretch", broken)
    with pytest.raises(type(error)):
        plan.write(0, Watch())
    assert plan.missing() == [0]


def test_copies_that_cannot_be_decoded_are_encoded(plan, monkeypatch):
    monkeypatch.setattr(output, "copy_stretch", lambda *_: b"no film")
    plan.write(0, Watch())
    reader = ShardReader(str(plan.folder / "000000"))
    cut = [reader[number].metadata["cut"] for number in range(len(reader)) if "cut" in reader[number].metadata]
    assert not list(plan.faults()) and [one["encoded"] for one in cut] == [True]


def test_media_that_kill_the_cutting_are_left_out_and_tried_again(plan, tmp_path, monkeypatch):
    begun, sample_of = [], output.sample_of

    def looking(clip, *rest):
        begun.extend(path.read_text().splitlines()[-1] for path in (tmp_path / "tries").iterdir())
        return sample_of(clip, *rest)

    monkeypatch.setattr(output, "sample_of", looking)
    WriteShard(plan, Tries(tmp_path / "tries", "run"))(type("P", (), {"number": 0}))
    assert sorted(begun) == ['["cutting", "v000.mp4"]', '["cutting", "v001.mp4"]']
    plan.write(0, Watch(None, {"v001.mp4": (2, "cutting")}))
    assert dict(plan.faults())["b"].startswith(KILLED) and plan.missing() == []
    plan.forget_poor()
    assert plan.missing() == [0]
    plan.write(0, Watch())
    plan.forget_poor()
    assert not dict(plan.faults()) and plan.missing() == []


def test_clips_of_clips_of_clips_have_keys_that_a_tar_takes(make_folder, tmp_path):
    folder, clips = make_folder(1), Results(tmp_path / "work", ("one",), ("one",))
    keys = ["x" * 80 + "+000+000", *(f"{'x' * 80}+000+000+{number:03d}" for number in range(2))]
    clips.write(0, [Clip(key, "v000.mp4") for key in keys])
    plan = plan_shards(tmp_path / "run", folder, ShardSettings(), clips)
    plan.write(0, Watch())
    found = keys_of(plan.folder / "000000")
    assert len(set(found)) == 3 and keys[0] in found and all(len(key) <= 90 and key.startswith("x" * 73) for key in found)


@pytest.mark.parametrize("wrong", [{"max_samples": 1000.0}, {"max_samples": True}, {"crf": 16.5}, {"seed": None}, {"seed": "x"}])
def test_numbers_that_are_no_whole_ones_are_refused_before_the_run(wrong):
    with pytest.raises(UsageError, match="was given; it is a whole number; give"):
        ShardSettings(**wrong)


def test_shards_of_another_version_are_cut_again(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(output, "__version__", "another")
    assert plan_shards(tmp_path / "run", plan.root, plan.settings, Results(tmp_path / "work", ("one",), ("one",))).folder != plan.folder


def test_records_come_back_as_they_were(tmp_path):
    odd = 'one\u2028two\u2029three\x85four\nfive\r\nsix\x1c, [{"\\'
    clips = [Clip("a", odd, caption=odd).scored(x=0.1).annotated(said={odd: [odd]}).embedded(v=[0.5, 1.0]), Clip("b", "b", end_s=2.0)]
    results = Results(tmp_path, ("one", "none"), ("one", "none"))
    results.write(0, clips)
    results.write(1, [])
    assert [clip.to_json() for clip in results.read_all()] == [clip.to_json() for clip in clips]
