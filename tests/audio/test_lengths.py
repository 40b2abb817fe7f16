"""How long sounds are, by the data modules themselves."""

import pytest
import torch

from moviegen_audio import SyntheticSounds
from moviegen_audio.lengths import durations_of
from moviegen_core.media.sound import wav_bytes
from moviegen_data.audio_data import AudioData
from moviegen_data.datamodule import ShardData
from moviegen_data.shards import ShardWriter
from moviegen_data.tensors import latent_bytes
from moviegen_data.toyworld import ToyWorldData


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    with ShardWriter(folder) as writer:
        parts = {"wav": wav_bytes(torch.zeros(1, 8000), 8000), "latent.safetensors": latent_bytes(torch.zeros(2, 25))}
        writer.write("a", {"json": {"caption": ""}, **parts})
    return str(folder)


def test_every_data_module_says_how_long_its_sounds_are(shards):
    """The modules themselves: the planner sizes a training by what they say, and lets pass what says too little."""
    assert durations_of(AudioData(urls=shards, durations=[10, 30])) == [10.0, 30.0]
    assert durations_of(AudioData(urls=shards, durations=[2.0], video=True, fps=5.0)) == [2.0]
    assert durations_of(AudioData(urls=shards, latents=True)) == []
    assert durations_of(SyntheticSounds(duration_s=0.5)) == [0.5]
    assert durations_of(ToyWorldData(num_frames=16, fps=8.0, audio_hz=8000)) == [2.0]
    assert durations_of(ShardData(urls=shards, num_frames=12, height=8, width=8, fps=24.0)) == [0.5]
