"""Captions by a tiny random vision-language model, saved and loaded the way real ones are."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from moviegen_core.errors import UsageError
from moviegen_data.curation import Clip, Media
from moviegen_data.curation.stages.model_captions import ModelCaptions

TEMPLATE = (
    "{% for message in messages %}<start>{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
)


@pytest.fixture(scope="module")
def llava(tmp_path_factory, tokenizer):
    """A whole LLaVA with two layers each of sight and of words; four patches a picture."""
    folder = tmp_path_factory.mktemp("llava")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**sizes, image_size=32, patch_size=16),
        text_config=LlamaConfig(
            **sizes, num_key_value_heads=2, vocab_size=len(tokenizer), max_position_embeddings=2048,
            bos_token_id=4, eos_token_id=1, pad_token_id=0,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), image_seq_length=4,
    )  # fmt: skip
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}), tokenizer,
        patch_size=16, vision_feature_select_strategy="default", chat_template=TEMPLATE, num_additional_image_tokens=1,
    )  # fmt: skip
    processor.save_pretrained(folder)
    return folder


def stage_of(folder, **settings):
    return ModelCaptions(path=str(folder), **{"dtype": "float32", "device": "cpu", "num_frames": 3, "max_tokens": 12, **settings})


def test_clips_are_captioned_in_batches_and_alone(llava, tmp_path, make_film):
    media = [Media(make_film(tmp_path / f"{number}.mp4", seed=number)) for number in range(3)]
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / "3.png")
    media.append(Media(tmp_path / "3.png"))  # one picture beside three of each film
    clips = [Clip(key=f"clip-{number}", source=medium.path.name) for number, medium in enumerate(media)]
    stage = stage_of(llava)
    together = stage.apply_batch(clips, media)
    alone = [pickle.loads(pickle.dumps(stage)).apply(clip, medium) for clip, medium in zip(clips, media, strict=True)]
    assert [clip.caption for clip in together] == [clip.caption for clip in alone]
    assert all(clip.drop is None and 3 <= clip.scores["caption_words"] <= 12 for clip in together)
    assert together[0].annotations["captioner"] == llava.name


def test_it_is_the_models_own_answer(llava, tmp_path, make_film):
    """Against the library's own calls, written out."""
    from moviegen_data.stills import read_stills

    path = make_film(tmp_path / "0.mp4", seed=5)
    found = stage_of(llava, prompt="Describe this {kind} in about {words} words", words=7).apply(
        Clip(key="a", source="0.mp4", start_s=0.25, end_s=1.0), Media(path)
    )
    network = LlavaForConditionalGeneration.from_pretrained(llava)
    processor = LlavaProcessor.from_pretrained(llava)
    text = "<start>" + "<image> " * 3 + "Describe this video in about 7 words"
    inputs = processor(images=list(read_stills(path, [0.375, 0.625, 0.875])), text=text, return_tensors="pt")
    tokens = network.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert found.caption == processor.decode(tokens, skip_special_tokens=True).strip()


def test_what_it_sees_matters(llava, tmp_path, make_film):
    """The pictures reach the model: the distribution of the first word differs between films."""
    stage = stage_of(llava)
    network, processor = stage._model
    inputs = []
    network.generate = lambda **given: inputs.append(given) or torch.cat([given["input_ids"], torch.full((1, 3), 6)], 1)
    for seed in range(2):
        path = make_film(tmp_path / f"{seed}.mp4", seed=seed)
        stage.apply(Clip(key="a", source=path.name), Media(path))
    one, other = (
        LlavaForConditionalGeneration.from_pretrained(llava)(**{k: v for k, v in given.items() if torch.is_tensor(v)}).logits[:, -1]
        for given in inputs
    )
    assert (one - other).abs().max() > 1e-4


def test_bad_media_drop_only_themselves(llava, tmp_path, make_film):
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    media = [Media(make_film(tmp_path / "0.mp4")), Media(tmp_path / "bad.mp4")]
    clips = [Clip(key=medium.path.stem, source=medium.path.name, end_s=1.0) for medium in media]
    good, bad = stage_of(llava).apply_batch(clips, media)
    assert good.drop is None and bad.drop.reason == "cannot be opened"


def test_models_that_are_not_there_or_incomplete_are_refused(llava, tmp_path, make_film):
    clip, media = Clip(key="a", source="0.mp4"), Media(make_film(tmp_path / "0.mp4"))
    with pytest.raises(UsageError, match="no such folder"):
        stage_of(tmp_path / "absent").apply(clip, media)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="save_pretrained"):
        stage_of(tmp_path / "empty").apply(clip, media)
    for settings in ({"words": 0}, {"batch": 0}, {"num_frames": 0}, {"prompt": "{who}"}):
        with pytest.raises(UsageError):
            stage_of(llava, **settings)
