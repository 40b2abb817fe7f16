"""The Movie Gen Audio backbone (6.1.2): a transformer over the frames of a latent sound. Shape legend: `moviegen_core.batch`."""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from moviegen_core.conditioner import Conditioning
from moviegen_core.errors import UsageError
from moviegen_core.nn.blocks import ActivationCheckpointing, CompileMode
from moviegen_core.nn.transformer import FeedForwardKind
from moviegen_t2v.model import VideoTransformer


class AudioTransformer(VideoTransformer):
    """Predicts the velocity of a latent sound (b, c, t), one token per latent frame; the defaults are the sizes of 6.1.6.

    To the video transformer a sound is a video of one row and one column, so everything that is known of that one holds for this one:
    modulation by one network for all layers with a bias per layer (6.1.2), cross-attention between self-attention and feed-forward
    network (6.1.3), meshes, footprint, compilation.

    The paper counts 13B parameters. A layer of width d has 4 d² in self-attention, 4 d² in cross-attention and, as 18,432 is 4 x 4,608,
    8 d² in a feed-forward network of two matrices: 36 · 16 d² = 12.23B, and what all layers share adds 9 d² = 0.19B. A gated network of
    three matrices would make it 15.5B, so the default is the plain one.

    Args:
        num_layers: transformer blocks (36 in 6.1.6).
        width: width d of tokens and context (4608 in 6.1.6).
        ffn_width: inner width of the feed-forward networks (18432 in 6.1.6).
        num_heads: attention heads; divides `width`. The paper does not tell; 36 are 128 wide, as those of the video model.
        in_channels: channels of the latent, in and out (128 in 6.1.3).
        extra_channels: channels added through the `channels` door, which is `in_channels` for the audio context; their input weights
            start at zero.
        max_frames: length of the table of positions in latent frames (750 are 30 s, 6.1.6).
        norm_eps: added to the mean square in the norms.
        feed_forward: "gelu" with two matrices, or "swiglu" with three.
        activation_checkpointing: what each block keeps for its backward pass, see `VideoTransformer`.
        kept_activations: share of the bytes of products that "selective" keeps, in [0, 1].
        compile_blocks: compile each block with this mode of `torch.compile`; not compiled unless given.
    """

    def __init__(
        self,
        *,
        num_layers: int = 36,
        width: int = 4608,
        ffn_width: int = 18432,
        num_heads: int = 36,
        in_channels: int = 128,
        extra_channels: int = 128,
        max_frames: int = 750,
        norm_eps: float = 1e-5,
        feed_forward: FeedForwardKind = "gelu",
        activation_checkpointing: ActivationCheckpointing = "none",
        kept_activations: float = 0.5,
        compile_blocks: CompileMode | None = None,
    ) -> None:
        super().__init__(
            num_layers=num_layers,
            width=width,
            ffn_width=ffn_width,
            num_heads=num_heads,
            in_channels=in_channels,
            extra_channels=extra_channels,
            patch_size=(1, 1, 1),
            max_frames=max_frames,
            max_height=1,
            max_width=1,
            norm_eps=norm_eps,
            feed_forward=feed_forward,
            activation_checkpointing=activation_checkpointing,
            kept_activations=kept_activations,
            compile_blocks=compile_blocks,
        )
        self.max_frames = max_frames

    def forward(self, x_t: Float[Tensor, "b c t"], t: Float[Tensor, " b"], conditioning: Conditioning) -> Float[Tensor, "b c t"]:
        """Predict the velocity at `x_t`; t in [0, 1], 0 is noise and 1 is data.

        Raises:
            UsageError: the sound is longer than the table of positions; a door is open that this backbone has not, or sizes disagree.
        """
        self._refuse_what_is_no_sound(x_t)
        channels = conditioning.channels
        told = conditioning if channels is None else replace(conditioning, channels=channels[..., None, None])
        # Cloned, because FSDP wants no view of what it watches.
        return super().forward(x_t[..., None, None], t, told)[..., 0, 0].clone()

    def num_tokens(self, latent_shape: tuple[int, ...]) -> int:
        """Sequence length for one latent of shape (c, t): its frames."""
        _, num_frames = latent_shape
        return num_frames

    def _refuse_what_is_no_sound(self, x_t: Tensor) -> None:
        if x_t.ndim != 3:
            raise UsageError(
                f"a latent of shape {tuple(x_t.shape)} was given", "a sound's is (samples, channels, frames)", "give latents of sounds"
            )
        if x_t.shape[2] > self.max_frames:
            raise too_long(x_t.shape[2], self.max_frames)


def too_long(num_frames: int, max_frames: int) -> UsageError:
    """What to say of a sound, or of a segment of one, that the backbone has no positions for."""
    return UsageError(
        f"{num_frames} latent frames of a sound at once were given",
        f"the backbone's table of positions ends at {max_frames}",
        f"in training cut the sounds, or raise max_frames; in sampling give a sampler a `window` of at most {max_frames}: {_samplers()}",
    )


def _samplers() -> str:
    """The installed samplers, of which those of long sounds never show the backbone the whole."""
    from moviegen_core.plugins import plugin_host

    offered = [found[0][0] for found in plugin_host().components.values()]
    names = [component.class_path.rpartition(".")[2] for component in offered if component.kind == "sampler"]
    return ", ".join(sorted(names))
