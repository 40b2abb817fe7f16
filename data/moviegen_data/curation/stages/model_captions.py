"""Captions by a vision-language model of the transformers library (3.2.1)."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from moviegen_core.errors import require_at_least
from moviegen_core.pretrained import Dtype
from moviegen_data.curation.captioner import Said
from moviegen_data.curation.fingerprints import fingerprint_of
from moviegen_data.curation.pretrained import load_network, load_part
from moviegen_data.curation.prompted import PROMPT, PromptedCaptioner, Shown

_WANTED = "a folder that `save_pretrained` wrote of an image-text-to-text model, with its weights, processor and tokenizer"


class ModelCaptions(PromptedCaptioner):
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
        super().__init__(
            prompt=prompt, words=words, max_tokens=max_tokens, num_frames=num_frames, max_side=max_side,
            portion=portion, keep_existing=keep_existing, min_words=min_words, seed=seed,
        )  # fmt: skip
        require_at_least(1, batch=batch)
        self.path, self.batch, self.dtype, self.device = path, batch, dtype, device
        self.uses_gpu = device != "cpu"

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def batch_size(self) -> int:
        return self.batch

    def fingerprint(self) -> str:
        return fingerprint_of(self.path)

    def ask(self, shown: Sequence[Shown]) -> Sequence[Said]:
        """What the model says."""
        said: dict[int, Said] = {}
        # A picture gives itself once, and not every processor takes unequal numbers of pictures in one batch.
        for count in sorted({len(one.pictures) for one in shown}):
            numbers = [number for number, one in enumerate(shown) if len(one.pictures) == count]
            said |= dict(zip(numbers, self._generate([shown[number] for number in numbers]), strict=True))
        return [said[number] for number in range(len(shown))]

    @torch.no_grad()
    def _generate(self, shown: Sequence[Shown]) -> list[Said]:
        network, processor = self._model
        texts = [self._chat(processor, one) for one in shown]
        images = [list(one.pictures) for one in shown]
        inputs = processor(images=images, text=texts, padding=True, return_tensors="pt").to(network.device)
        inputs = {
            name: value.to(network.dtype) if torch.is_tensor(value) and value.is_floating_point() else value
            for name, value in inputs.items()
        }
        tokens = network.generate(**inputs, max_new_tokens=self.max_tokens, do_sample=False)
        answers = tokens if network.config.is_encoder_decoder else tokens[:, inputs["input_ids"].shape[1] :]
        ends = network.generation_config.eos_token_id
        ends = torch.as_tensor([] if ends is None else ends, dtype=torch.long, device=answers.device).reshape(-1)
        is_cut = ~torch.isin(answers, ends).any(1) & (answers.shape[1] >= self.max_tokens)
        spoken = processor.batch_decode(answers, skip_special_tokens=True)
        return [Said(text, is_cut=bool(cut)) for text, cut in zip(spoken, is_cut, strict=True)]

    def _chat(self, processor: Any, shown: Shown) -> str:
        prompt, count = self.question(shown.kind), len(shown.pictures)
        if not getattr(processor, "chat_template", None):
            return str(getattr(processor, "image_token", "")) * count + prompt
        content = [{"type": "image"} for _ in range(count)] + [{"type": "text", "text": prompt}]
        return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        settings = {"stage": "ModelCaptions", "wanted": _WANTED}
        processor = load_part(AutoProcessor.from_pretrained, self.path, **settings)
        network = load_network(AutoModelForImageTextToText.from_pretrained, self.path, dtype=self.dtype, device=self.device, **settings)
        tokenizer = getattr(processor, "tokenizer", processor)
        tokenizer.padding_side = "left"  # answers begin where questions end
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return network, processor
