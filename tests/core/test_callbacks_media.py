"""Samples and reconstructions on TensorBoard, read back from its event files."""

import io
import warnings
import wave
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from moviegen_core.autoencoder import AudioAutoencoder
from moviegen_core.batch import MediaBatch
from moviegen_core.callbacks.ema import ExponentialMovingAverage
from moviegen_core.callbacks.media import ReconstructionLogger, SampleLogger
from moviegen_core.media.sound import frequency_of_row

NUM_FRAMES = 6


def moving_square(num_frames=NUM_FRAMES, size=32):
    video = -torch.ones(3, num_frames, size, size)
    for t in range(num_frames):
        video[0, t, 8:16, 2 + 3 * t : 10 + 3 * t] = 1.0
    return video


class Generator(LightningModule):
    """Generates a square whose red is the weight; draws from the random state as a sampler may."""

    fps = 12.0

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.0))
        self.frozen = torch.nn.Dropout().eval()
        self.calls = []
        self.losses = []

    def generate(self, captions):
        self.calls.append((list(captions), float(self.weight), self.training, self.trainer.global_step))
        torch.rand(5)
        return torch.stack([moving_square() for _ in captions])

    def encode(self, video):
        return video.mean(dim=(3, 4), keepdim=True)

    def decode(self, latents, *, num_frames):
        return latents.expand(-1, -1, num_frames, 32, 32)

    def training_step(self, batch, batch_idx):
        loss = (self.weight - torch.rand(())).square()
        self.losses.append(loss.item())
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.weight.detach() + 0.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Singer(Generator):
    """Generates sound."""

    audio_hz = 8000

    def generate(self, captions):
        return torch.sin(torch.arange(4000) * 0.5).expand(len(captions), 2, -1)


def batches(num):
    video = moving_square()[None].repeat(2, 1, 1, 1, 1)
    names = [(f"prompt {i} of `a` <b>red</b> square", f"key{i}") for i in range(2)]
    captions, keys = (list(column) for column in zip(*names, strict=True))
    return [MediaBatch(captions=captions, keys=keys, video=video, fps=torch.tensor([8.0, 8.0])) for _ in range(num)]


def run(tmp_path, callbacks, *, model=None, logger=None, data=batches, **options):
    torch.manual_seed(0)
    model = model or Generator()
    options = {"max_epochs": 1, "val_check_interval": 4, "log_every_n_steps": 1} | options
    trainer = Trainer(
        accelerator="cpu",
        callbacks=callbacks,
        default_root_dir=tmp_path,
        logger=TensorBoardLogger(tmp_path, name="", version="") if logger is None else logger,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        **options,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, DataLoader(list(data(8)), batch_size=None), DataLoader(list(data(1)), batch_size=None))
    return model


def events(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "audio": 0, "scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def test_scalars_videos_images_and_text_are_in_the_event_file(tmp_path):
    run(tmp_path, [SampleLogger(num_samples=2), ReconstructionLogger(num_samples=1)])
    read = events(tmp_path)
    tags = read.Tags()
    assert {"train_loss", "val_loss"} <= set(tags["scalars"])
    expected = {"samples/0", "samples/1", "samples/strips", "reconstructions/0", "reconstructions/strips"}
    assert set(tags["images"]) == expected

    shown = read.Images("samples/0")
    assert [event.step for event in shown] == [4, 8]
    animation = Image.open(io.BytesIO(shown[0].encoded_image_string))
    assert (animation.format, animation.n_frames, animation.size, animation.info["loop"]) == ("GIF", NUM_FRAMES, (32, 32), 0)
    durations = []
    for t in range(NUM_FRAMES):
        animation.seek(t)
        durations.append(animation.info["duration"])
        frame = np.asarray(animation.convert("RGB")).astype(float) / 127.5 - 1.0
        assert np.abs(frame - moving_square()[:, t].permute(1, 2, 0).numpy()).max() < 0.1
    assert sum(durations) == 500, "6 frames at 12 per second"

    reconstruction = Image.open(io.BytesIO(read.Images("reconstructions/0")[0].encoded_image_string))
    assert reconstruction.size == (32, 64), "input above output"
    strips = Image.open(io.BytesIO(read.Images("samples/strips")[0].encoded_image_string))
    assert strips.format == "PNG" and strips.width >= 6 * 32
    (text,) = [
        read.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in tags["tensors"] if "captions" in tag and "samples" in tag
    ]
    assert "prompt 1 of 'a' <b>red</b> square" in text


def test_sounds_and_their_spectrograms(tmp_path):
    run(tmp_path, [SampleLogger(prompts=["a whistle"])], model=Singer())
    read = events(tmp_path)
    assert read.Tags()["audio"] == ["samples/0"]
    (event, *_) = read.Audio("samples/0")
    assert event.sample_rate == 8000
    with wave.open(io.BytesIO(event.encoded_audio_string)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 8000, 4000)
        samples = np.frombuffer(file.readframes(4000), dtype="<i2").reshape(-1, 2) / 32767
    assert np.abs(samples[:, 0] - np.sin(np.arange(4000) * 0.5)).max() < 1e-4
    picture = np.asarray(Image.open(io.BytesIO(read.Images("samples/0/spectrogram")[0].encoded_image_string)))
    loudest = picture.shape[0] - 1 - picture.astype(float).mean(1).argmax()
    assert frequency_of_row(loudest, picture.shape[0], 8000, "mel") == pytest.approx(0.5 / (2 * np.pi) * 8000, rel=0.02)
    drawn = np.asarray(Image.open(io.BytesIO(read.Images("samples/0/waveform")[0].encoded_image_string)))
    assert drawn.shape == (240, 800) and (drawn == 0).mean() > 0.5, "a tone at full scale reaches over both bands"


class Broken(Singer):
    """Its samples are no numbers."""

    def generate(self, captions):
        return super().generate(captions) * float("nan")


def test_sounds_that_are_not_finite_are_left_out_with_a_warning(tmp_path, caplog):
    run(tmp_path, [SampleLogger(prompts=["a whistle"])], model=Broken())
    assert events(tmp_path).Tags()["audio"] == []
    assert "samples/0 at step 4 holds NaN" in caplog.text


class Halving(AudioAutoencoder):
    """Gives back half of what it is given."""

    def __init__(self):
        super().__init__(latent_channels=10, sample_rate=8000, hop_length=10)
        self.weight = torch.nn.Parameter(torch.tensor(0.5))

    def encode_raw(self, media, *, sample=False):
        return media.reshape(len(media), -1, 10).movedim(2, 1) * self.weight

    def decode_raw(self, latent):
        return latent.movedim(1, 2).reshape(len(latent), 1, -1)

    def training_step(self, batch, batch_idx):
        return self.decode(self.encode(batch.audio)).square().mean() * 0.0

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.weight.detach() + 0.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Foley(Halving):
    """Predicts a sound for the video and the captions of a batch."""

    def predict_step(self, batch, batch_idx):
        tones = torch.sin(torch.arange(4000) * 0.5).expand(len(batch), 1, -1) * batch.video.amax((1, 2, 3, 4))[:, None, None]
        return {"keys": batch.keys, "captions": batch.captions, "audio": tones, "audio_hz": 8000, "metadata": batch.metadata}


def sound_batches(num):
    for batch in batches(num):
        yield replace(batch, audio=torch.sin(torch.arange(3999) * 0.5).expand(2, 1, -1), audio_hz=8000)


def heard(read, tag):
    with wave.open(io.BytesIO(read.Audio(tag)[0].encoded_audio_string)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2") / 32767


def test_reconstructed_sounds(tmp_path):
    run(tmp_path, [ReconstructionLogger(num_samples=1)], model=Halving(), data=sound_batches)
    read = events(tmp_path)
    assert set(read.Tags()["audio"]) == {"reconstructions/input/0", "reconstructions/output/0"}
    given, made = heard(read, "reconstructions/input/0"), heard(read, "reconstructions/output/0")
    assert len(given) == len(made) == 3999 and np.abs(given / 2 - made).max() < 1e-4
    assert {f"reconstructions/{name}/0/{kind}" for name in ("input", "output") for kind in ("waveform", "spectrogram")} == set(
        read.Tags()["images"]
    )
    model = Halving()
    model.training_step = lambda batch, batch_idx: model.weight.square()
    with pytest.raises(ValueError, match="sounds in the validation batches would be needed"):
        run(tmp_path / "mute", [ReconstructionLogger()], model=model)


def test_samples_for_whole_batches(tmp_path):
    run(tmp_path, [SampleLogger(from_batch=True, num_samples=1)], model=Foley(), data=sound_batches)
    read = events(tmp_path)
    assert set(read.Tags()["audio"]) == {"samples/0"} and {"samples/0", "samples/strips"} <= set(read.Tags()["images"])
    assert np.abs(heard(read, "samples/0") - np.sin(np.arange(4000) * 0.5)).max() < 1e-4
    with pytest.raises(ValueError, match="from_batch: true with prompts"):
        run(tmp_path / "both", [SampleLogger(from_batch=True, prompts=["one"])], model=Foley(), data=sound_batches)


def test_prompts_by_steps_with_averaged_weights_in_evaluation_mode(tmp_path):
    ema = ExponentialMovingAverage(decay=0.9, warmup=False)
    averages = {}

    class Keep(Callback):
        def on_train_batch_end(self, trainer, *_):
            averages[trainer.global_step] = float(ema.averages["weight"])

    model = run(tmp_path, [ema, Keep(), SampleLogger(prompts=["one", "two", "three"], num_samples=2, every_n_steps=3)])
    assert [(captions, step) for captions, _, _, step in model.calls] == [(["one", "two"], 3), (["one", "two"], 6)]
    assert [weight for _, weight, _, _ in model.calls] == [averages[3], averages[6]]
    assert not any(training for _, _, training, _ in model.calls)
    assert model.training and not model.frozen.training


def test_training_is_the_same_with_and_without(tmp_path):
    callbacks = [SampleLogger(prompts=["one"], every_n_steps=2), ReconstructionLogger()]
    assert run(tmp_path / "with", callbacks).losses == run(tmp_path / "without", []).losses


def test_large_videos_are_shrunk(tmp_path):
    run(tmp_path, [SampleLogger(max_px=16, num_samples=1)])
    animation = Image.open(io.BytesIO(events(tmp_path).Images("samples/0")[0].encoded_image_string))
    assert animation.size == (16, 16)


def test_runs_without_any_logger_are_left_alone(tmp_path):
    assert run(tmp_path, [SampleLogger(), ReconstructionLogger()], logger=False).calls == []
    assert run(tmp_path, [SampleLogger(), ReconstructionLogger()], fast_dev_run=True).calls == []


def test_a_logger_that_cannot_show_media_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"SampleLogger was given with CSVLogger.*TensorBoardLogger.*add it to `trainer.logger`"):
        run(tmp_path, [SampleLogger()], logger=CSVLogger(tmp_path))


def test_a_model_that_cannot_generate_is_refused(tmp_path):
    class Mute(Generator):
        generate = None

    with pytest.raises(ValueError, match=r"Mute.*`generate\(captions\)`.*remove the callback"):
        run(tmp_path, [SampleLogger()], model=Mute())


def test_steps_without_prompts_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"every_n_steps=5 and no prompts.*give `prompts`"):
        run(tmp_path, [SampleLogger(every_n_steps=5)])


@pytest.mark.parametrize("wrong", [{"num_samples": 0}, {"max_px": 0}])
def test_refuses_wrong_numbers(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SampleLogger(**wrong)
