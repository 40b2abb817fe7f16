"""Tensors inside samples: cached latents, text embeddings and visual features as safetensors bytes, and how to make them."""

import json
import math
import struct
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from moviegen_core.batch import TextEmbedding
from moviegen_data.faults import SampleError
from moviegen_data.shards import safetensors_header

_EXPONENTS = {torch.float16: 0x7C00, torch.bfloat16: 0x7F80, torch.float32: 0x7F800000}
_RANKS = (2, 4)
HEADER_BYTES = 4096
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def latent_bytes(latent: Float[Tensor, "c t ..."], metadata: Mapping[str, str] | None = None) -> bytes:
    """Pack one normalised latent for `KEY.latent.safetensors`.

    Args:
        latent: the latent of a video (c, t, h, w) or of a sound (c, t), in the precision it is to be kept in.
        metadata: texts that say where it comes from: `encoder` (a checksum of the weights), `latent_mean`, `latent_std`.
    """
    if latent.ndim not in _RANKS:
        raise ValueError(
            f"a tensor of shape {tuple(latent.shape)} was given; a latent is (c, t, h, w), a sound's (c, t); pass one sample of the batch"
        )
    return _packed({"latent": latent.detach().contiguous().cpu()}, metadata)


def _packed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Safetensors whose bytes depend on their content alone; the library's own header has its metadata in any order."""
    data = save(dict(tensors), metadata=dict(metadata or {}))
    header, begin = safetensors_header(data)
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[begin:]


def latent_header(head: bytes | bytearray) -> tuple[tuple[int, ...], torch.dtype, dict[str, str], int]:
    """Shape, precision, metadata and the first data byte of a packed latent, from its first bytes.

    Raises:
        SampleError: the bytes are not safetensors, or hold no tensor `latent` that can be one.
    """
    try:
        header, begin = safetensors_header(head)
        entry = header["latent"]
        shape, dtype, first = tuple(entry["shape"]), _DTYPES[entry["dtype"]], entry["data_offsets"][0]
        if any(type(number) is not int for number in (*shape, first)) or min((*shape, first + 1)) < 1 or len(shape) not in _RANKS:
            raise ValueError(f"shape {shape} at {first}; a latent is (c, t, h, w), or (c, t) of a sound")
        return shape, dtype, _texts(header.get("__metadata__")), begin + first
    except (struct.error, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise SampleError("the latent cannot be read", f"{type(error).__name__}: {error}") from error


def _texts(metadata: object) -> dict[str, str]:
    return {str(name): str(value) for name, value in metadata.items()} if isinstance(metadata, dict) else {}


def read_latent(data: bytes | bytearray) -> Float[Tensor, "c t ..."]:
    """Unpack a latent, in the precision it was kept in, without a copy of its values.

    Raises:
        SampleError: it cannot be read, has another rank than four (a video) or two (a sound), or holds NaN or infinite values.
    """
    shape, dtype, _, first = latent_header(data)
    count = 1
    for size in shape:
        count *= size
    if len(shape) not in _RANKS or not count or first + count * dtype.itemsize > len(data):
        raise SampleError(
            "the latent cannot be read", f"shape {shape} in {len(data)} bytes; a latent is (c, t, h, w), or (c, t) of a sound"
        )
    if first % dtype.itemsize:
        data, first = data[first:], 0
    # torch warns of read-only buffers; bytes are copied once, a bytearray is viewed.
    buffer = data if isinstance(data, bytearray) else bytearray(data)
    latent = torch.frombuffer(buffer, dtype=dtype, count=count, offset=first)
    require_finite(latent, shape)
    return latent.view(shape)


def require_finite(latent: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a latent with NaN or infinite values.

    Raises:
        SampleError: it has some.
    """
    if not _all_finite(latent):
        raise SampleError("the latent holds NaN or infinite values", f"shape {shape}")


def _all_finite(values: Tensor) -> bool:
    # A number is NaN or infinite where all bits of its exponent are set; several times faster than torch.isfinite on halves.
    exponent = _EXPONENTS.get(values.dtype)
    if exponent is None:
        return bool(values.isfinite().all())
    integers = torch.int16 if values.itemsize == 2 else torch.int32
    return int((values.contiguous().view(integers).numpy() & exponent).max()) != exponent


def text_bytes(embeddings: Mapping[str, TextEmbedding | tuple[Tensor, Tensor]], metadata: Mapping[str, str] | None = None) -> bytes:
    """Pack one sample's text embeddings for `KEY.text.safetensors`, by the conditioner's name: tokens (l, d) and mask (l,).

    `metadata` are texts that say where they come from: for each name `NAME.encoder`.
    """
    tensors = {}
    for name, embedding in embeddings.items():
        tokens, mask = (embedding.tokens, embedding.mask) if isinstance(embedding, TextEmbedding) else embedding
        if tokens.ndim != 2 or mask.shape != tokens.shape[:1]:
            raise ValueError(
                f"tokens of shape {tuple(tokens.shape)} with a mask of {tuple(mask.shape)} were given for {name!r}; "
                "one sample's tokens are (l, d) and its mask (l,); pass one sample of the batch"
            )
        tensors[f"{name}.tokens"], tensors[f"{name}.mask"] = tokens.detach().contiguous().cpu(), mask.detach().bool().contiguous().cpu()
    return _packed(tensors, metadata)


def read_text(data: bytes) -> dict[str, tuple[Float[Tensor, "l d"], Bool[Tensor, " l"]]]:
    """Unpack text embeddings by the conditioner's name.

    Raises:
        SampleError: they cannot be read, have other shapes than (l, d) and (l,), or hold NaN or infinite values.
    """
    try:
        tensors = load(data)
        names = {name.removesuffix(".tokens") for name in tensors if name.endswith(".tokens")}
        texts = {name: (tensors[f"{name}.tokens"], tensors[f"{name}.mask"].bool()) for name in sorted(names)}
    except (SafetensorError, KeyError, ValueError) as error:
        raise SampleError("the text embeddings cannot be read", f"{type(error).__name__}: {error}") from error
    for name, (tokens, mask) in texts.items():
        if tokens.ndim != 2 or not tokens.numel() or mask.shape != tokens.shape[:1] or not tokens.is_floating_point():
            shapes = f"{name}: {tokens.dtype} {tuple(tokens.shape)}, mask {tuple(mask.shape)}; they are (l, d) and (l,)"
            raise SampleError("the text embeddings cannot be read", shapes)
        if not _all_finite(tokens):
            raise SampleError("the text embeddings hold NaN or infinite values", name)
    return texts


def text_origin(data: bytes) -> dict[str, str]:
    """What packed text embeddings say of where they come from: for each name `NAME.encoder`, and `NAME.files` where it was known.

    Raises:
        SampleError: they cannot be read.
    """
    try:
        return _texts(safetensors_header(data)[0].get("__metadata__"))
    except (struct.error, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SampleError("the text embeddings cannot be read", f"{type(error).__name__}: {error}") from error


def visual_bytes(features: Float[Tensor, "f e"], fps: float) -> bytes:
    """Pack a video's features for `KEY.visual.safetensors`: row i belongs to the time i / fps."""
    if features.ndim != 2 or not len(features) or not (math.isfinite(fps) and fps > 0):
        raise ValueError(
            f"features of shape {tuple(features.shape)} at {fps} fps were given; one video's are (f, e); pass one sample of the batch"
        )
    return save({"features": features.detach().contiguous().cpu()}, metadata={"fps": repr(float(fps))})


def read_visual(data: bytes) -> tuple[Float[Tensor, "f e"], float]:
    """Unpack a video's features and their rate.

    Raises:
        SampleError: they cannot be read, or hold NaN or infinite values.
    """
    try:
        fps = float(safetensors_header(data)[0]["__metadata__"]["fps"])
        features = load(data)["features"]
    except (SafetensorError, KeyError, ValueError, TypeError, struct.error) as error:
        raise SampleError("the visual features cannot be read", f"{type(error).__name__}: {error}") from error
    if features.ndim != 2 or not len(features) or not (math.isfinite(fps) and fps > 0):
        raise SampleError("the visual features cannot be read", f"shape {tuple(features.shape)} at {fps} fps; they are (f, e)")
    if not bool(features.isfinite().all()):
        raise SampleError("the visual features hold NaN or infinite values", f"shape {tuple(features.shape)}")
    return features, fps
