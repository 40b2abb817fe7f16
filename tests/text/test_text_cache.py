"""The text cache: what the encoders make of captions, in the shards, in place of the encoders."""

import json
import shutil
import warnings

import pytest
import torch
from lightning.pytorch import Trainer
from safetensors.torch import load_file, save_file

from moviegen_core.errors import UsageError
from moviegen_data.caption_data import CaptionData
from moviegen_data.datamodule import ShardData
from moviegen_data.reader import ShardReader
from moviegen_data.shards import ShardWriter, safetensors_header
from moviegen_data.tensors import latent_bytes
from moviegen_data.texts import TextShardWriter
from moviegen_text.embedded import HashedWordConditioner
from moviegen_text.encoding import TextEncoding
from moviegen_text.fingerprint import fingerprint
from moviegen_text.t5 import ByT5Conditioner, T5Conditioner

CAPTIONS = ["a red ball moves to the left", "a blue square", 'a sign that says "left"', "", "a ball and a square and a ball"]


@pytest.fixture
def shards(tmp_path):
    with ShardWriter(tmp_path / "latents", max_samples=2) as writer:
        for number, caption in enumerate(CAPTIONS):
            record = {"caption": caption, "encoded": {"frames": 16, "height": 16, "width": 16, "fps": 16.0}, "note": number}
            latent = latent_bytes(torch.full((2, 1, 2, 2), float(number)), {"encoder": "abc"})
            writer.write(f"k{number}", {"json": record, "latent.safetensors": latent})
    return str(tmp_path / "latents")


def encoding(t5, byt5):
    return TextEncoding(
        encoders={
            "t5": lambda width: T5Conditioner(width, pretrained=str(t5)),
            "b": lambda width: ByT5Conditioner(width, pretrained=str(byt5)),
        }
    )


def cache(model, shards, output, **settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    writer = TextShardWriter(output=str(output), **{"dtype": "fp32", "max_samples": 2, **settings})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = CaptionData(urls=shards, fps_prefix=True, batch_size=3)
        Trainer(accelerator="cpu", callbacks=[writer], **quiet).predict(model, data, return_predictions=False)


def test_embeddings_take_the_encoders_place(shards, tmp_path, t5, byt5):
    model = encoding(t5, byt5)
    cache(model, shards, tmp_path / "cache")
    before, after = ShardReader(shards), ShardReader(str(tmp_path / "cache"))
    assert len(after) == 5
    for number in range(5):
        assert all(after[number][part] == before[number][part] for part in before[number]), "other parts are as they were"
    told = safetensors_header(after[0]["text.safetensors"])[0]["__metadata__"]
    origins = {"encoder": model.checksums(), "files": model.fingerprints()}
    assert (
        told == {f"{name}.{kind}": text for kind, texts in origins.items() for name, text in texts.items()} and len(set(told.values())) == 4
    )
    batch = next(iter(ShardData(urls=str(tmp_path / "cache"), latents=True, text=True, fps_prefix=True, batch_size=5).train_dataloader()))
    assert batch.text.keys() == {"t5", "byt5"}
    for conditioner in (T5Conditioner(8, pretrained=str(t5)), ByT5Conditioner(8, pretrained=str(byt5))):
        cached = conditioner(batch)
        assert not conditioner._frozen.is_loaded, "the encoder did not run"
        batch.text.pop(conditioner.cache_name)
        fresh = conditioner(batch)
        torch.testing.assert_close(cached.context_mask, fresh.context_mask)
        torch.testing.assert_close(cached.context[cached.context_mask], fresh.context[fresh.context_mask], atol=1e-5, rtol=1e-5)


def test_an_interrupted_cache_goes_on(shards, tmp_path, t5, byt5, monkeypatch):
    model, count, step = encoding(t5, byt5), [0], TextEncoding.predict_step
    cache(model, shards, tmp_path / "whole")

    def failing(model, batch, batch_idx):
        count[0] += 1
        if count[0] == 2:
            raise RuntimeError("interrupted")
        return step(model, batch, batch_idx)

    monkeypatch.setattr(TextEncoding, "predict_step", failing)
    with pytest.raises(RuntimeError, match="interrupted"):
        cache(model, shards, tmp_path / "cache")
    cache(model, shards, tmp_path / "cache")
    names = [path.name for path in sorted((tmp_path / "whole").iterdir())]
    assert [path.name for path in sorted((tmp_path / "cache").iterdir())] == names
    assert all((tmp_path / "cache" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in names)


def test_what_cannot_be_cached(shards, tmp_path, t5):
    with pytest.raises(ValueError, match="encoder words=HashedWordConditioner was given.*only frozen encoders can be cached"):
        TextEncoding(encoders={"words": lambda width: HashedWordConditioner(width)})
    with pytest.raises(ValueError, match="another has its cache_name 't5'"):
        TextEncoding(encoders={name: lambda width: T5Conditioner(width, pretrained=str(t5)) for name in "ab"})
    with pytest.raises(ValueError, match="there are bf16, fp16, fp32"):
        TextShardWriter(output=str(tmp_path), dtype="int8")


def with_other_weights(folder, target):
    """The same model with one weight changed a little."""
    shutil.copytree(folder, target)
    path = target / "model.safetensors"
    tensors = load_file(path)
    name = max(tensors, key=lambda name: tensors[name].numel())
    tensors[name] = tensors[name] + 1e-3
    save_file(tensors, path, metadata={"format": "pt"})
    return target


def test_embeddings_of_another_encoder_are_refused(shards, tmp_path, t5, byt5):
    cache(encoding(t5, byt5), shards, tmp_path / "cache")
    batch = next(iter(ShardData(urls=str(tmp_path / "cache"), latents=True, text=True, batch_size=5).train_dataloader()))
    shutil.copytree(t5, tmp_path / "moved")
    config = json.loads((tmp_path / "moved/config.json").read_text())
    (tmp_path / "moved/config.json").write_text(json.dumps({**config, "transformers_version": "0.0", "_name_or_path": "elsewhere"}))
    for settings in ({}, {"precomputed_only": True}, {"dtype": "bfloat16"}):
        conditioner = T5Conditioner(8, pretrained=str(tmp_path / "moved"), **settings)
        conditioner(batch)
        assert not conditioner._frozen.is_loaded
    other = with_other_weights(t5, tmp_path / "other")
    for pretrained, settings in ((other, {}), (other, {"precomputed_only": True}), (t5, {"max_tokens": 7})):
        conditioner = T5Conditioner(8, pretrained=str(pretrained), **settings)
        with pytest.raises(UsageError, match=r"embeddings 't5' of 'k\d' come from the encoder \w{12}; T5Conditioner of .* is \w{12}; give"):
            conditioner(batch)
        assert not conditioner._frozen.is_loaded
    for record in batch.metadata:  # as the caches of earlier versions, and of other programs
        record["text_embeddings"].pop("t5.files")
    conditioner(batch)


def test_fingerprints_see_all_of_a_large_file(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    content = bytearray(3_000_000)
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    seen = {fingerprint(str(tmp_path)), fingerprint(str(tmp_path), "setting")}
    for place in (0, 1_500_000, len(content) - 1):
        changed = content.copy()
        for at in range(max(0, place - 8192), min(len(content), place + 8192)):
            changed[at] = 1
        path.write_bytes(changed)
        seen.add(fingerprint(str(tmp_path)))
    assert None not in seen and len(seen) == 5 and fingerprint(str(tmp_path / "nowhere")) is None


def test_a_config_without_weights_refuses_no_embeddings(shards, tmp_path, t5, byt5):
    cache(encoding(t5, byt5), shards, tmp_path / "cache")
    batch = next(iter(ShardData(urls=str(tmp_path / "cache"), latents=True, text=True, batch_size=5).train_dataloader()))
    (tmp_path / "config").mkdir()
    shutil.copy(t5 / "config.json", tmp_path / "config")  # all that a name on the hub leaves in a cache when its width is asked for
    conditioner = T5Conditioner(8, pretrained=str(tmp_path / "config"), precomputed_only=True)
    assert conditioner.fingerprint is None and conditioner(batch).context is not None


def test_fingerprints_have_the_tokenizer_and_no_files_of_others(tmp_path, t5, monkeypatch):
    folder = shutil.copytree(t5, tmp_path / "t5")
    whole = fingerprint(str(folder))
    save_file({"tokens": torch.zeros(1, 1, 16)}, folder / "null.safetensors")
    assert fingerprint(str(folder)) == whole, "an embedding of the empty prompt was laid beside the encoder"
    expected = T5Conditioner(8, pretrained=str(folder)).fingerprint
    (folder / "tokenizer.json").rename(tmp_path / "on the hub")

    def downloaded(conditioner):
        shutil.copy(tmp_path / "on the hub", folder / "tokenizer.json")

    monkeypatch.setattr(T5Conditioner, "tokenizer", property(downloaded))
    model = TextEncoding(encoders={"t5": lambda width: T5Conditioner(width, pretrained=str(folder))})
    assert model.fingerprints() == {"t5": expected}
