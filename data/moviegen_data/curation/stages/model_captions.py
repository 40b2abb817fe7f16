"""Captions by a vision-language model of the transformers library (3.2.1)."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from moviegen_core.errors import require_at_least
from moviegen_data.curation.captioner import PROMPT, Captioner, Said, filled
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.looking import look
from moviegen_data.curation.media import Media
from moviegen_data.curation.pretrained import Dtype, load_network, load_pretrained
from moviegen_data.faults import SampleError

_MODEL = "a folder that `save_pretrained` wrote of an image-text-to-text model, with its weights, processor and tokenizer"


class ModelCaptions(Captioner):
    """Captions clips by a vision-language model that is shown a few frames of each.

    The paper's captions have 100 words on average, 70 % of them by an 8B and 30 % by a 70B model (3.2.1): two of these stages, with
    portions [0, 0.7] and [0.7, 1]. Words are chosen greedily, so a clip's caption is the same each time, up to what half precision and a
    batch's padding make of it.

    Args:
        path: folder of the model (Qwen-VL, InternVL, LLaVA, SmolVLM, ... in the transformers library's own form); no code in it is run.
        prompt: what it is asked; `{words}` and `{kind}` (video or picture) are put in.
        words: words asked for.
        max_tokens: tokens at most; of a caption that reaches them the whole sentences are kept. Three for each word unless given.
        num_frames: frames shown, evenly spread over the clip.
        max_side: pixels of their longer side at most.
        batch: clips captioned at a time.
        dtype: precision of the model.
        device: `cpu`, `cuda`, ...; the GPU where there is one unless given.
        portion: the clips whose turn it is, see `Captioner`.
        keep_existing: leave clips alone that have a caption.
        min_words: words below which a caption says too little.
        seed: of the clips' places.

    Raises:
        UsageError: a number is below 1, the portion is not within [0, 1], or the prompt asks for something else to be put in.
    """

    def __init__(
        self,
        *,
        path: str,
        prompt: str = PROMPT,
        words: int = 100,
        max_tokens: int | None = None,
        num_frames: int = 8,
        max_side: int = 512,
        batch: int = 4,
        dtype: Dtype = "bfloat16",
        device: str | None = None,
        portion: tuple[float, float] = (0.0, 1.0),
        keep_existing: bool = False,
        min_words: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__(portion=portion, keep_existing=keep_existing, min_words=min_words, seed=seed)
        self.max_tokens = 3 * words if max_tokens is None else max_tokens
        require_at_least(1, words=words, max_tokens=self.max_tokens, num_frames=num_frames, max_side=max_side, batch=batch)
        filled(prompt, words=words)
        self.path, self.prompt, self.words, self.num_frames, self.max_side = path, prompt, words, num_frames, max_side
        self.batch, self.dtype, self.device = batch, dtype, device

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def batch_size(self) -> int:
        return self.batch

    def say(self, clips: Sequence[Clip], media: Sequence[Media]) -> list[Said | SampleError]:
        """What the model says."""
        said: dict[int, Said | SampleError] = {}
        groups: dict[int, list[tuple[int, UInt8[np.ndarray, "n h w 3"]]]] = {}
        for number, (clip, medium) in enumerate(zip(clips, media, strict=True)):
            try:
                pictures = look(clip, medium, count=self.num_frames, max_side=self.max_side)
            except SampleError as error:
                said[number] = error
            else:
                groups.setdefault(len(pictures), []).append((number, pictures))
        for group in groups.values():  # a picture gives itself once; not every processor takes unequal numbers in one batch
            kinds = [media[number].kind for number, _ in group]
            answers = self._generate([pictures for _, pictures in group], kinds)
            said |= {number: answer for (number, _), answer in zip(group, answers, strict=True)}
        return [said[number] for number in range(len(clips))]

    @torch.no_grad()
    def _generate(self, groups: list[UInt8[np.ndarray, "n h w 3"]], kinds: list[str]) -> list[Said]:
        network, processor = self._model
        texts = [self._chat(processor, len(group), kind) for group, kind in zip(groups, kinds, strict=True)]
        inputs = processor(images=[list(group) for group in groups], text=texts, padding=True, return_tensors="pt").to(network.device)
        inputs = {
            name: value.to(network.dtype) if torch.is_tensor(value) and value.is_floating_point() else value
            for name, value in inputs.items()
        }
        tokens = network.generate(**inputs, max_new_tokens=self.max_tokens, do_sample=False)
        answers = tokens if network.config.is_encoder_decoder else tokens[:, inputs["input_ids"].shape[1] :]
        ends = torch.as_tensor(network.generation_config.eos_token_id or [], dtype=torch.long, device=answers.device).reshape(-1)
        is_cut = ~torch.isin(answers, ends).any(1) & (answers.shape[1] >= self.max_tokens)
        spoken = processor.batch_decode(answers, skip_special_tokens=True)
        return [Said(text, is_cut=bool(cut)) for text, cut in zip(spoken, is_cut, strict=True)]

    def _chat(self, processor: Any, num_pictures: int, kind: str) -> str:
        prompt = filled(self.prompt, words=self.words, kind=kind)
        if not getattr(processor, "chat_template", None):
            return str(getattr(processor, "image_token", "")) * num_pictures + prompt
        content = [{"type": "image"} for _ in range(num_pictures)] + [{"type": "text", "text": prompt}]
        return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        settings = {"stage": "ModelCaptions", "what": _MODEL}
        processor = load_pretrained(AutoProcessor.from_pretrained, self.path, **settings)
        network = load_network(AutoModelForImageTextToText.from_pretrained, self.path, dtype=self.dtype, device=self.device, **settings)
        tokenizer = getattr(processor, "tokenizer", processor)
        tokenizer.padding_side = "left"  # answers begin where questions end
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return network, processor

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_model"}
