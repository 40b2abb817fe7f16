"""A medium that kills its worker is left out, told, and tried again by the next run."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import yaml

from moviegen_data.curation import Clip, LocalEngine, curate
from moviegen_data.curation.stage import ClipStage
from moviegen_data.curation.tries import KILLED, Tries


class Kills(ClipStage):
    """Kills its process at media whose name contains a word, while a file is there.

    Args:
        word: part of their names.
        while_there: the file.
        batch_size: clips at once.
    """

    def __init__(self, *, word: str, while_there: str, batch_size: int = 1) -> None:
        self.word, self.while_there, self._batch_size = word, while_there, batch_size

    @property
    def batch_size(self) -> int:
        return self._batch_size

    def apply(self, clip: Clip, media) -> Clip:
        if self.word in clip.source and Path(self.while_there).exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return clip


@pytest.fixture
def deadly(tmp_path):
    def write(**arguments) -> str:
        (tmp_path / "bomb").touch()
        stage = {"class_path": "test_tries.Kills", "init_args": {"while_there": str(tmp_path / "bomb"), **arguments}}
        path = tmp_path / "deadly.yaml"
        path.write_text("# a test\n" + yaml.safe_dump({"stages": {"kills": stage}}))
        return str(path)

    return write


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_medium_that_kills_workers_is_left_out_and_tried_again(batch_size, deadly, make_folder, tmp_path, caplog):
    folder, config = make_folder(6), deadly(word="v003", batch_size=batch_size)
    engine = LocalEngine(num_workers=1)
    told = curate(str(folder), str(tmp_path / "out"), config=config, engine=engine)
    assert told["num_clips"] == 5 and told["stages"][0]["reasons"] == {KILLED: 1}
    assert "kills: killed its worker for 1 clips" in caplog.text
    assert curate(str(folder), str(tmp_path / "out"), config=config, engine=engine)["num_clips"] == 5
    (tmp_path / "bomb").unlink()
    assert curate(str(folder), str(tmp_path / "out"), config=config, engine=engine)["num_clips"] == 6


def test_deaths_are_counted_by_medium_and_run(tmp_path):
    def die(run, *begun):
        tries = Tries(tmp_path, run)
        with tries.watch("part") as watch:
            for source in begun:
                watch.begin(source, "motion")
            kept = (tmp_path / "part").read_bytes()
        (tmp_path / "part").write_bytes(kept)  # as a kill leaves it
        return watch

    assert die("one", "a\nb.mp4", "c.mp4").is_first
    assert die("one", "a\nb.mp4", "c.mp4").deaths == {"c.mp4": (1, "motion")}
    watch = die("one", "a\nb.mp4")
    assert watch.killer("c.mp4") == "motion" and watch.killer("a\nb.mp4") is None
    assert die("two").is_first, "of another run nobody knows who killed it"


def test_errors_are_no_deaths(tmp_path):
    tries = Tries(tmp_path / "tries", "run")
    with pytest.raises(KeyError), tries.watch("part") as watch:
        watch.begin("a.mp4", "s")
        raise KeyError
    assert not list((tmp_path / "tries").iterdir())


def test_half_a_line_ends_no_run(tmp_path):
    (tmp_path / "part").write_bytes(b'run\n["motion", "a.mp4"]\n["motion", "b\xff')
    with Tries(tmp_path, "run").watch("part") as watch:
        assert watch.deaths == {"a.mp4": (1, "motion")}


def test_what_killed_workers_is_counted_and_not_looked_at_again(deadly, make_folder, tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr("moviegen_data.curation.media.Media.stills", lambda self, *_, **__: looked.append(self.path.name))
    config = Path(deadly(word="v003"))
    stages = yaml.safe_load(config.read_text())["stages"]
    halves = {"class_path": "Function", "init_args": {"path": "moviegen_hello:halves"}}
    dark = {"class_path": "moviegen_hello.HelloBrightness", "init_args": {"least": 300.0}}
    config.write_text("# a test\n" + yaml.safe_dump({"stages": {"halves": halves, **stages, "dark": dark}}, sort_keys=False))
    told = curate(str(make_folder(4)), str(tmp_path / "out"), config=str(config), engine=LocalEngine(num_workers=1))
    assert told["num_media"] == 4
    counts = [(each["entered"], each["left"], sum(each["reasons"].values())) for each in told["stages"]]
    assert counts == [(4, 7, 0), (7, 6, 1), (6, 0, 6)], "every clip that enters a stage leaves it or is dropped"
    assert looked and "v003.mp4" not in looked, "its picture in the report would kill the run itself"


def test_a_medium_that_kills_the_run_itself_is_named_by_the_next(deadly, make_folder, tmp_path, caplog):
    folder, config, out = make_folder(3), deadly(word="v001"), str(tmp_path / "out")
    run = multiprocessing.get_context("spawn").Process(target=curate, args=(str(folder), out), kwargs={"config": config})
    run.start()
    run.join()
    assert run.exitcode == -signal.SIGKILL
    (tmp_path / "bomb").unlink()
    for told in (True, False):
        caplog.clear()
        assert curate(str(folder), out, config=config)["num_clips"] == 3
        assert ("killed while the stage kills looked at v001.mp4; should" in caplog.text) == told
