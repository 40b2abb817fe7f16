"""UL2 and T5 on the prompt, ByT5 on the visual text (3.1.4, A.1)."""

from typing import Any

from torch import nn

from moviegen_core.batch import MediaBatch
from moviegen_core.prompts import visual_text
from moviegen_text.encoded import PretrainedTextConditioner
from moviegen_text.pretrained import load_encoder, load_pretrained


class T5Conditioner(PretrainedTextConditioner):
    """The prompt through the frozen encoder of UL2, T5, mT5 or UMT5, and a trainable Linear + LayerNorm (3.1.4).

    In the paper `pretrained` is UL2, `google/ul2`; its number of tokens is not told, 256 is that of MetaCLIP.

    Args:
        width: width of the backbone.
        cache_name: name of precomputed embeddings in a batch; where a batch has them the encoder does not run.
        **options: those of `PretrainedTextConditioner`.
    """

    def __init__(self, width: int, *, cache_name: str = "t5", **options: Any) -> None:
        super().__init__(width, cache_name=cache_name, **options)

    def read_width(self, path: str) -> int:
        """Width of the encoder's hidden states, from its config."""
        from transformers import AutoConfig

        return load_pretrained(AutoConfig.from_pretrained, path, what=self.what).hidden_size

    def load_network(self) -> nn.Module:
        """Load the encoder alone, without the decoder."""
        from transformers import AutoModelForTextEncoding

        return load_encoder(AutoModelForTextEncoding.from_pretrained, self.pretrained, what=self.what, dtype=self.dtype_name)


class ByT5Conditioner(T5Conditioner):
    """The quoted visual text of the prompt, and nothing else of it, through a frozen byte-level ByT5 (3.1.4, A.1).

    Several quoted texts are joined by line breaks. A prompt without quotes gives what an empty text gives, one end token, so that every
    sample has a real token and "no visual text" is a state the model is trained on.

    Args:
        width: width of the backbone.
        max_tokens: bytes per prompt, the end token included; what is beyond is cut with a warning. The paper is silent here.
        cache_name: name of precomputed embeddings in a batch; where a batch has them the encoder does not run.
        **options: those of `PretrainedTextConditioner`.
    """

    def __init__(self, width: int, *, max_tokens: int = 128, cache_name: str = "byt5", **options: Any) -> None:
        super().__init__(width, max_tokens=max_tokens, cache_name=cache_name, **options)

    def texts(self, batch: MediaBatch) -> list[str]:
        """The quoted texts of every caption."""
        return ["\n".join(visual_text(caption)) for caption in batch.captions]
