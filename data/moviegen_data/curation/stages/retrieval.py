"""Clips that show what texts say, found by a model that compares pictures with words (3.2.1)."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from moviegen_core.errors import UsageError, require_at_least
from moviegen_core.pretrained import Dtype
from moviegen_data.curation.annotations import require_own_names
from moviegen_data.curation.clip import Clip
from moviegen_data.curation.fingerprints import fingerprint_of
from moviegen_data.curation.neighbours import DECIMALS, unit_vectors
from moviegen_data.curation.pretrained import in_equal_batches, load_network, load_part, pick_device
from moviegen_data.curation.stage import SetStage, Stage
from moviegen_data.curation.stages.concept_embedding import ConceptEmbedding
from moviegen_data.curation.texts import read_texts

_WANTED = "the folder of the CLIP-type model that ConceptEmbedding has, with its tokenizer"
_BLOCK = 4096  # clips compared at a time


class TextRetrieval(SetStage):
    """Annotates the clips that are nearer to one of some texts than to any of some others: zero-shot retrieval, which drops nothing.

    With the lists it has unless others are given it finds clips with humans, as the paper does by a taxonomy of 600 human verbs and
    expressions (3.2.1). That taxonomy, its model and its thresholds are not published: the lists (`humans`: 600 actions and expressions
    of people; `others`: animals, nature, places and things without them) and the way to decide are ours.

    Annotations: `humans` (or what `annotation` says), true or false; and, where it is true, `humans_text`, the nearest text. Scores:
    `humans_cosine`, of the nearest text, and `humans_margin`, how far that lies above the nearest of the others.

    Args:
        path: folder of the model by which `ConceptEmbedding` made the vectors. Texts are embedded by themselves: that X-CLIP can change
            their embeddings after the video is left out.
        queries: texts to be found: a list, the path of a file with one a line (`#` begins a comment), or `humans`.
        others: texts of all else, in the same forms, or `others`. None compares with nothing: `min_cosine` alone decides.
        annotation: what the annotation is called.
        min_margin: least margin, from -2 to 2.
        min_cosine: least cosine, from -1 to 1; None asks for none. What is near differs widely from model to model: look at the scores.
        vector: the vectors compared, `concept` of `ConceptEmbedding`.
        batch: texts embedded at a time.
        device: `cpu`, `cuda`, ...; the GPU where there is one unless given.
        dtype: precision of the model.

    Raises:
        UsageError: there are no texts, a text is among both, or nothing decides; another stage annotates the same, or another model
            embedded the clips; on use: clips are not embedded, the folder holds no such model, its tokenizer does not fit it, or a text
            is longer than it takes.
    """

    def __init__(
        self,
        *,
        path: str,
        queries: list[str] | str = "humans",
        others: list[str] | str | None = "others",
        annotation: str = "humans",
        min_margin: float = 0.0,
        min_cosine: float | None = None,
        vector: str = "concept",
        batch: int = 32,
        device: str | None = None,
        dtype: Dtype = "float32",
    ) -> None:
        require_at_least(1, batch=batch)
        if others is None and min_cosine is None:
            advice = "give `others`, or `min_cosine`"
            raise UsageError("others=None and min_cosine=None were given to TextRetrieval", "then nothing decides what is found", advice)
        if min_cosine is not None and not -1 <= min_cosine <= 1:
            raise UsageError(f"min_cosine={min_cosine} was given to TextRetrieval", "a cosine is from -1 to 1", "give e.g. 0.2")
        if not -2 <= min_margin <= 2:
            raise UsageError(f"min_margin={min_margin} was given to TextRetrieval", "a margin is from -2 to 2", "give e.g. 0.02")
        require_own_names([annotation], given="TextRetrieval")
        self.path, self.annotation, self.vector = path, annotation, vector
        self.queries = read_texts(queries, name="queries", stage="TextRetrieval")
        self.others = [] if others is None else read_texts(others, name="others", stage="TextRetrieval")
        both = [text for text in self.queries if text in set(self.others)]
        if both:
            advice = "take it out of one of them, or give `others` of your own"
            raise UsageError(f"the text {both[0]!r} was given to TextRetrieval", "it is among both queries and others", advice)
        self.min_margin, self.min_cosine = min_margin, min_cosine
        self.batch, self.device, self.dtype = batch, device, dtype
        self.uses_gpu = device != "cpu"

    def fingerprint(self) -> str:
        return "\n".join([fingerprint_of(self.path), *self.queries, "", *self.others])

    def check_among(self, stages: Sequence[Stage]) -> None:
        """Refuse vectors of another model than this one's, and what another stage of this kind writes over."""
        before = stages[: stages.index(self)]
        if any(isinstance(stage, TextRetrieval) and stage.annotation == self.annotation for stage in before):
            exists = "a stage before it annotates the same, which would be lost"
            raise UsageError(f"annotation={self.annotation!r} was given to TextRetrieval", exists, "give each a name of its own")
        makers = [stage for stage in before if isinstance(stage, ConceptEmbedding) and stage.vector == self.vector]
        if makers and Path(makers[-1].path).expanduser().resolve() != Path(self.path).expanduser().resolve():
            exists = f"the vectors {self.vector!r} are made by the model in {makers[-1].path}"
            raise UsageError(f"path={self.path} was given to TextRetrieval", exists, "give both stages one path")

    def apply(self, clips: Sequence[Clip]) -> Sequence[Clip]:
        """Annotate the clips."""
        if not clips:
            return clips
        own = unit_vectors(list(clips), self.vector, stage="TextRetrieval", maker="ConceptEmbedding")
        wanted, unwanted = self._vectors
        if own.shape[1] != wanted.shape[1]:
            exists = f"the clips' vectors {self.vector!r} have {own.shape[1]} numbers, the texts' {wanted.shape[1]}"
            raise UsageError(f"path={self.path} was given to TextRetrieval", exists, f"give {_WANTED}")
        found: list[Clip] = []
        for start in range(0, len(clips), _BLOCK):
            part = own[start : start + _BLOCK]
            near = np.round(part @ wanted.T, DECIMALS)
            best = near.argmax(1)
            rival = np.round(part @ unwanted.T, DECIMALS).max(1) if len(unwanted) else np.full(len(part), -1.0)
            for clip, text, cosine, other in zip(clips[start : start + _BLOCK], best, near.max(1), rival, strict=True):
                found.append(self._judge(clip, self.queries[text], float(cosine), float(other)))
        return found

    def _judge(self, clip: Clip, text: str, cosine: float, other: float) -> Clip:
        clip = clip.scored(**{f"{self.annotation}_cosine": cosine})
        is_found = self.min_cosine is None or cosine >= self.min_cosine
        if self.others:
            margin = round(cosine - other, DECIMALS)
            clip = clip.scored(**{f"{self.annotation}_margin": margin})
            is_found = is_found and margin >= self.min_margin
        told = {f"{self.annotation}_text": text} if is_found else {}
        return clip.annotated(**{self.annotation: is_found}, **told)

    @cached_property
    def _vectors(self) -> tuple[Float[np.ndarray, "q d"], Float[np.ndarray, "o d"]]:
        """The texts' embeddings, of length 1. The model is let go: it has nothing more to say."""
        from transformers import AutoModel, AutoTokenizer

        settings = {"stage": "TextRetrieval", "wanted": _WANTED}
        network = load_network(AutoModel.from_pretrained, self.path, dtype=self.dtype, device=self.device, **settings)
        if not hasattr(network, "get_text_features"):
            exists = f"it is a {type(network).__name__}, which does not embed words beside pictures"
            raise UsageError(f"the path {self.path} was given for TextRetrieval", exists, f"give {_WANTED}")
        tokenizer = load_part(AutoTokenizer.from_pretrained, self.path, **settings)
        texts = [*self.queries, *self.others]
        embedded = self._embed(network, tokenizer, texts)
        given = f"the path {self.path} was given for TextRetrieval"
        if not np.isfinite(embedded).all():
            raise UsageError(given, f"what it makes of texts in {self.dtype} is no number", f"give {_WANTED}, or another dtype")
        # As where it knows none of the words.
        if len({text.lower() for text in texts}) > 1 and np.allclose(embedded, embedded[0], atol=1e-4):
            raise UsageError(given, f"its tokenizer ({type(tokenizer).__name__}) makes all texts alike to the model", f"give {_WANTED}")
        return embedded[: len(self.queries)], embedded[len(self.queries) :]

    @torch.no_grad()
    def _embed(self, network: nn.Module, tokenizer: Any, texts: list[str]) -> Float[np.ndarray, "n d"]:
        if len(tokenizer) <= len(tokenizer.all_special_tokens):  # transformers makes one up where there are no files of one
            exists = f"its tokenizer ({type(tokenizer).__name__}) knows no words; the folder seems to lack vocab.json or tokenizer.json"
            raise UsageError(f"the path {self.path} was given for TextRetrieval", exists, f"give {_WANTED}")
        if tokenizer.pad_token is None:
            exists = f"its tokenizer ({type(tokenizer).__name__}) has no token to fill texts up with"
            raise UsageError(f"the path {self.path} was given for TextRetrieval", exists, "name its `pad_token` in tokenizer_config.json")
        most = int(network.config.text_config.max_position_embeddings)
        plain = tokenizer(texts)["input_ids"]
        lengths = [len(tokens) for tokens in plain]
        if max(lengths) > most:
            longest = texts[lengths.index(max(lengths))]
            exists = f"it has {max(lengths)} tokens, and the model takes {most}"
            raise UsageError(f"the text {longest!r} was given to TextRetrieval", exists, "say it in fewer words")
        # SigLIP saw nothing but texts filled up to its length (as its documentation says); for the others padding is masked out.
        fills_up = network.config.model_type.startswith("siglip")
        if not fills_up and len({tuple(tokens[-1:]) for tokens in plain}) > 1:  # there CLIP looks for a text's meaning
            exists = f"its tokenizer ({type(tokenizer).__name__}) does not end texts with a token of its own"
            raise UsageError(f"the path {self.path} was given for TextRetrieval", exists, f"give {_WANTED}")
        padding = {"padding": "max_length", "max_length": most} if fills_up else {"padding": True}
        inputs = tokenizer(texts, return_tensors="pt", return_attention_mask=True, **padding)

        def embed(rows: Tensor) -> Tensor:
            own_tokens, own_mask = rows.unbind(1)
            masked = {} if fills_up else {"attention_mask": own_mask}
            features = network.get_text_features(input_ids=own_tokens, **masked)
            return getattr(features, "pooler_output", features)

        device = pick_device(self.device, stage="TextRetrieval")
        rows = torch.stack([inputs["input_ids"], inputs["attention_mask"]], 1)
        made = in_equal_batches(embed, rows, size=min(self.batch, len(texts)), device=device)
        return nn.functional.normalize(made, dim=1).numpy()
