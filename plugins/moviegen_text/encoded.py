"""Conditioners over pretrained encoders: tokenise, encode without gradients, or take what was encoded before."""

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from moviegen_core.batch import MediaBatch, TextEmbedding
from moviegen_core.errors import UsageError
from moviegen_core.files import write_bytes
from moviegen_text.conditioner import TextConditioner
from moviegen_text.fingerprint import fingerprint
from moviegen_text.pretrained import Dtype, FrozenEncoder, load_pretrained

if TYPE_CHECKING:
    from moviegen_core.parallel.plan import ParallelPlan


class PretrainedTextConditioner(TextConditioner):
    """A frozen encoder of the transformers library, and the trainable projection after it.

    The encoder is loaded at its first use; it is in no optimizer, no checkpoint and no moving average.

    Args:
        width: width of the backbone.
        pretrained: folder that `save_pretrained` wrote, or a name on the Hugging Face hub; with a folder nothing reaches for the network.
        max_tokens: tokens per text; what is beyond is cut with a warning.
        pad_to_max: pad every batch to `max_tokens` instead of its longest text, so that shapes never change (for compiled models).
        dtype: precision of the frozen encoder.
        shard_encoder: shard the frozen encoder over data x context on a mesh of processes, as the paper does with UL2 (3.1.6); whole on
            every process otherwise.
        cache_name: name of precomputed embeddings in a batch; where a batch has them the encoder does not run.
        precomputed_only: never load the encoder; every batch must bring its embeddings.
        null_path: safetensors file with the empty prompt's embedding, as `save_null` writes it; needed with `precomputed_only` for
            dropout and guidance.
        width_text: width of the encoder's hidden states; read from the model's config unless given.
        dropout: probability in [0, 1] that a training sample sees the empty prompt instead.
    """

    def __init__(
        self,
        width: int,
        *,
        pretrained: str,
        max_tokens: int = 256,
        pad_to_max: bool = False,
        dtype: Dtype = "float32",
        shard_encoder: bool = False,
        cache_name: str = "text",
        precomputed_only: bool = False,
        null_path: str | None = None,
        width_text: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        if max_tokens < 1:
            raise UsageError(f"max_tokens={max_tokens} was given", "a text has at least its end token", "give 1 or more")
        self.what = type(self).__name__
        if not precomputed_only or width_text is None:
            found = self.read_width(pretrained)
            if width_text not in (None, found):
                raise UsageError(
                    f"width_text={width_text} was given for {self.what}",
                    f"{pretrained} is {found} wide",
                    "leave width_text unset or give that",
                )
            width_text = found
        super().__init__(width, width_text=width_text, dropout=dropout)
        self.pretrained, self.max_tokens, self.pad_to_max, self.dtype_name = pretrained, max_tokens, pad_to_max, dtype
        self.cache_name, self.precomputed_only, self.null_path, self.width_text = cache_name, precomputed_only, null_path, width_text
        self.shard_encoder = shard_encoder
        self._tokenizer: Any = None
        self._frozen = FrozenEncoder(self.load_network)
        self._null: dict[torch.device, TextEmbedding] = {}
        self._warned = False

    # -- what a subclass says --------------------------------------------------------------------------------------------------------

    def read_width(self, path: str) -> int:
        """Width of the encoder's hidden states, from its config."""
        raise NotImplementedError(f"{type(self).__name__} must define read_width(path)")

    def load_network(self) -> nn.Module:
        """Load the encoder."""
        raise NotImplementedError(f"{type(self).__name__} must define load_network()")

    @property
    def encoding_settings(self) -> tuple[object, ...]:
        """What decides the embeddings beside the files of the encoder; its precision only rounds them."""
        return type(self).__qualname__, self.max_tokens

    # -- embedding -------------------------------------------------------------------------------------------------------------------

    @property
    def network(self) -> nn.Module:
        """The encoder, loaded at its first use."""
        return self._frozen.on(self.projection.linear.weight.device)

    def parallelize(self, plan: "ParallelPlan") -> None:
        """Shard the projection, and the frozen encoder where that was asked for."""
        super().parallelize(plan)
        self._frozen.plan = plan if self.shard_encoder else None

    def embed(self, texts: Sequence[str]) -> TextEmbedding:
        """Encode texts, before the projection; `transformers`' own hidden states of the last layer."""
        with torch.inference_mode(False), torch.no_grad():
            return self._encode(texts)

    def embed_batch(self, batch: MediaBatch) -> TextEmbedding:
        """Take the batch's precomputed embeddings, or encode its texts."""
        given = batch.text.get(self.cache_name)
        if given is None:
            if self.precomputed_only:
                raise UsageError(
                    f"a batch without text embeddings '{self.cache_name}' was given to {self.what} with precomputed_only",
                    f"it has {', '.join(map(repr, batch.text)) or 'none at all'}",
                    "precompute them into the shards and read them with the data module's text option, or turn precomputed_only off",
                )
            return self.embed(self.texts(batch))
        if given.tokens.shape[-1] != self.width_text:
            raise UsageError(
                f"precomputed embeddings '{self.cache_name}' of width {given.tokens.shape[-1]} were given to {self.what}",
                f"{self.pretrained} is {self.width_text} wide",
                "precompute them with the same model, or give the `cache_name` they belong to",
            )
        self._check_origin(batch)
        device = self.projection.linear.weight.device
        return TextEmbedding(given.tokens.to(device), given.mask.to(device))

    @cached_property
    def fingerprint(self) -> str | None:
        """What tells this encoder from others by its files, without loading it; None where they are not on this machine."""
        return fingerprint(self.pretrained, *self.encoding_settings)

    def _check_origin(self, batch: MediaBatch) -> None:
        """Refuse precomputed embeddings of another encoder, where both are known."""
        origins = [metadata.get("text_embeddings") or {} for metadata in batch.metadata or ()]
        files = {str(origin[f"{self.cache_name}.files"]) for origin in origins if origin.get(f"{self.cache_name}.files")}
        if files and self.fingerprint is not None and (others := files - {self.fingerprint}):
            raise UsageError(
                f"the precomputed embeddings '{self.cache_name}' of {batch.keys[0]!r} come from the encoder {min(others)[:12]}",
                f"{self.what} of {self.pretrained} with max_tokens={self.max_tokens} is {self.fingerprint[:12]}",
                "give the encoder and the settings that they were made with, or cache the texts anew",
            )

    def embed_null(self) -> TextEmbedding:
        """The empty prompt's embedding (1, l, e); computed or read once."""
        device = self.projection.linear.weight.device
        if device not in self._null:
            self._null[device] = self._read_null(device) if self.null_path or self.precomputed_only else self.embed([""])
        return self._null[device]

    def save_null(self, path: str | Path) -> None:
        """Write the empty prompt's embedding for `null_path`."""
        null = self.embed_null()
        write_bytes(path, save({"tokens": null.tokens.contiguous().cpu(), "mask": null.mask.contiguous().cpu()}))

    # --------------------------------------------------------------------------------------------------------------------------------

    @property
    def tokenizer(self) -> Any:
        """The encoder's tokenizer, loaded at its first use."""
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            self._tokenizer = load_pretrained(AutoTokenizer.from_pretrained, self.pretrained, what=f"{self.what}'s tokenizer")
        return self._tokenizer

    def _encode(self, texts: Sequence[str]) -> TextEmbedding:
        network = self.network
        device = next(network.parameters()).device
        ids, mask = self._tokenize(list(texts))
        hidden = network(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
        return TextEmbedding(hidden, mask.bool().to(hidden.device))

    def _tokenize(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        padding = "max_length" if self.pad_to_max else "longest"
        options = {"padding": padding, "padding_side": "right", "truncation": True, "max_length": self.max_tokens, "return_tensors": "pt"}
        found = self.tokenizer(texts, **options)
        full = found["attention_mask"].sum(1) >= self.max_tokens
        if full.any() and not self._warned:
            text = texts[int(full.nonzero()[0])]
            length = len(self.tokenizer(text, truncation=False, verbose=False)["input_ids"])
            if length > self.max_tokens:
                self._warned = True
                warnings.warn(
                    f"the prompt {text[:60]!r}... has {length} tokens; {self.what} keeps the first {self.max_tokens}; "
                    "raise max_tokens to keep them all",
                    stacklevel=2,
                )
        return found["input_ids"], found["attention_mask"]

    def _read_null(self, device: torch.device) -> TextEmbedding:
        if self.null_path is None:
            raise UsageError(
                f"{self.what} was asked for the empty prompt's embedding with precomputed_only and no null_path",
                "dropout and guidance need it, and the encoder is not loaded",
                "write it once with the encoder at hand, `conditioner.save_null(path)`, and give `null_path`",
            )
        try:
            content = load(Path(self.null_path).expanduser().read_bytes())
            null = TextEmbedding(content["tokens"].to(device), content["mask"].to(device))
        except (OSError, SafetensorError, KeyError) as error:
            raise UsageError(
                f"null_path={self.null_path} was given for {self.what}",
                f"it is no file that `save_null` wrote ({type(error).__name__}: {error})",
                "write it again with `conditioner.save_null(path)`",
            ) from error
        if null.tokens.shape[-1] != self.width_text:
            raise UsageError(
                f"null_path={self.null_path} was given for {self.what}",
                f"it is {null.tokens.shape[-1]} wide, the encoder {self.width_text}",
                "write it with the same encoder",
            )
        return null
