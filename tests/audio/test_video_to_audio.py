"""VideoToAudio: training, tasks by what is given, lengths, candidates, and what it refuses."""

import json
import wave
from types import SimpleNamespace

import av
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from small_sound_model import HOP, HZ, MeansAutoencoder, a_batch, a_sound, a_video, make_model
from torch.utils.data import DataLoader

from moviegen_audio.captions import sound_effects
from moviegen_audio.model import AudioTransformer
from moviegen_audio.multidiffusion import MultiDiffusion
from moviegen_audio.scorer import OnsetSyncScorer
from moviegen_audio.training import VideoToAudio
from moviegen_core.autoencoder import Autoencoder
from moviegen_core.callbacks.writers import PredictionWriter
from moviegen_core.errors import UsageError
from moviegen_core.parallel.planner.checking import check_run
from moviegen_core.sampler import FlowSampler
from moviegen_core.testing import check_autoencoder, check_component_typed


class Loudness:
    """A scorer that likes loud sounds, and remembers."""

    def __init__(self):
        self.seen = []

    def score(self, audio, audio_hz, batch):
        self.seen.append(audio)
        return audio.square().mean((1, 2))


@pytest.fixture(scope="module")
def model():
    return make_model()


def test_the_model_and_the_small_autoencoder_keep_their_contracts():
    check_autoencoder(MeansAutoencoder, meta=False)
    check_component_typed(VideoToAudio)


# -- training ----------------------------------------------------------------------------------------------------------------------


def test_trains_and_validates_on_sounds_with_and_without_videos():
    model = make_model().train()
    for given in ({}, {"video": a_video(), "fps": torch.tensor([8.0, 10.0])}):
        loss = model.training_step(a_batch(audio=a_sound(), audio_hz=HZ, **given), 0)
        loss.backward()
        assert loss.isfinite()
    losses = []
    model.eval().log = lambda name, value, **kwargs: losses.append(value.item())
    for seed in (0, 1):
        torch.manual_seed(seed)
        model.validation_step(a_batch(audio=a_sound(), audio_hz=HZ), 0)
    assert losses[0] == losses[1]


def test_the_share_of_samples_without_each_condition(model):
    torch.manual_seed(0)
    dropped = model._draw_dropped(a_batch(captions=[""] * 40000, keys=[""] * 40000))
    together = dropped["video"] & dropped["context"] & dropped["caption"]
    # 0.2 for all, and each one by its own besides (6.1.6).
    assert dropped["video"].float().mean().item() == pytest.approx(0.2 + 0.8 * 0.1, abs=0.01)
    assert dropped["caption"].float().mean().item() == pytest.approx(0.2 + 0.8 * 0.1, abs=0.01)
    assert dropped["context"].float().mean().item() == pytest.approx(0.2 + 0.8 * 0.5, abs=0.01)
    assert together.float().mean().item() == pytest.approx(0.2 + 0.8 * 0.1 * 0.1 * 0.5, abs=0.01)


def test_latents_are_those_of_the_autoencoder(model):
    sound = a_sound()
    assert torch.equal(model.latents(a_batch(audio=sound, audio_hz=HZ)), MeansAutoencoder().encode(sound))
    cached = torch.randn(2, 4, 9)
    assert torch.equal(model.latents(a_batch(latents=cached)), cached)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"audio": a_sound(), "audio_hz": 44100}, "44100 Hz.*built for 1000 Hz"),
        ({"audio": a_sound()}, "an unknown rate"),
        ({"audio": a_sound(channels=2), "audio_hz": HZ}, r"sound of shape \(2, 2, \d+\)"),
        ({"audio": a_sound() / 0.0, "audio_hz": HZ}, "'x' holds NaN or infinite"),
        ({}, "neither sound nor latents"),
    ],
)
def test_sounds_that_cannot_be_learnt_from_are_refused(model, given, told):
    with pytest.raises(UsageError, match=told):
        model.latents(a_batch(**given))


def test_one_bad_sound_is_named(model):
    sound = a_sound()
    sound[1, 0, 77] = float("nan")
    with pytest.raises(UsageError, match="'y' holds NaN"):
        model.training_step(a_batch(audio=sound, audio_hz=HZ), 0)


def test_a_latent_rate_of_its_own_is_refused():
    with pytest.raises(UsageError, match=r"latent_hz=50 was given to the conditioner 'video'.*gives 25 latent frames"):
        make_model(latent_hz=50.0)


def test_an_autoencoder_of_videos_is_refused():
    model = VideoToAudio(backbone=AudioTransformer, conditioners={}, autoencoder=Autoencoder)
    with pytest.raises(UsageError, match="the autoencoder Autoencoder was given"):
        model.sample_shape(Autoencoder())


def test_an_earlier_stage_without_context_and_with_shorter_sounds_grows():
    earlier, later = make_model(max_frames=12), make_model(max_frames=30)
    state = {name: tensor.clone() for name, tensor in earlier.state_dict().items()}
    state["backbone.patchify.weight"] = state["backbone.patchify.weight"][:, :4]
    grown = later.adapt_state_dict(state)
    later.load_state_dict(dict(grown))
    assert not later.backbone.patchify.weight[:, 4:].any()
    assert torch.equal(later.backbone.positions.frames[:12], earlier.backbone.positions.frames)


# -- tasks -------------------------------------------------------------------------------------------------------------------------


def test_what_is_given_decides_on_the_task(model):
    video = {"video": a_video(), "fps": 10.0}
    made = {
        "V2A": model.generate(["", ""], **video),
        "T2A": model.generate(["a dog", "a bell"]),
        "TV2A": model.generate(["a dog", "a bell"], **video),
        "nothing": model.generate(["", ""]),
    }
    assert all(sound.shape == (2, 1, 500) and sound.isfinite().all() for sound in made.values())
    names = list(made)
    assert all(not torch.equal(made[one], made[two]) for one in names for two in names if one < two)
    torch.testing.assert_close(made["nothing"], model.generate(["a dog", "a bell"], drop=True), atol=1e-4, rtol=1e-3)
    assert not torch.equal(made["V2A"], model.generate(["", ""], video=a_video(seed=1), fps=10.0))


def test_structured_captions_are_formatted(model):
    caption = sound_effects("a dog barks")
    assert torch.equal(model.generate([caption]), model.generate([caption.format()]))


@pytest.mark.parametrize(
    ("given", "lengths"),
    [
        ({}, [500, 500]),
        ({"metadata": [{"duration_s": 0.3}, {}]}, [300, 500]),
        ({"video": a_video(), "fps": torch.tensor([10.0, 20.0])}, [500, 250]),
        ({"audio": a_sound(num_samples=800), "audio_hz": 2 * HZ, "metadata": [{"duration_s": 9}] * 2}, [400, 400]),
        ({"extras": {"visual_features": torch.randn(2, 6, 4), "visual_fps": torch.tensor([8.0, 8.0])}}, [750, 750]),
    ],
    ids=["default", "metadata", "video", "sound", "features"],
)
def test_lengths_are_those_of_what_is_given(model, given, lengths):
    made = model.predict_step(a_batch(**given), 0)
    assert [sound.shape for sound in made["audio"]] == [(1, length) for length in lengths]
    assert made["audio_hz"] == HZ and isinstance(made["audio"], list) == (len(set(lengths)) > 1)
    assert made["latents"].shape == (2, 4, -(-max(lengths) // HOP))


def test_a_sound_beyond_the_positions_needs_windows():
    model = make_model(max_frames=15)
    for sampler in (model.sampler, MultiDiffusion(window=16, hop=10)):
        model.sampler = sampler
        with pytest.raises(UsageError, match="latent frames of a sound at once.*ends at 15.*SegmentAutoregressive"):
            model.generate(["a dog"], duration_s=1.0)
    for sampler in (FlowSampler(steps=2, window=15, window_overlap=5), MultiDiffusion(window=15, hop=10, steps=2)):
        model.sampler = sampler
        assert model.generate(["a dog"], duration_s=1.0).shape == (1, 1, 1000)


def test_segments_have_the_frames_of_the_whole_and_captions_of_their_own():
    model = make_model(max_frames=15)
    model.sampler = MultiDiffusion(window=15, hop=10, steps=2, guidance_scale=2.0)
    given = a_batch(video=a_video(num_frames=16), fps=torch.tensor([8.0, 16.0]), latents=torch.randn(2, 4, 25))
    given.extras["context_mask"] = torch.zeros(2, 25, dtype=torch.bool)
    whole = model._variant(given, frozenset())
    make = model.sampling_conditions(given, 25)
    for number, window in enumerate(model.sampler.segments(25)):
        told, _ = make(number, window)
        torch.testing.assert_close(told.aligned, whole.aligned[:, window.start : window.stop])
        torch.testing.assert_close(told.context, whole.context)
    captions = [["a dog", "rain", "wind"]] * 2
    one = model.generate(["a dog"] * 2, duration_s=1.0, segment_captions=captions)
    assert not torch.equal(one, model.generate(["a dog"] * 2, duration_s=1.0))
    with pytest.raises(UsageError, match="2 captions were given for the segments"):
        model.generate(["a dog"] * 2, duration_s=1.0, segment_captions=[["a dog", "rain"]] * 2)


def test_a_sample_without_captions_of_segments_has_its_own_in_all_of_them():
    model = make_model(max_frames=15)
    model.sampler = MultiDiffusion(window=15, hop=10, steps=2)
    told = {"duration_s": 1.0, "segment_captions": ["a bell", "rain", "wind"]}
    both = model.predict_step(a_batch(metadata=[told, {"duration_s": 1.0}]), 0)["latents"]
    neither = model.predict_step(a_batch(metadata=[{"duration_s": 1.0}] * 2), 0)["latents"]
    assert not torch.allclose(both[0], neither[0])
    torch.testing.assert_close(both[1], neither[1])


def test_captions_of_segments_are_honoured_or_refused_where_the_sampler_makes_one_segment(model):
    captions = [["a bell"], ["rain"]]
    torch.testing.assert_close(model.generate(["", ""], segment_captions=captions), model.generate(["a bell", "rain"]))
    with pytest.raises(UsageError, match="2 captions were given for the segments"):
        model.generate([""], segment_captions=[["a bell", "rain"]])


@pytest.mark.parametrize("wrong", ["rain", [1, 2, 3], {"a": 1}, 5])
def test_captions_of_segments_that_are_no_texts_are_refused(model, wrong):
    with pytest.raises(UsageError, match="it is a list of texts"):
        model.predict_step(a_batch(metadata=[{"segment_captions": wrong}] * 2), 0)


def test_prompts_for_nothing_are_refused(model):
    with pytest.raises(UsageError, match="'y' was given with neither a video nor a caption"):
        model.predict_step(a_batch(captions=["a dog", "  "]), 0)
    model.predict_step(a_batch(captions=["", ""], video=a_video(), fps=torch.tensor([8.0, 8.0])), 0)
    with pytest.raises(UsageError, match="one of video and fps"):
        model.generate([""], video=a_video(1))


# -- candidates --------------------------------------------------------------------------------------------------------------------


def test_noise_depends_on_seed_and_key_alone(model):
    both = model.generate(["a dog", "a bell"], keys=["x", "y"])
    torch.testing.assert_close(model.generate(["a bell"], keys=["y"]), both[1:])
    assert not torch.allclose(both[1:], make_model(seed=1).generate(["a bell"], keys=["y"]))


def test_a_scorer_also_tells_of_the_only_candidate():
    assert make_model(scorer=Loudness()).predict_step(a_batch(), 0)["scores"].shape == (2, 1)


def test_the_loudest_of_three_candidates_is_kept(model):
    scorer = Loudness()
    several = make_model(num_candidates=3, scorer=scorer)
    made = several.predict_step(a_batch(), 0)
    assert len(scorer.seen) == 3 and made["scores"].shape == (2, 3)
    stacked = torch.stack(scorer.seen)
    assert torch.equal(stacked[0], model.predict_step(a_batch(), 0)["audio"]), "the first candidate is what one alone would be"
    assert all(not torch.equal(stacked[i], stacked[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    chosen = made["scores"].argmax(1)
    for sample in range(2):
        assert torch.equal(made["audio"][sample], stacked[chosen[sample], sample])
        decoded = several.decode(made["latents"][sample : sample + 1], 500)[0]
        assert torch.equal(decoded, made["audio"][sample])
    again = make_model(num_candidates=3, scorer=Loudness()).predict_step(a_batch(captions=["a bell"], keys=["y"]), 0)
    torch.testing.assert_close(again["audio"], made["audio"][1:])
    torch.testing.assert_close(again["scores"], made["scores"][1:])


# -- what is refused ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{"num_candidates": 2}, {"num_candidates": 0}, {"duration_s": 0.0}, {"duration_s": float("nan")}])
def test_settings_that_make_no_sense_are_refused(given):
    with pytest.raises(UsageError, match="a duration of" if "duration_s" in given else "num_candidates"):
        make_model(**given)


@pytest.mark.parametrize("wrong", [-1.0, 0.0, float("nan"), float("inf")])
def test_durations_and_rates_that_are_none_are_refused(model, wrong):
    with pytest.raises(UsageError, match="a duration of"):
        model.generate(["a dog"], duration_s=wrong)
    with pytest.raises(UsageError, match="frames per second was given"):
        model.generate(["a dog"], video=a_video(1), fps=wrong)


@pytest.mark.parametrize("wrong", [0, -1, "0", "soon", [1], True, float("nan"), 1e12])
def test_a_duration_in_the_metadata_is_honoured_or_refused(model, wrong):
    with pytest.raises(UsageError, match="a duration of|it is a number of seconds"):
        model.predict_step(a_batch(metadata=[{"duration_s": wrong}, {}]), 0)


def test_a_duration_in_the_metadata_may_be_text_or_absent(model):
    made = model.predict_step(a_batch(metadata=[{"duration_s": "0.3"}, {"duration_s": None}]), 0)
    assert [sound.shape[1] for sound in made["audio"]] == [300, 500]


@pytest.mark.parametrize("seconds", [1e12, 1e300])
def test_a_sound_that_no_memory_holds_is_refused(seconds):
    with pytest.raises(UsageError, match="longer than a day"):
        make_model(duration_s=seconds)
    model = make_model(duration_s=80000.0)
    with pytest.raises(UsageError, match="2000000 latent frames"):
        model.generate(["a dog"])


def test_candidates_by_synchrony_need_a_video():
    model = make_model(num_candidates=2, scorer=OnsetSyncScorer())
    assert model.predict_step(a_batch(video=a_video(), fps=torch.tensor([10.0, 10.0])), 0)["scores"].shape == (2, 2)
    with pytest.raises(UsageError, match="OnsetSyncScorer"):
        model.predict_step(a_batch(), 0)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"captions": "ab"}, "captions='ab'"),
        ({"captions": []}, r"captions=\[\]"),
        ({"captions": [None]}, "captions="),
        ({"captions": ["a"], "video": a_video(), "fps": 8.0}, "video of shape"),
        ({"captions": ["a"] * 3, "video": a_video(), "fps": 8.0}, "video of shape"),
        ({"captions": ["a"] * 2, "video": a_video()[:, :1], "fps": 8.0}, "video of shape"),
        ({"captions": ["a"] * 2, "video": a_video()[0], "fps": 8.0}, "video of shape"),
        ({"captions": ["a"] * 2, "video": a_video().to(torch.uint8), "fps": 8.0}, "video of shape .* and type torch.uint8"),
        ({"captions": ["a"] * 2, "video": a_video() * torch.nan, "fps": 8.0}, "video of shape .* numbers"),
        ({"captions": ["a"] * 2, "video": a_video(), "fps": [8.0] * 3}, "fps of shape"),
        ({"captions": ["a", "b"], "keys": ["x"]}, "1 keys were given for 2 captions"),
        ({"captions": ["a", "b"], "segment_captions": [["x"]]}, "there are 2 sounds"),
        ({"captions": ["a"], "segment_captions": ["x"]}, "there are 1 sounds"),
    ],
)
def test_what_is_not_one_for_each_sound_is_refused(model, given, told):
    with pytest.raises(UsageError, match=told):
        model.generate(**given)


@pytest.mark.parametrize(
    ("extras", "told"),
    [
        ({"visual_features": torch.randn(6, 4), "visual_fps": torch.full((2,), 8.0)}, "visual_features of shape"),
        ({"visual_features": torch.randn(1, 6, 4), "visual_fps": torch.full((2,), 8.0)}, "visual_features of shape"),
        ({"visual_features": torch.randn(2, 6, 4) * torch.nan, "visual_fps": torch.full((2,), 8.0)}, "visual_features of shape"),
        ({"visual_features": torch.randn(2, 6, 4), "visual_fps": torch.tensor(8.0)}, "visual_fps of shape"),
        ({"visual_features": torch.randn(2, 6, 4), "visual_fps": torch.full((1,), 8.0)}, "visual_fps of shape"),
        ({"context_mask": torch.zeros(13, dtype=torch.bool)}, "context_mask of shape"),
        ({"context_mask": torch.zeros(2, 13)}, "context_mask of shape .* and type torch.float32"),
    ],
)
def test_extras_of_another_form_are_refused(model, extras, told):
    with pytest.raises(UsageError, match=told):
        model.predict_step(a_batch(audio=a_sound(), audio_hz=HZ, extras=extras), 0)


def test_cached_latents_are_as_long_as_the_sound_that_they_were_made_of(model):
    metadata = [{"duration_s": 60.0, "encoded": {"audio_hz": 2 * HZ, "samples": 640}}, {"duration_s": 60.0}]
    made = model.predict_step(a_batch(latents=torch.randn(2, 4, 8), metadata=metadata), 0)
    assert [sound.shape[1] for sound in made["audio"]] == [320, 500]


# -- around it ---------------------------------------------------------------------------------------------------------------------


def test_sizes_for_the_planner(model):
    autoencoder = MeansAutoencoder()
    assert model.sample_shape(autoencoder) == (4, 13)
    for data, shapes in (
        (SimpleNamespace(durations=[1.0, 2.0]), [(4, 25), (4, 50)]),
        (SimpleNamespace(num_frames=16, fps=8.0), [(4, 50)]),
        (SimpleNamespace(), []),
    ):
        assert model.training_shapes(autoencoder, data) == shapes


def test_a_training_that_cannot_fit_is_refused_by_the_datas_durations(monkeypatch):
    model = make_model()
    with torch.device("meta"):
        model.backbone = model.factories[0]()
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.state.fn = TrainerFn.FITTING
    told = {"strategy": trainer.strategy, "state": trainer.state, "precision": trainer.precision, "num_devices": 1}

    def run(**data):
        return SimpleNamespace(**told, accumulate_grad_batches=1, datamodule=SimpleNamespace(batch_size=4, **data))

    check_run(model, run(durations=[1.0]))
    seen = []
    with monkeypatch.context() as patch:
        patch.setattr("moviegen_core.parallel.planner.checking.check_memory", lambda *_, **told: seen.append(told["latent_shape"]))
        check_run(model, run(durations=[30.0, 0.1]))
    assert seen == [(4, 750)]
    monkeypatch.setattr("moviegen_core.parallel.planner.checking._memory_of", lambda device: 1000)
    with pytest.raises(UsageError, match="micro-batch 4"):
        check_run(model, run(durations=[1.0]))
    with pytest.warns(UserWarning, match="may run out"):
        check_run(model, run())


@pytest.mark.filterwarnings("ignore:Couldn't infer the batch indices")
def test_predictions_are_written_as_wav_and_as_mp4_with_sound(tmp_path):
    model = make_model()
    batches = [a_batch(video=a_video(num_frames=16).repeat(1, 1, 1, 4, 4), fps=torch.tensor([32.0, 32.0]))]
    writer = PredictionWriter(output=str(tmp_path), formats=["wav", "mp4"])
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[writer], enable_progress_bar=False, enable_model_summary=False)
    trainer.predict(model, DataLoader(batches, batch_size=None))
    with wave.open(str(tmp_path / "x.wav")) as file:
        assert (file.getframerate(), file.getnframes()) == (HZ, 500)
    with av.open(str(tmp_path / "y.mp4")) as container:
        assert len(container.streams.video) == len(container.streams.audio) == 1
    assert json.loads((tmp_path / "x.json").read_text())["audio_samples"] == 500
