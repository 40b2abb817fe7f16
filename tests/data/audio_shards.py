"""Shards of sounds that tell where they come from, and the data module that reads them."""

import numpy as np
import torch

from moviegen_data.audio_data import AudioData
from moviegen_data.shards import ShardWriter
from moviegen_data.tensors import visual_bytes

HZ = 8000


def sound_shards_in(tmp_path, media_maker):
    """Sounds whose value tells sample and second: sample n is n/100 + second/1000; or films with such a sound, and other parts."""

    def make(name="sounds", *, seconds=(3.0,) * 6, film=False, features=False, records=None, max_samples=4):
        folder = tmp_path / name
        with ShardWriter(folder, max_samples=max_samples) as writer:
            for number, length in enumerate(seconds):
                time = np.arange(round(length * HZ)) / HZ
                wave = (number / 100 + np.floor(time) / 1000)[None]
                record = {"caption": f"{name} {number}", **({} if records is None else records[number])}
                if film:
                    frames = media_maker.grey_steps(round(length * 10), step=5)
                    form = {"container": "matroska", "codec": "pcm_s16le", "frames": frames}
                    parts = {"mkv": media_maker.encode_sound(wave, HZ, **form)}
                else:
                    parts = {"wav": media_maker.encode_sound(wave, HZ)}
                if features:
                    rows = torch.arange(round(length * 10)).float()[:, None].expand(-1, 4)
                    parts["visual.safetensors"] = visual_bytes(rows, 10.0)
                writer.write(f"{name}-{number:03d}", {"json": record, **parts})
        return folder

    return make


def data(urls, **settings):
    urls = urls if isinstance(urls, list) else str(urls)
    return AudioData(urls=urls, **{"durations": [1.0], "audio_hz": HZ, "batch_size": 2, "fps": 10.0, "height": 16, "width": 16, **settings})
