"""Whole files or none, and names that every file system takes."""

import errno
import os
import subprocess
import sys

import pytest

from moviegen_core import files
from moviegen_core.files import safe_name, whole_file, write_bytes


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "deep" / "er" / "file.bin"
    with whole_file(path) as file:
        file.write(b"one")
        assert not path.exists()
        file.write(b"two")
    assert path.read_bytes() == b"onetwo"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]


def test_a_failure_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "file.bin"
    write_bytes(path, b"earlier")
    with pytest.raises(RuntimeError), whole_file(path) as file:
        file.write(b"half")
        raise RuntimeError("stop")
    assert path.read_bytes() == b"earlier"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_told_in_three_parts(tmp_path, monkeypatch):
    # /dev/full answers every write as a full disk does, so the error is the kernel's own.
    monkeypatch.setattr(files, "_open", lambda path: open("/dev/full", "wb"))
    path = tmp_path / "film.mp4"
    with pytest.raises(OSError, match=r"could not write .*film\.mp4: No space left on device; [\d,]+ MiB are free in .*; free some space"):
        write_bytes(path, b"0" * 100_000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_place_of_a_folder(tmp_path, below):
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(OSError, match=r"could not write .*file\.bin.*a file is where the folder should be; give another folder"):
        write_bytes(tmp_path / "folder" / below / "file.bin", b"")


@pytest.mark.parametrize("name", ["clip_0001", "a.b-c", "雪の中の犬", "été"])
def test_good_names_stay(name):
    assert safe_name(name) == name


HOSTILE = [
    "a red circle moves left",
    "../../etc/passwd",
    "/absolute",
    "a/b",
    "a\\b",
    "a\x00b",
    "line\nbreak",
    "",
    ".",
    "..",
    ".hidden",
    "-rf",
    'quo"te',
    "🙂",
    "  ",
    "long " * 500,
    "雪" * 200,
    "\ud800",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_become_files_in_the_folder(tmp_path, text):
    name = safe_name(text)
    path = tmp_path / f"{name}.json"
    write_bytes(path, b"x")
    assert path.resolve().parent == tmp_path.resolve()
    assert len(os.fsencode(name)) <= 120
    assert not name.startswith((".", "-"))


def test_names_stay_apart():
    texts = [*HOSTILE, "a b", "a  b", "a-b", "a/b ", "long " * 501, "雪" * 201]
    assert len({safe_name(text) for text in texts}) == len(texts)


KILLED = """
import os, signal, sys
from moviegen_core.files import whole_file
with whole_file(sys.argv[1]) as file:
    file.write(b"half of a long text")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_is_taken_away_by_the_next(tmp_path):
    path = tmp_path / "file.bin"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".partial") and left.stat().st_size == 19
    write_bytes(path, b"whole")
    assert path.read_bytes() == b"whole" and [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


def test_what_a_killed_writer_of_another_user_left_is_in_nobodys_way(tmp_path, monkeypatch):
    path = tmp_path / "file.bin"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    (left,) = tmp_path.iterdir()
    take = os.open

    def refusing(name, flags, *mode, **settings):
        if os.fspath(name) == str(left):
            raise PermissionError(errno.EACCES, "Permission denied", str(left))
        return take(name, flags, *mode, **settings)

    monkeypatch.setattr(os, "open", refusing)
    write_bytes(path, b"whole")
    assert path.read_bytes() == b"whole" and sorted(tmp_path.iterdir()) == sorted([left, path])


def test_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "file.bin"
    with whole_file(path) as one, whole_file(path) as other:
        one.write(b"one")
        other.write(b"the other")
    assert path.read_bytes() == b"one", "which ended last"
    with pytest.raises(RuntimeError), whole_file(path) as one:
        with whole_file(path) as other:
            other.write(b"the other")
        raise RuntimeError("stop")
    assert path.read_bytes() == b"the other" and len(list(tmp_path.iterdir())) == 1


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    steps, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (steps.append(os.readlink(f"/proc/self/fd/{descriptor}")), sync(descriptor))[1])
    monkeypatch.setattr(os, "replace", lambda *names: (steps.append("rename"), replace(*names))[1])
    write_bytes(tmp_path / "file.bin", b"x")
    assert [step.rpartition(".")[2] for step in steps[:2]] == ["partial", "rename"] and steps[2:] == [str(tmp_path)]
