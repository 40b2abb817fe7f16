"""The data modules as YAML sees them."""

import pytest
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

import moviegen_data
from moviegen_data import Bucket, ImageMix, PromptData, ShardData, Source


def _parse(text):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    config = parser.parse_object({"data": yaml.safe_load(text)})
    again = parser.parse_string(parser.dump(config))
    assert again.data == config.data
    return parser.instantiate_classes(config).data


def test_shard_data():
    data = _parse("""
        class_path: moviegen_data.ShardData
        init_args:
          urls:
            - {urls: a, weight: 2.0}
            - {urls: [b, c], weight: 1.0}
          images: {urls: pictures, by: batch, images: 1, videos: 3}
          buckets:
            - {num_frames: 16, height: 64, width: 64, fps: 16, max_fps: 24, min_s: 1}
          batch_size: 2
    """)
    assert isinstance(data, ShardData)
    assert data.urls == [Source("a", 2.0), Source(["b", "c"], 1.0)]
    assert data.images == ImageMix("pictures", by="batch", images=1, videos=3)
    assert data.buckets == [Bucket(num_frames=16, height=64, width=64, fps=16, max_fps=24, min_s=1)]


@pytest.mark.parametrize("urls", ["shards", ["a", "b"]])
def test_plain_urls(urls):
    assert _parse(f"{{class_path: moviegen_data.ShardData, init_args: {{urls: {urls}, val_urls: v}}}}").urls == urls


def test_prompt_data():
    data = _parse("{class_path: moviegen_data.PromptData, init_args: {prompts: [a cat], fps: 16, camera_motion: zoom in}}")
    assert isinstance(data, PromptData) and data.captions == ["FPS-16 zoom in. a cat"]


def test_every_public_name_is_there():
    for name in moviegen_data.__all__:
        assert getattr(moviegen_data, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = moviegen_data.nothing
