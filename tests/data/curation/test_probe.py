"""What media are, which of them are too large to decode, and limits of length and size."""

import json
import pickle

import numpy as np
import pytest
from motion_clips import file_of, hold
from PIL import Image

from moviegen_core.errors import UsageError
from moviegen_data.curation import Clip, Media
from moviegen_data.curation.stages.duration import Duration
from moviegen_data.curation.stages.probe import Probe
from moviegen_data.curation.stages.resolution import Resolution
from moviegen_data.faults import SampleError

CLIP = Clip("a", "a")


def test_facts_of_a_video(tmp_path, media_maker):
    clip = Probe().apply(CLIP, Media(file_of(tmp_path, media_maker, hold(12), rotation=90)))
    wanted = {"frames": 12, "fps": 10.0, "duration_s": 1.2, "width": 96, "height": 160, "rotation": 90, "has_audio": False}
    assert clip.drop is None and clip.facts | wanted == clip.facts and clip.facts["codec"] == "h264" and clip.facts["bytes"] > 100
    json.dumps(dict(clip.facts))


def test_rates_and_lengths_are_counted(tmp_path, media_maker):
    clip = Probe().apply(CLIP, Media(file_of(tmp_path, media_maker, hold(5), times=[0.0, 0.1, 0.2, 2.0, 4.0])))
    assert clip.facts["frames"] == 5 and 4.0 < clip.facts["duration_s"] < 6.1
    webm = Probe().apply(CLIP, Media(file_of(tmp_path, media_maker, hold(20), name="a.webm", codec="libvpx", container="webm")))
    assert webm.facts["frames"] == 20 and webm.facts["duration_s"] == pytest.approx(2.0, abs=0.05)


def test_facts_of_sounds_and_of_videos_with_sound(tmp_path, media_maker):
    sound = np.zeros((2, 16000), np.float32)
    (tmp_path / "a.wav").write_bytes(media_maker.encode_sound(sound, 16000))
    clip = Probe().apply(CLIP, Media(tmp_path / "a.wav"))
    assert clip.facts["duration_s"] == 1.0 and clip.facts["audio_hz"] == 16000 and clip.facts["num_channels"] == 2
    assert Probe(max_duration_s=0.5).apply(CLIP, Media(tmp_path / "a.wav")).drop.reason == "too many seconds"
    (tmp_path / "a.mp4").write_bytes(
        media_maker.encode_sound(sound, 16000, container="mp4", codec="aac", frames=media_maker.grey_steps(10), fps=10)
    )
    clip = Probe().apply(CLIP, Media(tmp_path / "a.mp4"))
    assert clip.facts["has_audio"] and clip.facts["audio_hz"] == 16000 and clip.facts["frames"] == 10


def test_facts_of_a_picture_honour_its_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    clip = Probe().apply(CLIP, Media(tmp_path / "a.jpg"))
    assert (clip.facts["width"], clip.facts["height"], clip.facts["frames"]) == (20, 40, 1)


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"max_frames": 11}, "too many frames"),
        ({"max_duration_s": 1.0}, "too many seconds"),
        ({"max_pixels": 1000}, "too large"),
        ({"max_side_px": 100}, "too large"),
        ({"max_bytes": 50}, "too many bytes"),
    ],
)
def test_every_limit_is_told(tmp_path, limit, reason, media_maker):
    clip = Probe(**limit).apply(CLIP, Media(file_of(tmp_path, media_maker, hold(12))))
    assert clip.drop.reason == reason and clip.drop.measured and clip.drop.wanted


@pytest.mark.parametrize("side", [6400, 20000])  # 41 and 400 megapixels: above the limit here, and above Pillow's own
def test_picture_bombs_are_not_decoded(tmp_path, side):
    Image.new("1", (side, side)).save(tmp_path / "bomb.png")
    media = Media(tmp_path / "bomb.png")
    media.stills = None  # any decoding would fail
    assert Probe().apply(CLIP, media).drop.reason == "too large"


def test_a_bomb_of_frames_is_counted_no_further_than_needed(tmp_path, media_maker):
    data = media_maker.encode_clip(np.full((600, 16, 16, 3), 90, np.uint8), fps=100)
    (tmp_path / "long.mp4").write_bytes(data)
    drop = Probe(max_frames=100).apply(CLIP, Media(tmp_path / "long.mp4")).drop
    assert (drop.reason, drop.measured) == ("too many frames", "more than 100")


def test_broken_ones_are_told(tmp_path, media_maker):
    for name, data in (("a.mp4", b""), ("b.mp4", b"text" * 99), ("c.png", b"text"), ("d.wav", b"text" * 99), ("e.png", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SampleError, match="cannot be opened|no sound|cannot"):
            Probe().apply(CLIP, Media(tmp_path / name))
    (tmp_path / "sound.mp4").write_bytes(media_maker.encode_sound(np.zeros((1, 8000), np.float32), 8000, container="mp4", codec="aac"))
    with pytest.raises(SampleError, match="no video"):
        Probe().apply(CLIP, Media(tmp_path / "sound.mp4"))


def test_durations(tmp_path, media_maker):
    media = Media(tmp_path / "absent.mp4")  # what is known is not measured again
    for duration_s, reason in ((3.99, "too short"), (4.0, None), (120.0, None), (120.01, "too long")):
        clip = Duration().apply(CLIP.described(duration_s=duration_s), media)
        assert (clip.drop.reason if clip.drop else None) == reason
    assert Duration(max_s=None).apply(CLIP.described(duration_s=1e6), media).drop is None
    part = Clip("a", "a", start_s=3.0, end_s=6.5, facts={"duration_s": 100.0})
    assert str(Duration().apply(part, media).drop) == ": too short (3.50 s, wanted 4 s to 120 s)"
    assert Duration().apply(CLIP, Media(tmp_path / "absent.png")).drop is None
    assert Duration(min_s=1.0).apply(CLIP, Media(file_of(tmp_path, media_maker, hold(12)))).drop is None  # nobody has measured it


def test_resolutions(tmp_path, media_maker):
    media = Media(tmp_path / "absent.mp4")
    for width, height, kept in ((768, 768, True), (767, 2000, False), (2000, 767, False)):
        assert (Resolution().apply(CLIP.described(width=width, height=height), media).drop is None) == kept
    assert Resolution().apply(CLIP, Media(tmp_path / "absent.wav")) is CLIP
    unknown = Media(file_of(tmp_path, media_maker, hold(2), rotation=90))
    assert Resolution(min_width=96, min_height=160).apply(CLIP, unknown).drop is None
    drop = Resolution(min_width=97, min_height=1).apply(CLIP, unknown).drop
    assert (drop.measured, drop.wanted) == ("96x160 px", "97x1 px or more")


def test_settings_are_checked_and_travel():
    for make in (
        lambda: Probe(max_frames=0),
        lambda: Duration(min_s=5.0, max_s=4.0),
        lambda: Duration(min_s=-1.0),
        lambda: Resolution(min_width=0),
    ):
        with pytest.raises(UsageError):
            make()
    for stage in (Probe(max_frames=7), Duration(max_s=None), Resolution(min_width=5)):
        assert vars(pickle.loads(pickle.dumps(stage))) == vars(stage)


@pytest.mark.media
def test_real_files_agree_with_their_manifest(media):
    for entry in json.loads((media / "MANIFEST.json").read_text()):
        path = media / entry["file"]
        if entry["kind"] != "video" or path.stat().st_size > 1_000_000:
            continue
        facts = Probe().apply(CLIP, Media(path)).facts
        assert (facts["height"], facts["has_audio"]) == (entry["height"], entry["has_audio"]), entry["file"]
        assert facts["width"] == {"carphone_176x144.mp4": 193}.get(path.name, entry["width"]), entry["file"]  # its pixels are wide
        assert facts["frames"] == pytest.approx(entry["frames"], abs=2), entry["file"]
        assert facts["duration_s"] == pytest.approx(entry["duration_s"], abs=0.2), entry["file"]
