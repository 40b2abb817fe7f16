"""Joint text-to-image and text-to-video training and prediction (paper 3.1.3, 3.2)."""

from collections.abc import Mapping

from torch import Tensor

from moviegen_core.generator import FlowModel
from moviegen_t2v.growth import grow_stage


class TextToVideo(FlowModel):
    """Movie Gen Video: one model for images (videos of one frame) and videos, conditioned on text.

    Arguments are those of `FlowModel`. Loading an earlier stage through `init_checkpoint` grows the positional tables to this model's
    sizes (3.2.2), so the staged recipe is one checkpoint path per stage.
    """

    def adapt_state_dict(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Grow positional tables and input weights to this backbone's sizes."""
        return grow_stage(state, self.backbone)
