"""Long-prompt MetaCLIP: a CLIP text encoder whose positions are extended from 77 to 256 (3.1.4, A.1)."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moviegen_core.batch import MediaBatch, TextEmbedding
from moviegen_core.errors import UsageError
from moviegen_core.weights import load_into
from moviegen_text.encoded import PretrainedTextConditioner
from moviegen_text.pretrained import load_encoder, load_pretrained

Extension = Literal["keep", "stretch"]
Trainable = Literal["none", "positions_and_biases", "all"]


def extend_positions(positions: Float[Tensor, "n d"], num_positions: int, *, extension: Extension = "keep") -> Float[Tensor, "m d"]:
    """Extend a table of learned positions; one that is long enough already is returned as it is.

    CLIP's first 20 of 77 positions carry most of what it learnt about order, because most captions are short; the later ones vary slowly
    and can be stretched by linear interpolation without leaving the range of what the network has seen.

    Args:
        positions: the trained table.
        num_positions: rows wanted.
        extension: `keep` leaves all trained rows and appends the later ones stretched over the new range, so that prompts that fit the old
            length are encoded as before; `stretch` leaves the first 20 of 77 and stretches the later ones over all the rest, so that
            order is kept throughout and fine-tuning has less to do, but prompts beyond 20 tokens change at once.
    """
    num_trained = len(positions)
    if num_trained >= num_positions:
        return positions
    later = positions[num_trained * 20 // 77 :]
    first = positions if extension == "keep" else positions[: num_trained * 20 // 77]
    stretched = nn.functional.interpolate(later.float().T[None], size=num_positions - len(first), mode="linear", align_corners=True)[0].T
    return torch.cat([first, stretched.to(positions)])


class MetaClipConditioner(PretrainedTextConditioner):
    """The prompt through a CLIP text encoder with extended positions, token by token, and a trainable Linear + LayerNorm (3.1.4).

    The paper fine-tuned the new positions and all biases on long and short captions and then froze the encoder (A.1). A model that has
    enough positions is taken as it is. A trainable encoder is part of the checkpoint; a frozen one is not.

    Args:
        width: width of the backbone.
        pretrained: folder of a CLIP or CLIP text model that `save_pretrained` wrote, or a name on the Hugging Face hub (e.g.
            `facebook/metaclip-h14-fullcc2.5b`); with a folder nothing reaches for the network.
        max_tokens: tokens per prompt, and positions of the encoder where it has fewer (256 in the paper, 77 in CLIP).
        extension: how positions are added: `keep` leaves short prompts as they were, `stretch` interpolates all but the first 20 of 77.
        trainable: what of the encoder is trained along: nothing, its positions and biases (A.1), or all of it. Trainable encoders always
            run; precomputed embeddings would be stale.
        cache_name: name of precomputed embeddings in a batch; where a batch has them the frozen encoder does not run.
        precomputed_only: never load the encoder; every batch must bring its embeddings.
        null_path: safetensors file with the empty prompt's embedding, as `save_null` writes it; needed with `precomputed_only` for
            dropout and guidance.
        **options: those of `PretrainedTextConditioner`.
    """

    def __init__(
        self,
        width: int,
        *,
        pretrained: str,
        max_tokens: int = 256,
        extension: Extension = "keep",
        trainable: Trainable = "none",
        cache_name: str = "metaclip",
        precomputed_only: bool = False,
        null_path: str | None = None,
        **options: Any,
    ) -> None:
        if trainable != "none" and (precomputed_only or null_path):
            raise UsageError(
                f"trainable={trainable} was given with precomputed embeddings",
                "those of an encoder that is being trained are stale at once",
                "give trainable=none, or leave precomputed_only and null_path unset",
            )
        self.extension, self.trainable = extension, trainable
        super().__init__(
            width,
            pretrained=pretrained,
            max_tokens=max_tokens,
            cache_name=cache_name,
            precomputed_only=precomputed_only,
            null_path=null_path,
            **options,
        )
        if trainable != "none":
            self.encoder = _PretrainedModule(self)
            for name, parameter in self.encoder.network.named_parameters():
                parameter.requires_grad_(trainable == "all" or "position_embedding" in name or name.endswith("bias"))

    @property
    def network(self) -> nn.Module:
        """The encoder: the frozen one is loaded at its first use."""
        return super().network if self.trainable == "none" else self.encoder.network

    def embed(self, texts: Sequence[str]) -> TextEmbedding:
        """Encode texts, before the projection; hidden states of the last layer behind CLIP's final norm."""
        return super().embed(texts) if self.trainable == "none" else self._encode(texts)

    def embed_batch(self, batch: MediaBatch) -> TextEmbedding:
        """Take the batch's precomputed embeddings where the encoder is frozen, or encode its texts."""
        return super().embed_batch(batch) if self.trainable == "none" else self.embed(self.texts(batch))

    def embed_null(self) -> TextEmbedding:
        """The empty prompt's embedding (1, l, e); computed anew where the encoder is trained."""
        return super().embed_null() if self.trainable == "none" else self.embed([""])

    @property
    def encoding_settings(self) -> tuple[object, ...]:
        """What decides the embeddings beside the files of the encoder."""
        return *super().encoding_settings, self.extension

    def read_config(self, path: str) -> Any:
        """The text part of the model's config."""
        from transformers import CLIPTextConfig

        return load_pretrained(CLIPTextConfig.from_pretrained, path, what=self.what)

    def read_width(self, path: str) -> int:
        """Width of the encoder's hidden states, from its config."""
        return self.read_config(path).hidden_size

    def build_network(self) -> nn.Module:
        """The extended encoder without its weights."""
        from transformers import CLIPTextModel

        config = self.read_config(self.pretrained)
        config.max_position_embeddings = max(self.max_tokens, config.max_position_embeddings)
        return CLIPTextModel(config).to(getattr(torch, self.dtype_name))

    def load_network(self) -> nn.Module:
        """Load the encoder and extend its positions."""
        from transformers import CLIPTextModel

        network = load_encoder(CLIPTextModel.from_pretrained, self.pretrained, what=self.what, dtype=self.dtype_name)
        embeddings = _embeddings_of(network)
        positions = extend_positions(embeddings.position_embedding.weight.detach(), self.max_tokens, extension=self.extension)
        embeddings.position_embedding = nn.Embedding.from_pretrained(positions)
        embeddings.position_ids = torch.arange(len(positions))[None]
        network.config.max_position_embeddings = len(positions)
        return network


class _PretrainedModule(nn.Module):
    """A pretrained network in the module tree: built empty on the meta device, filled by `reset_parameters`.

    Args:
        owner: knows how to build and to load it.
    """

    def __init__(self, owner: MetaClipConditioner) -> None:
        super().__init__()
        # Bound methods of the owner: its name in the tree would make a cycle.
        self._load = owner.load_network
        self.network = owner.build_network() if torch.get_default_device().type == "meta" else owner.load_network()
        for module in self.network.modules():
            module.reset_parameters = _keep

    def reset_parameters(self) -> None:
        """Load the pretrained weights."""
        loaded = self._load()
        load_into(self.network, loaded.state_dict())
        for name, buffer in loaded.named_buffers():
            self.network.get_buffer(name).copy_(buffer)


def _keep() -> None:
    """Stands in for `reset_parameters` of the modules inside, whose weights come from files."""


def _embeddings_of(network: nn.Module) -> nn.Module:
    return next(module for module in network.modules() if hasattr(module, "position_embedding"))
