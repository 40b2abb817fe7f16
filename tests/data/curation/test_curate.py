"""`moviegen data curate` from a folder to shards, interrupted, changed and asked for what it left out."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from moviegen_core.cli import main
from moviegen_core.errors import UsageError
from moviegen_data import ShardReader
from moviegen_data.curation import LocalEngine, command, curate
from moviegen_data.curation import output as output_module
from moviegen_data.curation.command import why
from moviegen_data.curation.report import find_dropped
from moviegen_data.curation.work import only_run
from moviegen_data.faults import SampleError

REPOSITORY = Path(__file__).parents[3]


def test_from_a_folder_to_shards_and_report(make_folder, make_config, tmp_path):
    folder, output = make_folder(6), tmp_path / "out"
    (folder / "broken.mp4").write_bytes(b"no film")
    (folder / "notes.pdf").write_bytes(b"x")
    told = curate(str(folder), str(output), config=make_config(), part_size=2)
    reader = ShardReader(str(output))
    samples = {reader[number].key: reader[number].metadata for number in range(len(reader))}
    assert sorted(samples) == [f"v{number:03d}+00{half}" for number in (0, 1, 3, 4) for half in (0, 1)]
    one = samples["v003+001"]
    assert (one["frames"], one["codec"], one["width"], one["duration_s"]) == (8, "h264", 48, 1.0) and one["bytes"] > 0
    assert one["cut"] == {"start_s": 1.0, "end_s": 2.0, "encoded": False} and one["source"] == "v003.mp4"
    assert told["num_media"] == 7 and told["num_clips"] == 8 and told["num_shards"] == 3
    bright, halves = told["stages"]
    assert bright["reasons"] == {"too dark": 2, "cannot be opened": 1} and (bright["entered"], bright["left"]) == (7, 4)
    assert (halves["entered"], halves["left"]) == (4, 8) and halves["remaining_percent"] == pytest.approx(100 * 8 / 7, abs=1e-3)
    assert sum(bright["histograms"]["brightness"]["dropped"]) == 2
    (found,) = find_dropped(output, "v002")
    assert (found["stage"], found["reason"], found["wanted"]) == ("bright", "too dark", "40 or more") and found["scores"]["brightness"] < 40
    assert told["not_media"]["by_cause"] == {"not a kind of media that shards hold": 1}
    page = (output / "report.html").read_text()
    assert page.count("data:image/jpeg") == 2 and "too dark: " in page and ", wanted 40 or more<" in page and "<svg" in page
    assert json.loads((output / "report.json").read_text())["num_clips"] == 8


def interrupted(clip, media):
    raise KeyboardInterrupt


def test_an_interrupt_tells_how_to_go_on(make_folder, make_config, tmp_path):
    stops = {"class_path": "Function", "init_args": {"path": "test_curate:interrupted"}}
    (tmp_path / "stops.yaml").write_text("# laid over\n" + yaml.safe_dump({"stages": {"stops": stops}}))
    folder, output, config = str(make_folder(2)), str(tmp_path / "out"), make_config()
    with pytest.raises(KeyboardInterrupt, match="the same command goes on where it was"):
        curate(folder, output, config=[config, str(tmp_path / "stops.yaml")])
    assert curate(folder, output, config=config)["num_clips"] == 4


def marked(clip, media):
    return clip.annotated(is_late=clip.start_s > 0, share=0.5)


def test_annotations_are_in_the_shards_and_counted(make_folder, make_config, tmp_path):
    marks = {"class_path": "Function", "init_args": {"path": "test_curate:marked"}}
    (tmp_path / "marks.yaml").write_text("# laid over\n" + yaml.safe_dump({"stages": {"marks": marks}}))
    told = curate(str(make_folder(2)), str(tmp_path / "out"), config=[make_config(count=4), str(tmp_path / "marks.yaml")])
    assert told["annotations"] == {"is_late": {"true": 6, "false": 2}}
    reader = ShardReader(str(tmp_path / "out"))
    samples = {reader[number].key: reader[number].metadata["is_late"] for number in range(len(reader))}
    assert samples == {f"v{medium:03d}+{part:03d}": part > 0 for medium in range(2) for part in range(4)}


def test_names_from_the_folder_are_harmless_in_the_page(make_folder, make_config, tmp_path):
    folder = make_folder(3)
    (folder / "<script>alert(1)</script>.mp4".replace("/", "")).write_bytes(b"no film")
    curate(str(folder), str(tmp_path / "out"), config=make_config())
    assert "<script>" not in (tmp_path / "out" / "report.html").read_text()


def test_workers_and_parts_change_nothing(make_folder, make_config, hash_of, tmp_path):
    folder, config = make_folder(7), make_config()
    hashes = set()
    for number, (engine, part_size) in enumerate([(LocalEngine(), 16), (LocalEngine(num_workers=2), 2)]):
        curate(str(folder), str(tmp_path / f"out{number}"), config=config, engine=engine, part_size=part_size)
        hashes.add(hash_of(tmp_path / f"out{number}"))
    assert len(hashes) == 1


def test_what_is_done_is_not_done_again(make_folder, make_config, hash_of, tmp_path):
    folder, output = make_folder(6), tmp_path / "out"

    def files():
        return {path: path.stat().st_mtime_ns for path in (output / ".curation").rglob("*.*") if path.is_file()}

    curate(str(folder), str(output), config=make_config(), part_size=2)
    first, before = hash_of(output), files()
    curate(str(folder), str(output), config=make_config(), part_size=2)
    assert hash_of(output) == first and files() == before
    curate(str(folder), str(output), config=make_config(least=0.0), part_size=2)
    assert len(ShardReader(str(output))) == 12 and hash_of(output) != first
    assert not set(before) & {path for path in files() if "step-" in str(path)}, "results of other settings stay behind"
    (folder / "v000.mp4").unlink()
    curate(str(folder), str(output), config=make_config(least=0.0), part_size=2)
    assert len(ShardReader(str(output))) == 10


def test_a_new_medium_has_only_its_own_part_done(make_folder, make_config, hash_of, tmp_path):
    folder, output, config = make_folder(12), tmp_path / "out", make_config()

    def parts():
        return {path: path.stat().st_mtime_ns for path in (output / ".curation").glob("step-*/part-*.jsonl")}

    curate(str(folder), str(output), config=config, part_size=2)
    before = parts()
    (folder / "v004b.mp4").write_bytes((folder / "v000.mp4").read_bytes())
    told = curate(str(folder), str(output), config=config, part_size=2)
    after = parts()
    same = {path for path, time in after.items() if before.get(path) == time}
    assert told["num_clips"] == 18 and len(after) >= 4 and 1 <= len(after) - len(same) <= 2
    assert told["stages"][0]["entered"] == 13, "what was done before is counted too"
    curate(str(folder), str(tmp_path / "anew"), config=config, part_size=2)
    assert hash_of(output) == hash_of(tmp_path / "anew")
    os.utime(folder / "v000.mp4", (1, 1))
    curate(str(folder), str(output), config=config, part_size=2)
    assert 1 <= len(set(parts()) - set(after)) < len(after), "a changed medium is another one"


def test_scores_are_shown_by_the_stage_that_gave_them(make_folder, make_config, tmp_path):
    told = curate(str(make_folder(9)), str(tmp_path / "out"), config=make_config())
    bright, halves = told["stages"]
    assert sum(bright["histograms"]["brightness"]["kept"]) == 6 and sum(bright["histograms"]["brightness"]["dropped"]) == 3
    assert halves["histograms"] == {}


def test_shares_of_machines_are_heeded_or_refused(make_folder, make_config, tmp_path):
    path = tmp_path / "shares.yaml"
    path.write_text(f"# shares\ninclude: [{make_config()}]\nstages: {{bright: {{resources: {{num_gpus: 0.5}}}}}}\n")
    with pytest.raises(UsageError, match="LocalEngine runs all stages in the same processes"):
        curate(str(make_folder(1)), str(tmp_path / "out"), config=str(path))
    assert not (tmp_path / "out").exists()


def start(folder: Path, output: Path, config: str) -> subprocess.Popen:
    paths = [str(REPOSITORY / part) for part in ("", "plugins", "data", "tests/third_party/moviegen_hello")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [
        sys.executable,
        "-m",
        "moviegen_core",
        "data",
        "curate",
        str(folder),
        str(output),
        "--config",
        config,
        "--part_size",
        "1",
    ]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_any_time_the_shards_are_the_same(kills, make_folder, make_config, hash_of, tmp_path):
    folder, config = make_folder(24), make_config(max_samples=2)
    curate(str(folder), str(tmp_path / "whole"), config=config, part_size=1)
    output, rng, killed = tmp_path / "out", random.Random(kills), 0
    while killed < kills:
        run = start(folder, output, config)
        deadline = time.monotonic() + 60
        while not (output / ".curation").is_dir() and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.25))
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        if run.returncode == 0:  # it was done before it could be killed; from the start again
            shutil.rmtree(output)
            continue
        assert run.returncode == -signal.SIGKILL
        assert not list(output.glob("*.index.json")) or hash_of(output) == hash_of(tmp_path / "whole"), "an index of half a set"
        killed += 1
    run = start(folder, output, config)
    assert run.wait(120) == 0
    assert hash_of(output) == hash_of(tmp_path / "whole")


def test_shards_of_others_are_safe(make_folder, make_config, make_shards, tmp_path):
    folder, output = make_folder(3), make_shards("out")
    before = sorted(output.iterdir())
    with pytest.raises(UsageError, match="already holds"):
        curate(str(folder), str(output), config=make_config(prefix=before[0].name.split("-")[0]))
    assert sorted(output.iterdir()) == before
    curate(str(folder), str(output), config=make_config(prefix=before[0].name.split("-")[0]), overwrite=True)
    assert len(ShardReader(str(output))) == 4, "none of the replaced shards is left among the new ones"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"folder": "nowhere"}, "has no such folder"),
        ({"config": "t2v/debug"}, "a configuration of curation has stages and shards"),
        ({"config": []}, "no configuration was given"),
        ({"part_size": 0}, "part_size=0"),
    ],
)
def test_mistakes_are_told(change, told, make_folder, make_config, tmp_path):
    given = {"folder": str(make_folder(1)), "output": str(tmp_path / "out"), "config": make_config(), **change}
    with pytest.raises(UsageError, match=told):
        curate(**given)
    assert not (tmp_path / "out").exists()


def test_configurations_are_laid_over_each_other(make_folder, make_config, tmp_path, capsys):
    other = tmp_path / "other.yaml"
    other.write_text("# laid over\nstages: {halves: null}\n")
    main(["data", "curate", str(make_folder(3)), str(tmp_path / "out"), "--config", make_config(), f"--config={other}"])
    assert "3 media became 2 clips" in capsys.readouterr().out


def test_media_that_look_like_clips_of_others_are_kept_apart(make_folder, make_config, tmp_path):
    folder = make_folder(1)
    (folder / "v000+000.mp4").write_bytes((folder / "v000.mp4").read_bytes())
    (folder / "v000-000.mp4").write_bytes((folder / "v000.mp4").read_bytes())
    assert curate(str(folder), str(tmp_path / "out"), config=make_config())["num_clips"] == 6


def test_links_and_odd_names_end_no_run(make_folder, make_config, tmp_path):
    folder = make_folder(2)
    (folder / "gone.mp4").symlink_to(folder / "nothing.mp4")
    Path(os.fsdecode(bytes(folder) + b"/caf\xe9.mp4")).write_bytes(b"x")
    told = curate(str(folder), str(tmp_path / "out"), config=make_config())
    assert told["num_media"] == 2 and told["not_media"]["num_skipped"] == 2


def test_names_that_are_no_text_in_folders(make_folder, make_config, tmp_path):
    root = make_folder(2, name=os.fsdecode(b"caf\xe9"))
    odd = Path(os.fsdecode(bytes(root) + b"/d\xe9j\xe0"))
    odd.mkdir()
    (odd / "v.mp4").write_bytes((root / "v000.mp4").read_bytes())
    told = curate(str(root), str(tmp_path / "out"), config=make_config())
    assert told["num_media"] == 2 and told["not_media"]["by_cause"] == {"a name that is no UTF-8": 1}
    assert json.loads((tmp_path / "out" / "report.json").read_text())["folder"] == str(root)
    assert (tmp_path / "out" / "report.html").read_text()


def test_a_renamed_folder_of_media_is_another_one(make_folder, make_config, tmp_path):
    folder = make_folder(1)
    (folder / "a b").mkdir()
    (folder / "v000.mp4").rename(folder / "a b" / "v000.mp4")
    for name in ("a b", "a_b"):  # of the same key
        (folder / "a b").rename(folder / name)
        curate(str(folder), str(tmp_path / "out"), config=make_config())
        reader = ShardReader(str(tmp_path / "out"))
        assert {reader[number].metadata["source"] for number in range(len(reader))} == {f"{name}/v000.mp4"}


def test_two_runs_keep_apart(make_folder, make_config, tmp_path):
    folder, output = make_folder(2), tmp_path / "out"
    with only_run(output / ".curation"), pytest.raises(UsageError, match="another run of curation is at work"):
        curate(str(folder), str(output), config=make_config())


def test_only_shards_of_curation_are_replaced(make_folder, make_config, make_shards, tmp_path):
    folder, output = make_folder(3), tmp_path / "out"
    curate(str(folder), str(output), config=make_config(prefix="mine"))
    foreign = output / "mine-2023-own.tar"
    foreign.write_bytes(b"x")
    with pytest.raises(UsageError, match="it already holds mine-2023-own.tar, which would be read"):
        curate(str(folder), str(output), config=make_config(prefix="other"), overwrite=True)
    assert foreign.is_file() and len(list(output.glob("mine-0*"))) == 2
    foreign.unlink()
    curate(str(folder), str(output), config=make_config(prefix="other"))
    assert not list(output.glob("mine-0*")) and (output / "other.index.json").is_file()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("prefix", ["shard", "another"])
def test_a_run_of_another_folder_is_replaced_only_where_that_is_said(prefix, make_folder, make_config, tmp_path):
    first, second, output = make_folder(2, "first"), make_folder(1, "second"), tmp_path / "out"
    curate(str(first), str(output), config=make_config())
    before = contents(output)
    with pytest.raises(UsageError, match=f"{output} was given for shards of {second}; it holds a run of {first}; give another folder"):
        curate(str(second), str(output), config=make_config(prefix=prefix))
    assert contents(output) == before
    (tmp_path / "link").symlink_to(first)
    assert curate(str(tmp_path / "link"), str(output), config=make_config(prefix=prefix))["num_clips"] == 4
    assert curate(str(second), str(output), config=make_config(prefix=prefix), overwrite=True)["num_clips"] == 2
    assert curate(str(second), str(output), config=make_config())["num_clips"] == 2
    with pytest.raises(UsageError, match=f"it holds a run of {second}"):
        curate(str(first), str(output), config=make_config())


def test_a_run_that_had_no_report_yet_is_known_by_its_folder(make_folder, make_config, tmp_path, monkeypatch):
    first, second, output = make_folder(2, "first"), make_folder(1, "second"), tmp_path / "out"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(command._Run, "step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        curate(str(first), str(output), config=make_config())
    assert [path.name for path in output.iterdir()] == [".curation"]
    with pytest.raises(UsageError, match=f"it holds a run of {first}"):
        curate(str(second), str(output), config=make_config())
    assert curate(str(first), str(output), config=make_config(least=0.0))["num_clips"] == 4


def test_a_run_of_a_version_that_kept_no_folder_is_gone_on_with(make_folder, make_config, hash_of, tmp_path):
    first, second, output = make_folder(2, "first"), make_folder(1, "second"), tmp_path / "out"
    curate(str(first), str(output), config=make_config())
    whole, record = hash_of(output), output / ".curation" / "folder.json"
    record.unlink()
    curate(str(first), str(output), config=make_config())
    assert hash_of(output) == whole
    with pytest.raises(UsageError, match="it holds a run of"):
        curate(str(second), str(output), config=make_config())


@pytest.mark.parametrize("overwrite", [False, True])
def test_shards_of_other_prefixes_are_not_mixed_with(overwrite, make_folder, make_config, make_shards, tmp_path):
    output = make_shards("out", num_samples=2, max_samples=1)
    before = contents(output)
    told = "for new shards named clips-.*; it already holds shard-000000.tar and 1 more, which .*; give a folder of its own"
    with pytest.raises(UsageError, match=told):
        curate(str(make_folder(1)), str(output), config=make_config(prefix="clips"), overwrite=overwrite)
    assert contents(output) == before and not (output / ".curation").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_shards_do_not_go_into_the_folder_of_media(overwrite, make_folder, make_config, tmp_path):
    folder = make_folder(1)
    (tmp_path / "link").symlink_to(folder)
    for output in (folder, tmp_path / "link", folder / ".." / "media"):
        with pytest.raises(UsageError, match="it is the folder of media itself; give a folder of its own"):
            curate(str(folder), str(output), config=make_config(), overwrite=overwrite)
    assert [path.name for path in folder.iterdir()] == ["v000.mp4"]


def test_a_step_that_cannot_be_named_is_refused_before_anything_is_written(make_folder, make_config, tmp_path, monkeypatch):
    def refused(_):
        raise UsageError("a stage was given", "its files cannot be told", "give others")

    monkeypatch.setattr(command, "steps_of", refused)
    with pytest.raises(UsageError, match="its files cannot be told"):
        curate(str(make_folder(1)), str(tmp_path / "out"), config=make_config())
    assert not (tmp_path / "out").exists()


def test_shard_settings_are_checked(make_folder, make_config, tmp_path):
    for wrong in ({"crf": 99}, {"cut": "saw"}, {"max_samples": 0}, {"colour": 1}, {"preset": "nonsense"}, {"prefix": "a/b"}):
        with pytest.raises(UsageError):
            curate(str(tmp_path), str(tmp_path / "out"), config=make_config(**wrong))


def test_the_command(make_folder, make_config, tmp_path, capsys):
    main(["data", "curate", str(make_folder(3)), str(tmp_path / "out"), "--config", make_config(), "--engine", "LocalEngine"])
    out = capsys.readouterr().out
    assert "3 media became 4 clips in 2 shards" in out and "1 too dark" in out
    main(["data", "why", str(tmp_path / "out"), "v002"])
    assert capsys.readouterr().out == "v002: v002.mp4: bright: too dark (14, wanted 40 or more)\n"
    main(["data", "why", str(tmp_path / "out"), "v001"])
    kept = "".join(f"v001+00{half}: v001.mp4 {half}-{half + 1} s: kept, in the shards\n" for half in (0, 1))
    assert capsys.readouterr().out == kept
    with pytest.raises(SystemExit) as left:
        main(["data", "why", str(tmp_path / "out"), "v003"])
    assert left.value.code == 2 and "no clip has it" in capsys.readouterr().err


def test_what_became_of_all_clips_of_a_name(make_folder, make_config, tmp_path, capsys, monkeypatch):
    folder, output = make_folder(3), tmp_path / "out"
    (folder / "v000.mp4").rename(folder / "v00 \u00e9.mp4")

    def broken(clip, *rest):
        if clip.key == "v001+001":
            raise SampleError("too short", "no frame")
        return sample_of(clip, *rest)

    sample_of = output_module.sample_of
    monkeypatch.setattr(output_module, "sample_of", broken)
    curate(str(folder), str(output), config=make_config())
    capsys.readouterr()
    (dropped,) = why(str(output), "v001")
    first, second = capsys.readouterr().out.splitlines()
    assert dropped["key"] == "v001+001" and first.startswith("v001+001: v001.mp4 1-2 s: cutting: cannot be cut")
    assert second == "v001+000: v001.mp4 0-1 s: kept, in the shards"
    assert why(str(output), "v00 \u00e9") == [] and len(capsys.readouterr().out.splitlines()) == 2
    shutil.rmtree(output / ".curation")
    assert why(str(output), "v001+000") == [] and capsys.readouterr().out == "v001+000: kept, in the shards\n"


def test_nothing_left_is_told_not_hidden(make_folder, make_config, tmp_path):
    told = curate(str(make_folder(3)), str(tmp_path / "out"), config=make_config(least=255.0))
    assert told["num_clips"] == 0 and told["num_shards"] == 0 and told["stages"][0]["left"] == 0
