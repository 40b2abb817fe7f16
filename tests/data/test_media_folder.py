"""Which files of a folder are media, and that none of the others disappears silently."""

import errno
import os
from pathlib import Path

import pytest

from moviegen_core.errors import UsageError
from moviegen_data.faults import SkipReport
from moviegen_data.media_folder import keyed, keyed_media, media_in


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "media"
    for name in ("a.mp4", "deep/b.png", "deep/er/c.wav", "deep/.hidden/d.mp4", ".e.mp4", "deep/notes.txt", "deep/tool.exe"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def _listed(root: Path, **options) -> tuple[list[str], dict[str, str]]:
    skipped = SkipReport()
    media = media_in(root, skipped, **options)
    return [path.relative_to(root).as_posix() for path in media], {skip.key: skip.cause for skip in skipped.skips.values()}


def test_media_in_any_depth(folder, tmp_path, monkeypatch):
    odd = "not a kind of media that shards hold"
    names = ["a.mp4", "deep/b.png", "deep/er/c.wav"]
    assert _listed(folder) == (names, {"deep/notes.txt": odd, "deep/tool.exe": odd})
    assert _listed(folder, captions="sidecar") == (names, {"deep/tool.exe": odd})
    monkeypatch.chdir(tmp_path)
    assert _listed(Path("media"), captions="media/deep/tool.exe") == (names, {"deep/notes.txt": odd})
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UsageError, match="it holds no media"):
        media_in(tmp_path / "nothing", SkipReport())


def test_links(folder, tmp_path):
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    (folder / "gone.mp4").symlink_to(folder / "nothing.mp4")
    (folder / "long.mp4").symlink_to("x" * 300)
    (folder / "beyond.mp4").symlink_to(folder / "a.mp4" / "b.mp4")
    (folder / "again").symlink_to(folder / "deep")
    (folder / "within.mp4").symlink_to(folder / "a.mp4")
    (tmp_path / "secret.mp4").write_bytes(b"x")
    (folder / "out.mp4").symlink_to(tmp_path / "secret.mp4")
    names, skipped = _listed(folder, captions="sidecar")
    assert names == ["a.mp4", "deep/b.png", "deep/er/c.wav", "within.mp4"]
    assert skipped.items() >= {
        ("loop.mp4", "not a file"),
        ("gone.mp4", "not a file"),
        ("long.mp4", "not a file"),
        ("beyond.mp4", "not a file"),
        ("again", "a link to a folder"),
        ("out.mp4", "a link that leaves the folder"),
    }


def test_what_may_not_be_read_is_counted(folder, monkeypatch):
    scandir, access = os.scandir, os.access

    def closed(path):
        if os.fspath(path).endswith("er"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)  # root may read everything
    monkeypatch.setattr(os, "access", lambda path, mode: not os.fspath(path).endswith("b.png") and access(path, mode))
    names, skipped = _listed(folder, captions="sidecar")
    assert names == ["a.mp4"] and {skipped["deep/er"], skipped["deep/b.png"]} == {"may not be read"}


@pytest.mark.parametrize(("number", "kind"), [(errno.EACCES, None), (errno.EIO, OSError), (errno.ESTALE, OSError)])
def test_folders_that_may_be_listed_and_no_more(number, kind, folder, monkeypatch):
    look = Path.stat

    def refused(path, **options):
        if path.name == "b.png":
            raise OSError(number, os.strerror(number), os.fspath(path))
        return look(path, **options)

    monkeypatch.setattr(Path, "stat", refused)
    if kind is None:
        names, skipped = _listed(folder, captions="sidecar")
        assert names == ["a.mp4", "deep/er/c.wav"] and skipped["deep/b.png"] == "may not be read"
    else:
        with pytest.raises(kind, match=r"b\.png"):
            media_in(folder, SkipReport())


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ESTALE])
def test_a_listing_that_fails_is_no_shorter_one(number, folder, monkeypatch):
    scandir = os.scandir

    def failing(path):
        if os.fspath(path).endswith("deep"):
            raise OSError(number, os.strerror(number), os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(OSError, match="deep"):
        keyed_media(folder)


def test_many_names_without_letters_get_keys_at_once(tmp_path):
    media = [tmp_path / f"{chr(0x4E00 + number)}.png" for number in range(20_000)]
    found = keyed([*media, tmp_path / "a.png", tmp_path / "a_2.png", tmp_path / "a!.png"], tmp_path)
    keys = [key for key, _ in found]
    assert keys[:3] == ["sample", "sample_2", "sample_3"] and keys[19_999:] == ["sample_20000", "a", "a_2", "a_3"]
    assert [path for _, path in found][:2] == media[:2] and len(set(keys)) == len(keys)
