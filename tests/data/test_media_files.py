"""A machine that fails loses no sample: what is damaged is told from what cannot be read just now."""

import errno
import io
import os
import struct
import subprocess
import sys

import av
import pytest

from moviegen_data import media_files
from moviegen_data.audio import AudioDecoder
from moviegen_data.curation import Clip, Media
from moviegen_data.curation.cutting import cut_video
from moviegen_data.curation.pipeline import Named
from moviegen_data.curation.running import ClipRun
from moviegen_data.curation.stage import ClipStage
from moviegen_data.curation.stages.probe import Probe
from moviegen_data.faults import SampleError, SourceError
from moviegen_data.image import open_picture
from moviegen_data.media_files import opened, read_file
from moviegen_data.stills import read_stills
from moviegen_data.video import VideoDecoder

READERS = [
    opened,
    VideoDecoder().probe,
    VideoDecoder().count,
    AudioDecoder().probe,
    lambda path: read_stills(path, [0.0]),
    lambda path: Probe().apply(Clip("a", "a"), Media(path)),
]


@pytest.fixture
def film(tmp_path, media_maker):
    path = tmp_path / "film.mp4"
    path.write_bytes(media_maker.encode_clip(media_maker.grey_steps(12), fps=8))
    return path


@pytest.fixture
def damaged(film):
    film.write_bytes(film.read_bytes()[:40] + b"words" * 100)
    return film


def _failing(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("read", [*READERS[:-1], read_file])
def test_a_disk_that_fails(read, tmp_path):
    (tmp_path / "film.mp4").symlink_to("/proc/self/mem")  # it can be opened, and reading its first byte is an error of the device
    with pytest.raises(SourceError, match=r"film.mp4 was to be read; the system says: Input/output error"):
        read(tmp_path / "film.mp4")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ETIMEDOUT])
@pytest.mark.parametrize("read", READERS)
def test_files_that_libav_cannot_use_are_read_once_more(read, number, damaged, monkeypatch):
    with pytest.raises(SampleError, match="cannot be opened"):
        read(damaged)
    monkeypatch.setattr(media_files, "open", _failing(number), raising=False)
    with pytest.raises(SourceError, match=os.strerror(number)):
        read(damaged)


@pytest.mark.parametrize(("number", "kind"), [(errno.EIO, SampleError), (errno.EMFILE, SourceError), (errno.ENFILE, SourceError)])
def test_what_libav_says_of_a_file_that_can_be_read(number, kind, film, monkeypatch):
    monkeypatch.setattr(av, "open", _failing(number))
    for source in (film, film.read_bytes()):
        with pytest.raises(kind, match=os.strerror(number)):
            opened(source)


def test_a_disk_that_fails_on_the_way(film, monkeypatch):
    film.write_bytes(_without_end(film.read_bytes()))
    with pytest.raises(SampleError, match="cannot be decoded"):
        VideoDecoder().count(film)
    monkeypatch.setattr(media_files, "open", _failing(errno.EIO), raising=False)
    with pytest.raises(SourceError, match="Input/output error"):
        VideoDecoder().count(film)


def _without_end(data: bytes) -> bytes:
    """The pictures' data of an mp4 overwritten from its middle on."""
    start = data.index(b"mdat") + 4
    (size,) = struct.unpack(">I", data[start - 8 : start - 4])
    half = start + (size - 8) // 2
    return data[:half] + b"\xff" * (start + size - 8 - half) + data[start + size - 8 :]


class Counting(ClipStage):
    def apply(self, clip, media):
        return clip.scored(frames=media.extent[0])


class Disk:
    """Counts how often files are read to their end, and fails where it is told to."""

    def __init__(self):
        self.ends, self.fails_from = 0, None

    def open(self, *arguments, **options):
        disk = self

        class File(io.FileIO):
            def read(self, size=-1):
                if disk.fails_from is not None and self.tell() >= disk.fails_from:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                content = super().read(size)
                disk.ends += not content
                return content

        return File(*arguments)


@pytest.fixture
def disk(monkeypatch):
    found = Disk()
    monkeypatch.setattr(media_files, "open", found.open, raising=False)
    monkeypatch.setattr(media_files, "_AT_ONCE", 1000)
    monkeypatch.setattr(media_files, "_BEGINNING", 100)
    return found


def test_a_damaged_film_of_many_clips_is_read_whole_once(film, disk):
    film.write_bytes(_without_end(film.read_bytes()))
    clips = [Clip(f"a+{number}", "film.mp4", start_s=number / 8, end_s=(number + 2) / 8) for number in range(6, 10)]
    ran = ClipRun([Named("look", Counting(), {})], film.parent)(clips)
    assert len(ran) == 4 and {clip.drop.reason for clip in ran} == {"cannot be decoded"}
    for start_s in (0.75, 1.0, 1.25):
        with pytest.raises(SampleError, match="cannot be decoded"):
            cut_video(film, start_s, start_s + 0.2)
    assert disk.ends == 1
    os.utime(film, ns=(0, film.stat().st_mtime_ns + 1))
    with pytest.raises(SampleError, match="cannot be decoded"):
        VideoDecoder().count(film)
    assert disk.ends == 2, "another time may be another file"


def test_a_disk_that_fails_after_a_film_was_read(film, disk, monkeypatch):
    film.write_bytes(_without_end(film.read_bytes()))
    with pytest.raises(SampleError, match="cannot be decoded"):
        VideoDecoder().count(film)
    disk.fails_from = 1000
    with monkeypatch.context() as patch:
        patch.setattr(av, "open", _failing(errno.EIO))
        for _ in range(2):  # what could not be read is not taken for read the next time
            with pytest.raises(SourceError, match="Input/output error"):
                VideoDecoder().count(film)
    disk.fails_from = 0
    with pytest.raises(SourceError, match="Input/output error"):
        VideoDecoder().count(film)


def test_a_header_that_asks_for_too_much_memory(film, monkeypatch):
    data, place = film.read_bytes(), film.read_bytes().index(b"stts") + 8
    film.write_bytes(data[:place] + struct.pack(">I", 0x7FFFFFFF) + data[place + 4 :])
    for source in (film, film.read_bytes()):
        with pytest.raises(SampleError, match="MemoryError: Cannot allocate memory"):
            opened(source)
    monkeypatch.setattr(media_files.mmap, "mmap", _failing(errno.ENOMEM))
    for source in (film, film.read_bytes()):
        with pytest.raises(SourceError, match="the system says: Cannot allocate memory"):
            opened(source)


def test_pictures_and_memory(media_maker, monkeypatch):
    data = media_maker.picture_bytes()

    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr("PIL.Image.open", full)
    with pytest.raises(SampleError, match="cannot be opened"):
        open_picture(data)
    monkeypatch.setattr(media_files.mmap, "mmap", _failing(errno.ENOMEM))
    with pytest.raises(SourceError, match="Cannot allocate memory"):
        open_picture(data)


def test_files_that_are_gone(tmp_path):
    for read in (*READERS, read_file):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "gone.mp4")


SCRIPT = """
import resource
import sys

from moviegen_data.curation import curate

held, leaking = [], False


def leak(clip, media):
    if clip.source != "v001.mp4":
        held.clear()
    while leaking and clip.source == "v001.mp4":
        try:
            held.append(open("/dev/null"))
        except OSError:
            break
    return clip


if __name__ == "__main__":
    import leaky

    folder, output, config = sys.argv[1:]
    whole = curate(folder, output + "-whole", config=config)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    leaky.leaking = True
    try:
        curate(folder, output, config=config)
    except Exception as error:
        leaky.held.clear()
        assert type(error).__name__ == "SourceError" and "v001.mp4" in str(error) and "Too many open files; allow more" in str(error), error
    else:
        raise AssertionError("a sample was lost")
    leaky.leaking = False
    told = curate(folder, output, config=config)
    assert told["num_clips"] == whole["num_clips"] == 4, (told["num_clips"], whole["num_clips"])
"""


def test_no_clip_is_lost_where_no_file_can_be_opened_for_a_while(film, tmp_path):
    folder = tmp_path / "media"
    folder.mkdir()
    for number in range(4):
        (folder / f"v{number:03d}.mp4").write_bytes(film.read_bytes())
    (tmp_path / "leaky.py").write_text(SCRIPT)
    (tmp_path / "config.yaml").write_text(
        "stages:\n  leak: {class_path: Function, init_args: {path: 'leaky:leak'}}\n  probe: {class_path: Probe}\n"
    )
    paths = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    command = [sys.executable, str(tmp_path / "leaky.py"), str(folder), str(tmp_path / "out"), str(tmp_path / "config.yaml")]
    done = subprocess.run(command, env=os.environ | paths, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
