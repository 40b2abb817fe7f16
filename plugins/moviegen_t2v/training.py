"""Joint text-to-image and text-to-video training and prediction (paper 3.1.3, 3.2)."""

from torch import Tensor

from moviegen_core.generator import FlowModel
from moviegen_t2v.growth import grow


class TextToVideo(FlowModel):
    """Movie Gen Video: one model for images (videos of one frame) and videos, conditioned on text.

    Arguments are those of `FlowModel`. Loading an earlier stage through `init_checkpoint` grows the positional tables to this model's
    sizes (3.2.2), so the staged recipe is one checkpoint path per stage.
    """

    def adapt_state_dict(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Grow positional tables and input weights to this backbone's sizes."""
        prefix = "backbone."
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        rest = {key: value for key, value in state.items() if not key.startswith(prefix)}
        return rest | {prefix + key: value for key, value in grow(own, self.backbone).items()}
