"""Checks a plugin author runs on his own classes; the built-in classes run the same.

Each raises AssertionError with what is wrong. Build the smallest instance that your class allows.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from moviegen_core.autoencoder import AudioAutoencoder, Autoencoder
from moviegen_core.backbone import Backbone
from moviegen_core.batch import MediaBatch
from moviegen_core.conditioner import Conditioner, Conditioning
from moviegen_core.nn.initialization import draw_weights
from moviegen_core.sampler import Sampler

_DOORS = ("context", "context_mask", "modulation", "channels", "aligned")


def check_component_typed(cls: type) -> None:
    """Check that every constructor argument is typed and documented: an untyped one vanishes from the command line without a word.

    Args:
        cls: a class that a plugin offers; a conditioner's `width` may be positional, everything else is keyword-only.
    """
    documented = "\n".join(
        owner.__doc__ or "" for owner in inspect.getmro(cls) if owner.__module__.partition(".")[0] not in ("torch", "lightning")
    )
    for owner, parameter in _parameters(cls):
        name = f"{owner.__name__}.__init__({parameter.name})"
        _require(parameter.annotation is not parameter.empty, f"{name} has no type; it would vanish from the command line")
        is_width = issubclass(cls, Conditioner) and parameter.name == "width"
        _require(is_width or parameter.kind is parameter.KEYWORD_ONLY, f"{name} is positional; put a `*,` before it")
        _require(f"{parameter.name}:" in documented, f"{name} is not documented; add `{parameter.name}: ...` to the docstring's Args")


def check_backbone(
    factory: Callable[[], Backbone],
    *,
    latent_shape: tuple[int, ...],
    conditioning: Callable[[int, int], Conditioning] | None = None,
    context_length: int = 5,
) -> None:
    """Check shapes, gradients, independence of samples, masks, and late construction on the meta device.

    Args:
        factory: builds a small backbone.
        latent_shape: shape (c, t, h, w) of one latent, (c, t) of a sound that it takes.
        conditioning: makes a conditioning from (batch size, width); a context with its last token masked unless given.
        context_length: tokens of that context.
    """
    backbone = check_meta_construction(factory)
    if backbone.builds_on_meta:
        check_drawn_alike(factory)
    make = conditioning or (lambda size, width: _context(size, width, context_length, backbone.extra_channels, latent_shape))
    x_t, t = torch.randn(2, *latent_shape), torch.tensor([0.25, 0.75])
    told = make(2, backbone.width)
    backbone.eval()
    velocity = backbone(x_t, t, told)
    _require(velocity.shape == x_t.shape, f"the velocity has shape {tuple(velocity.shape)}, the latent {tuple(x_t.shape)}")
    _require(bool(velocity.isfinite().all()), "the velocity is not finite with freshly drawn weights")
    _perturb(backbone)
    with torch.no_grad():
        before = backbone(x_t, t, told)
        other = backbone(torch.cat([x_t[:1], x_t[1:] + 1.0]), t, told)
        _require(
            torch.allclose(before[:1], other[:1], atol=1e-4, rtol=1e-3), "a sample's velocity depends on the other samples of its batch"
        )
        _require(not torch.allclose(before, backbone(x_t, 1.0 - t, told)), "the velocity does not depend on the time")
        if told.context is not None and told.context_mask is not None and not told.context_mask.all():
            changed = told.context + (~told.context_mask)[..., None] * 3.0
            again = backbone(x_t, t, Conditioning(**{**_doors(told), "context": changed}))
            _require(torch.allclose(before, again, atol=1e-4, rtol=1e-3), "the velocity depends on masked context tokens")
    backbone.train()
    check_gradients(backbone, lambda: backbone(x_t, t, told))
    tokens, flops = backbone.num_tokens(latent_shape), backbone.num_flops(latent_shape, context_length)
    _require(isinstance(tokens, int) and tokens > 0, f"num_tokens gives {tokens!r}, a positive int is expected")
    _require(isinstance(flops, int) and flops > 0, f"num_flops gives {flops!r}, a positive int is expected")


def check_conditioner(
    factory: Callable[[int], Conditioner], *, width: int = 16, batch: MediaBatch | None = None, meta: bool = True
) -> None:
    """Check doors, shapes, the null version, the term of its own, and gradients.

    Args:
        factory: builds a small conditioner for a width.
        width: the backbone's width.
        batch: what to condition on; two captions unless given.
        meta: also build on the meta device; turn off where the weights can only come from files.
    """
    conditioner = check_meta_construction(lambda: factory(width)) if meta else factory(width)
    batch = batch or MediaBatch(captions=["a red circle moves left", 'a sign that says "hello"'], keys=["a", "b"])
    conditioner.eval()
    given, null = conditioner(batch), conditioner.null(batch)
    opened = {door for door in _DOORS if getattr(given, door) is not None}
    closed = opened ^ {door for door in _DOORS if getattr(null, door) is not None}
    _require(bool(opened), "forward opens no door")
    _require(not closed, f"forward and null differ in the doors {sorted(closed)}")
    for door in sorted(opened):
        for tensor in (getattr(given, door), getattr(null, door)):
            _require(tensor.shape[0] == len(batch), f"{door} holds {tensor.shape[0]} samples, the batch {len(batch)}")
            _require(bool(tensor.isfinite().all()), f"{door} is not finite")
            if door in ("context", "modulation", "aligned"):
                _require(tensor.shape[-1] == width, f"{door} is {tensor.shape[-1]} wide, the backbone {width}")
    if given.context_mask is not None:
        _require(given.context_mask.dtype is torch.bool, "context_mask is not boolean")
        _require(bool(given.context_mask.any(dim=1).all()), "a sample has no real context token")
    given.drop(torch.tensor([True] + [False] * (len(batch) - 1)), null)
    Conditioning.stack([given, null])
    conditioner.train()

    def depend() -> list[Tensor]:
        given, null = conditioner(batch), conditioner.null(batch)
        term = conditioner.auxiliary_loss(batch, given)
        _require(term is None or (term.ndim == 0 and bool(term.isfinite())), "auxiliary_loss gives no finite scalar")
        return [getattr(c, d) for c in (given, null) for d in opened - {"context_mask"}] + ([] if term is None else [term])

    check_gradients(conditioner, depend)


def check_autoencoder(factory: Callable[[], Autoencoder], *, num_frames: int = 9, size: int = 16, meta: bool = True) -> None:
    """Check shapes, single frames, and that the latent statistics cancel between encode and decode.

    Args:
        factory: builds a small autoencoder.
        num_frames: frames of the test video; of a sound, latent frames.
        size: rows and columns in pixels; a sound has none.
        meta: also build on the meta device.
    """
    autoencoder: Any = (check_meta_construction(factory) if meta else factory()).eval()
    is_audio = isinstance(autoencoder, AudioAutoencoder)
    if is_audio:
        num_frames = (num_frames - 1) * autoencoder.hop_length + 1
    with torch.no_grad():
        for frames in (1, num_frames):
            shape = (autoencoder.audio_channels, frames) if is_audio else (3, frames, size, size)
            media = torch.rand(2, *shape) * 2 - 1
            expected = autoencoder.latent_shape(frames) if is_audio else autoencoder.latent_shape(frames, size, size)
            latent = autoencoder.encode(media)
            _require(
                latent.shape[1:] == expected, f"encode gives {tuple(latent.shape[1:])} for {frames} frames, latent_shape says {expected}"
            )
            decoded = autoencoder.decode(latent, num_frames=frames)
            _require(decoded.shape == media.shape, f"decode gives {tuple(decoded.shape)}, what was encoded {tuple(media.shape)}")
            _require(bool(decoded.isfinite().all()), "what is decoded is not finite")
        channels = autoencoder.latent_channels
        autoencoder.set_latent_statistics(torch.linspace(-1, 1, channels), torch.linspace(0.5, 2, channels))
        normalised = autoencoder.encode(media)
        _require(not torch.allclose(normalised, latent), "encode ignores the latent statistics; override encode_raw, not encode")
        again = autoencoder.decode(normalised, num_frames=num_frames)
        _require(torch.allclose(decoded, again, atol=1e-3), "the latent statistics do not cancel; override decode_raw, not decode")
    missing = {"latent_mean", "latent_std"} - set(autoencoder.state_dict())
    _require(not missing, f"{sorted(missing)} do not travel with the checkpoint")


def check_sampler(factory: Callable[[], Sampler], *, shape: tuple[int, ...] = (4, 2, 4, 4)) -> None:
    """Check that a constant velocity c takes noise to noise + c, exactly, whatever the schedule, solver, guidance and windows.

    Args:
        factory: builds a sampler.
        shape: latent shape of one sample.
    """
    sampler = factory()
    variants = sampler.variants(["text", "image"])
    _require(bool(variants) and all(variant <= {"text", "image"} for variant in variants), f"variants gives {variants!r}")
    noise = torch.randn(2, *shape)
    kept, constant, steps = noise.clone(), torch.randn(1, shape[0], *[1] * (len(shape) - 1)), []
    told = [Conditioning(modulation=torch.zeros(2, 8)) for _ in variants]
    times = []

    def velocity(x: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        _require(t.shape == (x.shape[0],), f"the velocity field was given times of shape {tuple(t.shape)} for {x.shape[0]} samples")
        times.append(float(t.max()))
        return constant.expand_as(x)

    sample = sampler.sample(velocity, noise, told, progress=lambda step, num_steps: steps.append((step, num_steps)))
    _require(sample.shape == noise.shape, f"the sample has shape {tuple(sample.shape)}, the noise {tuple(noise.shape)}")
    _require(torch.equal(noise, kept), "the noise was changed in place")
    _require(torch.allclose(sample, noise + constant, atol=1e-4), "a constant velocity does not integrate to itself from t = 0 to t = 1")
    _require(min(times) >= 0.0 and max(times) <= 1.0, f"times from {min(times)} to {max(times)} were asked for")
    _require(bool(steps) and steps[-1][0] == steps[-1][1], f"progress ended at {steps[-1:]}")


def check_meta_construction(factory: Callable[[], Any]) -> Any:
    """Build on the meta device, materialise, and check that every parameter and buffer was drawn; gives the module.

    Args:
        factory: builds the module.
    """
    torch.manual_seed(0)
    with torch.device("meta"):
        module = factory()
    real = [name for name, tensor in module.named_parameters() if not tensor.is_meta]
    _require(not real, f"{real[:3]} were allocated although the module was built on the meta device")
    module.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.fill_(float("nan"))
    reset_parameters(module)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        owner = module.get_submodule(name.rpartition(".")[0])
        advice = f"{type(owner).__name__} must set it in reset_parameters()"
        _require(not tensor.is_floating_point() or bool(tensor.isfinite().all()), f"{name} was never drawn; {advice}")
    return module


def check_drawn_alike(factory: Callable[[], nn.Module]) -> None:
    """Check that the parts' `reset_parameters` draw from the distributions that the constructor draws from.

    Args:
        factory: builds the module.
    """
    built = factory()
    with torch.device("meta"):
        drawn = factory()
    drawn.to_empty(device="cpu")
    draw_weights(drawn, 0)
    for (name, one), other in zip(built.named_parameters(), drawn.parameters(), strict=True):
        spread = 1.0 + 6.0 / max(1, one.numel() - 1) ** 0.5  # six standard errors of a deviation, and ample room
        for what, a, b in (("deviation", one.std(correction=0), other.std(correction=0)), ("size", one.norm(), other.norm())):
            alike = bool(a / spread - 1e-6 <= b <= a * spread + 1e-6)
            advice = "draw it there as in the constructor, or leave builds_on_meta false"
            _require(alike, f"{name} has a {what} of {a:.3g} when built and {b:.3g} from reset_parameters(); {advice}")


def reset_parameters(module: nn.Module) -> None:
    """Draw the weights of a materialised module: its own `reset_parameters`, or those of all modules inside."""
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()
        return
    for child in module.children():
        reset_parameters(child)


def check_gradients(module: nn.Module, forward: Callable[[], Any]) -> None:
    """Check that a gradient reaches every trainable parameter, if there is any, zero-initialised layers being moved off zero first.

    Args:
        module: whose parameters.
        forward: a tensor, or tensors, that depend on them.
    """
    if not any(parameter.requires_grad for parameter in module.parameters()):
        return
    _perturb(module)
    module.zero_grad()
    outputs = forward()
    tensors = [outputs] if isinstance(outputs, Tensor) else outputs
    sum((tensor.float() ** 2).sum() for tensor in tensors if tensor.requires_grad).backward()
    unreached = [name for name, p in module.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    _require(not unreached, f"no gradient reaches {unreached[:5]}" + (f" and {len(unreached) - 5} more" if len(unreached) > 5 else ""))


def _parameters(cls: type) -> list[tuple[type, inspect.Parameter]]:
    """The constructor's arguments with their owners; through **kwargs into the parents."""
    found: list[tuple[type, inspect.Parameter]] = []
    for owner in inspect.getmro(cls):
        if "__init__" not in vars(owner) or owner.__module__.partition(".")[0] in ("torch", "lightning"):
            continue
        parameters = list(inspect.signature(vars(owner)["__init__"]).parameters.values())[1:]
        found += [(owner, p) for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def _perturb(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))


def _context(size: int, width: int, length: int, extra_channels: int, latent_shape: tuple[int, ...]) -> Conditioning:
    mask = torch.ones(size, length, dtype=torch.bool)
    mask[:, -1] = False
    channels = torch.randn(size, extra_channels, *latent_shape[1:]) if extra_channels else None
    return Conditioning(context=torch.randn(size, length, width), context_mask=mask, channels=channels)


def _doors(conditioning: Conditioning) -> dict[str, Any]:
    return {door: getattr(conditioning, door) for door in _DOORS}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
