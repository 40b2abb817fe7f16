"""A medium that kills its worker is left out, told, and tried again by the next run."""

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
