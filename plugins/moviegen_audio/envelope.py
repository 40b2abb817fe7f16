"""How loud a sound is from one latent frame to the next, and its prediction from what a video tells."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def latent_envelope(latents: Float[Tensor, "b c t"]) -> Float[Tensor, "b t"]:
    """log(1 + mean square over channels) of every latent frame: near 0 in silence, and growing with what happens."""
    return torch.log1p(latents.float().square().mean(1))


class EnvelopeHead(nn.Module):
    """Predicts the envelope of the sound's latents from the features that are added to them.

    Args:
        width: width of the features.
        hidden_width: width between its two convolutions, of five latent frames each.
    """

    def __init__(self, *, width: int, hidden_width: int = 64) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(nn.Conv1d(width, hidden_width, 5, padding=2), nn.SiLU(), nn.Conv1d(hidden_width, 1, 5, padding=2))

    def forward(self, aligned: Float[Tensor, "b t d"]) -> Float[Tensor, "b t"]:
        """The envelope that the features tell of."""
        return self.convolutions(aligned.transpose(1, 2))[:, 0]

    def loss(self, aligned: Float[Tensor, "b t d"], latents: Float[Tensor, "b c t"]) -> Float[Tensor, ""]:
        """Mean squared error of the envelope."""
        return F.mse_loss(self(aligned).float(), latent_envelope(latents))
