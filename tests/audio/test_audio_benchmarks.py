"""The benchmarks of audio run at tiny sizes, and count, time and remember what they say; no figure of speed is asserted."""

import importlib.util
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

from moviegen_audio import AudioContext, AudioTransformer, DacVae, EmbeddedFrameEncoder, VideoFrames, VideoToAudio
from moviegen_text.embedded import HashedWordConditioner

FOLDER = Path(__file__).parents[2] / "benchmarks"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A benchmark as a module."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, name, module)
    spec.loader.exec_module(module)
    if hasattr(module, "keep_freed_memory"):
        monkeypatch.setattr(module, "keep_freed_memory", lambda: None)
    return module


@pytest.fixture(autouse=True)
def same_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_rounds_go_in_turn_and_the_first_is_not_counted(monkeypatch):
    measuring, order, now = load("measuring", monkeypatch), [], [0.0]

    def case(name, seconds):
        order.append(name)
        now[0] += seconds if len(order) > 2 else 100.0

    cases = {"slow": partial(case, "slow", 3.0), "fast": partial(case, "fast", 1.5)}
    seconds = measuring.interleave(cases, 3, lambda: now[0])
    assert order == ["slow", "fast"] * 4
    assert seconds == {"slow": [3.0] * 3, "fast": [1.5] * 3}
    table = measuring.compare({"ours": seconds["slow"], "peer": seconds["fast"]}, {"ours": 100, "peer": 25})
    assert table["peer"] == {"ms": 1500.0, "to_ours": 0.5, "to_ours_per_flop": 2.0}


def test_peak_is_of_what_lives_at_once(monkeypatch):
    measuring, held = load("measuring", monkeypatch), torch.zeros(1 << 20)

    def run():
        for _ in range(3):
            twice = held * 2.0
            del twice
        return held + (held * 3.0)

    assert measuring.peak_bytes(run) == pytest.approx(2 * held.numel() * 4, rel=0.01)


def test_roof_does_the_products_of_ours(monkeypatch):
    benchmark, measuring = load("audio_dit", monkeypatch), load("measuring", monkeypatch)
    size = benchmark.TINY["MMAudio small"]
    made = benchmark.references(size, 50, torch.float32) | benchmark.subjects(size, 50, torch.float32)
    module, call = made["ours"]
    flops = measuring.count_flops(call)
    text = 2 * benchmark.TEXT * benchmark.TEXT_WIDTH * size.width
    assert flops == pytest.approx(module.backbone.num_flops((benchmark.CHANNELS, 50), benchmark.TEXT) + text, rel=0.01)
    one = benchmark.Ours(**benchmark.sizes_of(replace(size, num_layers=1)), feed_forward="swiglu", ffn_width=4 * size.width)
    layers = module.backbone.num_flops((128, 50), 128) - one.backbone.num_flops((128, 50), 128)
    assert measuring.count_flops(made["roof"][1]) == pytest.approx(layers * size.num_layers / (size.num_layers - 1), rel=1e-3)
    assert measuring.count_flops(made["ours, gelu"][1]) == pytest.approx(flops, rel=1e-3)


def test_transformers(monkeypatch, tmp_path):
    benchmark, output = load("audio_dit", monkeypatch), tmp_path / "dit.json"
    benchmark.main(["--dry-run", "--rounds", "1", "--threads", "1", "--seconds", "2", "--output", str(output)])
    sizes = json.loads(output.read_text())["sizes"]
    has_peers = importlib.util.find_spec("diffusers") is not None
    for name, peer in (("stable-audio-open", "StableAudioDiTModel"), ("MMAudio small", "FluxTransformer2DModel")):
        table = sizes[name]["2 s"]
        assert {key for key in table if "threads" in key} == {f"{work} {d}, 1 threads" for work in benchmark.WORK for d in ("fp32", "bf16")}
        assert (peer in table["train bf16, 1 threads"]) == has_peers
        assert table["forward fp32, 1 threads"]["ours"]["to_ours"] == 1.0
        assert set(sizes[name]["whole"]["parameters"]) == {"ours", peer} if has_peers else {"ours"}


def test_sizes_are_the_peers(monkeypatch):
    benchmark = load("audio_dit", monkeypatch)
    pytest.importorskip("diffusers")
    for name, millions in (("stable-audio-open", 1057), ("MMAudio small", 157)):
        with torch.device("meta"):
            made = benchmark.subjects(benchmark.SIZES[name], 4, torch.float32)
        ours, peer = (sum(parameter.numel() for parameter in module.parameters()) / 1e6 for module, _ in made.values())
        assert peer == pytest.approx(millions, rel=0.05)
        assert ours == pytest.approx(peer, rel=0.1)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_codecs(monkeypatch, tmp_path):
    benchmark, output = load("dac_vae", monkeypatch), tmp_path / "dac.json"
    benchmark.main(["--dry-run", "--rounds", "1", "--threads", "1", "--seconds", "0.1", "--output", str(output)])
    record = json.loads(output.read_text())
    factors = record["subjects"]["paper"]["real_time_factor"]
    assert set(factors) == {f"{way} {d}, 1 threads" for way in ("encode", "decode", "train") for d in ("fp32", "bf16")}
    assert all(factor > 0.0 for factor in factors.values())
    assert "paper, folded / paper" in record["ratios"] and "ours at DAC's size / DacModel at DAC's size" in record["ratios"]


def test_extension(monkeypatch, tmp_path):
    benchmark, output = load("audio_extension", monkeypatch), tmp_path / "extension.json"
    monkeypatch.setattr(benchmark, "load_model", lambda *args, **kwargs: tiny_model())
    some, samplers = ("stitch", "autoregressive, both, beam", "MultiDiffusion, triangular"), benchmark.samplers
    monkeypatch.setattr(benchmark, "samplers", lambda *args, **kwargs: {name: samplers(*args, **kwargs)[name] for name in some})
    settings = ["--num_sounds", "2", "--steps", "1", "--world", '{"height": 8, "width": 8}', "--output", str(output)]
    benchmark.main(settings)
    record = json.loads(output.read_text())
    assert record["setting"]["window"] == 10
    for name, found in record["methods"].items():
        assert found["frames_at_once"] == (7 if name == "stitch" else 10), name
        assert found["flux"] > 0.0 and 0.0 <= found["onset_f1"] <= 1.0
        # Twice the length is some more latents and noise, not twice the network.
        assert 0.0 < found["peak_mib"]["8 x"] < 1.8 * found["peak_mib"]["4 x"], name
    assert record["anywhere"] > 0.0 and 0.0 <= record["single clips"]["onset_f1"] <= 1.0


def tiny_model() -> VideoToAudio:
    """A model that was never trained, for sounds of 0.4 s."""
    torch.manual_seed(0)
    sizes = {"num_layers": 1, "width": 32, "ffn_width": 64, "num_heads": 2, "in_channels": 8, "extra_channels": 8, "max_frames": 10}
    model = VideoToAudio(
        backbone=partial(AudioTransformer, **sizes),
        conditioners={
            "video": partial(VideoFrames, encoder=partial(EmbeddedFrameEncoder, feature_width=4, size_px=8, channels=[4, 4, 4])),
            "context": AudioContext,
            "caption": partial(HashedWordConditioner, width_text=8, num_layers=0, num_heads=2, num_buckets=64),
        },
        autoencoder=partial(DacVae, sample_rate=8000, strides=[4, 8], patch_size=10, encoder_width=8, decoder_width=32, latent_channels=8),
        duration_s=0.4,
    )
    model.configure_model()
    return model.eval()


def test_films_are_clips_one_after_the_other(monkeypatch):
    benchmark = load("audio_extension", monkeypatch)
    world = benchmark.World(height=8, width=8, num_frames=16, split="held_out", vary_timing=True)
    _, film = benchmark.films(world, 2, 3)
    clips = [world.clip("predict", index) for index in (3, 4, 5)]
    torch.testing.assert_close(film.video[:, 16:32], benchmark.to_pixels(clips[1:2])[0])
    told = [time_s - 2.0 for time_s in film.onsets_s if 2.0 <= time_s < 4.0]
    assert told == pytest.approx(benchmark.distinct_onsets(clips[1].events))
    assert film.video.shape[1] / film.fps == 6.0
