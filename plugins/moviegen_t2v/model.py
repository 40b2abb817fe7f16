"""The Movie Gen Video backbone (3.1.3): a transformer over the patches of a latent video. Shape legend: `moviegen_core.batch`."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moviegen_core.backbone import Backbone
from moviegen_core.conditioner import Conditioning
from moviegen_core.errors import UsageError, require_at_least
from moviegen_core.nn.blocks import ActivationCheckpointing, CompileMode, prepare_blocks
from moviegen_core.nn.linear import Projection, compute_dtype
from moviegen_core.nn.modulation import LayerModulation, RMSNorm, TimeEmbedding
from moviegen_core.nn.patchify import Patchify, PatchSize, Unpatchify
from moviegen_core.nn.positions import FactorizedPositions
from moviegen_core.nn.sequence import WholeSequence
from moviegen_core.nn.transformer import FeedForwardKind, TransformerBlock

if TYPE_CHECKING:
    from moviegen_core.footprint import Footprint
    from moviegen_core.parallel.plan import ParallelPlan


class VideoTransformer(Backbone):
    """Predicts the velocity of a latent video or image (a video of one frame); Table 1 gives the 30B sizes, the defaults here.

    Any size up to the positional tables goes in. The gates start closed and the output at zero (adaLN-zero), so the first prediction is
    the zero velocity and the first gradients reach the output, then the gates, then the layers.

    Args:
        num_layers: transformer blocks (48 in Table 1).
        width: width d of tokens and context (6144 in Table 1).
        ffn_width: inner width of the feed-forward networks (16384 in Table 1).
        num_heads: attention heads (48 in Table 1); divides `width`.
        in_channels: channels of the latent, in and out.
        extra_channels: channels added through the `channels` door; their input weights start at zero.
        patch_size: latent cells per token along frames, rows and columns.
        max_frames: length of the temporal table in patches (32 latent frames, 3.2.2).
        max_height: length of the table of rows in patches (96 after both growths of 3.2.2).
        max_width: length of the table of columns in patches.
        norm_eps: added to the mean square in the norms.
        feed_forward: "swiglu" with three matrices (3.1.3), or "gelu" with two.
        activation_checkpointing: what each block keeps for its backward pass: "none" everything that it needs, "block" its input alone,
            "selective" also outputs of matrix products and attention; the rest is computed again.
        kept_activations: share of the bytes of those outputs that "selective" keeps, in [0, 1]; those that save most FLOPs per byte go
            first, so attention over long sequences before anything else.
        compile_blocks: compile each block with this mode of `torch.compile`, one static graph for every size of latent and context;
            "reduce-overhead" replays CUDA graphs, on one GPU alone. Not compiled unless given.
    """

    builds_on_meta = True

    def __init__(
        self,
        *,
        num_layers: int = 48,
        width: int = 6144,
        ffn_width: int = 16384,
        num_heads: int = 48,
        in_channels: int = 16,
        extra_channels: int = 0,
        patch_size: PatchSize = (1, 2, 2),
        max_frames: int = 32,
        max_height: int = 96,
        max_width: int = 96,
        norm_eps: float = 1e-5,
        feed_forward: FeedForwardKind = "swiglu",
        activation_checkpointing: ActivationCheckpointing = "none",
        kept_activations: float = 0.5,
        compile_blocks: CompileMode | None = None,
    ) -> None:
        sizes = {"max_frames": max_frames, "max_height": max_height, "max_width": max_width}
        require_at_least(1, num_layers=num_layers, width=width, ffn_width=ffn_width, num_heads=num_heads, in_channels=in_channels, **sizes)
        super().__init__(in_channels=in_channels, width=width, extra_channels=extra_channels)
        self.ffn_width = ffn_width
        self.feed_forward = feed_forward
        self.patchify = Patchify(in_channels=in_channels, width=width, patch_size=patch_size, extra_channels=extra_channels)
        # Positions are added in every layer, so all layers together add about one unit.
        std = 1.0 / num_layers
        self.positions = FactorizedPositions(width=width, max_frames=max_frames, max_height=max_height, max_width=max_width, std=std)
        self.time_embedding = TimeEmbedding(width=width)
        self.modulation = Projection(width, 6 * width, gain=0.0)
        # The sum of 3 outputs per layer then starts with the variance of one.
        output_gain = (3 * num_layers) ** -0.5
        self.blocks = nn.ModuleList(
            TransformerBlock(
                width=width,
                ffn_width=ffn_width,
                num_heads=num_heads,
                norm_eps=norm_eps,
                output_gain=output_gain,
                feed_forward=feed_forward,
            )
            for _ in range(num_layers)
        )
        self.activation_checkpointing, self.kept_activations = activation_checkpointing, kept_activations
        self.compile_blocks = compile_blocks
        prepare_blocks(
            self.blocks,
            activation_checkpointing=activation_checkpointing,
            kept_activations=kept_activations,
            compile_blocks=compile_blocks,
        )
        self.final_modulation = Projection(width, 2 * width, gain=0.0)
        self.final_bias = LayerModulation(width=width, num_outputs=2)
        self.final_norm = RMSNorm(width=width, eps=norm_eps)
        self.unpatchify = Unpatchify(width=width, out_channels=in_channels, patch_size=patch_size)
        self.sequence = WholeSequence()

    def forward(self, x_t: Float[Tensor, "b c t h w"], t: Float[Tensor, " b"], conditioning: Conditioning) -> Float[Tensor, "b c t h w"]:
        """Predict the velocity at `x_t`; t in [0, 1], 0 is noise and 1 is data.

        Raises:
            UsageError: a door is open that this backbone has not, or sizes disagree.
        """
        grid = self.patchify.grid(x_t.shape)
        x = self.patchify(self._with_extra_channels(x_t, conditioning))
        dtype = compute_dtype(x)
        x = self._with_aligned(x.to(dtype), grid, conditioning)
        positions = self.positions(*grid).to(dtype)

        embedding = self.time_embedding(t)
        if conditioning.modulation is not None:
            embedding = embedding + conditioning.modulation.to(embedding.dtype)
        embedding = nn.functional.silu(embedding)
        modulation = self.modulation(embedding).unflatten(-1, (6, -1))

        context, mask = conditioning.context, conditioning.context_mask
        if context is not None:
            context, mask = context.to(dtype), mask[:, None, None, :]

        x, positions = self.sequence.split(x, dim=1), self.sequence.split(positions, dim=0)
        modulation = self.sequence.replicate(modulation)
        context = None if context is None else self.sequence.replicate(context)
        for block in self.blocks:
            x = block(x, positions, modulation, context, mask)

        x = self.sequence.leave_tensor_group(x)
        scale, shift = self.final_bias(self.final_modulation(embedding).unflatten(-1, (2, -1)))
        cells = self.sequence.join(self.unpatchify.linear(self.final_norm(x, scale, shift)))
        return self.unpatchify.fold(cells, grid).to(x_t.dtype)

    def parallelize(self, plan: "ParallelPlan") -> None:
        """Shard the backbone over data, context and tensor."""
        from moviegen_t2v.parallelize import parallelize

        parallelize(self, plan)

    def num_tokens(self, latent_shape: tuple[int, ...]) -> int:
        """Sequence length for one latent of shape (c, t, h, w)."""
        t, h, w = self.patchify.grid(latent_shape)
        return t * h * w

    def num_flops(self, latent_shape: tuple[int, ...], context_length: int) -> int:
        """Floating-point operations of one forward pass of one sample (a multiply-add counts two)."""
        n, d = self.num_tokens(latent_shape), self.width
        attention = 8 * n * d * d + 4 * n * n * d
        cross_attention = 4 * (n + context_length) * d * d + 4 * n * context_length * d if context_length else 0
        ffn = (6 if self.feed_forward == "swiglu" else 4) * n * d * self.ffn_width
        edges = 2 * n * (self.patchify.weight.numel() + self.unpatchify.linear.weight.numel())
        once = 2 * (self.time_embedding.num_frequencies * d + d * d + 6 * d * d + 2 * d * d)
        return len(self.blocks) * (attention + cross_attention + ffn) + edges + once

    def footprint(
        self, latent_shape: tuple[int, ...], context_length: int, *, context: int = 1, tensor: int = 1, element_bytes: int = 2
    ) -> "Footprint":
        """What one sample costs a process in training."""
        from moviegen_t2v.footprint import footprint

        return footprint(self, latent_shape, context_length, context=context, tensor=tensor, element_bytes=element_bytes)

    def _with_extra_channels(self, x_t: Tensor, conditioning: Conditioning) -> Tensor:
        channels = conditioning.channels
        found = 0 if channels is None else channels.shape[1]
        if x_t.shape[1] != self.in_channels:
            raise UsageError(
                f"a latent of {x_t.shape[1]} channels was given",
                f"this backbone takes {self.in_channels}",
                "set the backbone's in_channels to the autoencoder's latent_channels",
            )
        if found != self.extra_channels:
            raise UsageError(
                f"the conditioners gave {found} extra channels",
                f"this backbone has weights for {self.extra_channels}",
                f"set its extra_channels={found} or change the conditioners",
            )
        if channels is None:
            return x_t
        if channels.shape[2:] != x_t.shape[2:]:
            raise UsageError(
                f"extra channels of {tuple(channels.shape[2:])} (frames, rows, columns) were given",
                f"the latent has {tuple(x_t.shape[2:])}",
                "resize the conditioner's map to the latent",
            )
        return torch.cat([x_t, channels.to(x_t.dtype)], dim=1)

    def _with_aligned(self, x: Tensor, grid: tuple[int, int, int], conditioning: Conditioning) -> Tensor:
        aligned = conditioning.aligned
        if aligned is None:
            return x
        if aligned.shape[1] != grid[0]:
            raise UsageError(
                f"aligned features of {aligned.shape[1]} frames were given",
                f"the latent has {grid[0]} frames of patches",
                "resample the features to the latent's frames",
            )
        return (x.unflatten(1, (grid[0], -1)) + aligned.to(x.dtype)[:, :, None]).flatten(1, 2)
