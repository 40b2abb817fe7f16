"""Audio event detection by classifiers of the transformers library (6.2.1)."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from moviegen_core.errors import UsageError
from moviegen_data.resampling import resample
from moviegen_text.pretrained import Dtype, FrozenEncoder, load_encoder, load_pretrained


class AudioTagger:
    """Says which of AudioSet's labels (or those of any other classifier) are heard in a sound.

    A sound longer than a window is tagged window by window, and a label's likelihood is its highest.

    Args:
        pretrained: folder of an audio classifier that `save_pretrained` wrote, with its preprocessor_config.json, or a name on the hub
            (e.g. `MIT/ast-finetuned-audioset-10-10-0.4593`); with a folder nothing reaches for the network.
        window_s: seconds that the classifier hears at once, 10 for AudioSet.
        exclusive: labels exclude each other (softmax); AudioSet's do not (sigmoid).
        dtype: precision of the classifier.

    Raises:
        UsageError: there is no such model, or it lacks weights.
    """

    def __init__(self, *, pretrained: str, window_s: float = 10.0, exclusive: bool = False, dtype: Dtype = "float32") -> None:
        if not 0.1 <= window_s < float("inf"):
            raise UsageError(f"window_s={window_s} was given", "a window lasts 0.1 s or longer", "give seconds, e.g. 10")
        self.extractor = load_pretrained(AutoFeatureExtractor.from_pretrained, pretrained, what="audio tags")
        self.network = FrozenEncoder(
            lambda: load_encoder(AutoModelForAudioClassification.from_pretrained, pretrained, what="audio tags", dtype=dtype)
        )
        self.window_s, self.exclusive, self.dtype = window_s, exclusive, getattr(torch, dtype)

    @torch.no_grad()
    def tag(self, audio: Float[Tensor, "b a s"], audio_hz: int) -> list[dict[str, float]]:
        """Likelihood of every label in each sound."""
        return [self._tag_one(sound, audio_hz) for sound in audio]

    def _tag_one(self, sound: Float[Tensor, "a s"], audio_hz: int) -> dict[str, float]:
        network = self.network.on(sound.device)
        pieces = windows(sound, audio_hz, self.extractor.sampling_rate, self.window_s)
        # Extractors need a spectrum's length; a sound of less than 0.1 s is followed by silence.
        pieces = [np.pad(piece, (0, max(0, self.extractor.sampling_rate // 10 - len(piece)))) for piece in pieces]
        features = self.extractor(pieces, sampling_rate=self.extractor.sampling_rate, return_tensors="pt", padding=True)
        inputs = {name: value.to(sound.device, self.dtype if value.is_floating_point() else None) for name, value in features.items()}
        logits = network(**inputs).logits.float()
        likely = (logits.softmax(-1) if self.exclusive else logits.sigmoid()).amax(0)
        return {network.config.id2label[number]: value for number, value in enumerate(likely.tolist())}


def windows(sound: Float[Tensor, "a s"], from_hz: int, to_hz: int, window_s: float) -> list[np.ndarray]:
    """Mono pieces of a sound at another rate, `window_s` long; the last is shorter, but not so short that it says nothing.

    Raises:
        UsageError: the sound is empty or without channels, holds NaN or infinite values, or its rate is below 1.
    """
    if sound.ndim != 2 or not sound.numel() or not bool(sound.isfinite().all()) or from_hz < 1:
        raise UsageError(
            f"a sound of shape {tuple(sound.shape)} and {from_hz} Hz was given",
            "it is not (channels, samples), empty, or holds NaN or infinite values",
            "look at its source",
        )
    mono = resample(sound.float().mean(0, keepdim=True).cpu().numpy(), from_hz, to_hz)[0]
    length = round(window_s * to_hz)
    pieces = [mono[start : start + length] for start in range(0, len(mono), length)]
    return pieces[:-1] if len(pieces) > 1 and len(pieces[-1]) < length // 10 else pieces
