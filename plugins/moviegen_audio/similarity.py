"""How well sounds go with texts or videos: the cosine of contrastive embeddings, for filtering, metrics and the choice among candidates."""

import json
import zipfile
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from moviegen_audio.scorer import Scorer
from moviegen_audio.tagging import windows
from moviegen_core.batch import MediaBatch
from moviegen_core.errors import UsageError
from moviegen_text.pretrained import Dtype, FrozenEncoder, load_encoder, load_pretrained


class SimilarityScorer(Scorer):
    """Likeness of sounds to what they are made for: captions, or videos, of the same batch."""

    @abstractmethod
    def embed_audio(self, audio: Float[Tensor, "b a s"], audio_hz: int) -> Float[Tensor, "b e"]:
        """Embed sounds."""

    @abstractmethod
    def embed_conditions(self, batch: MediaBatch) -> Float[Tensor, "b e"]:
        """Embed what the sounds are compared with."""

    @torch.no_grad()
    def score(self, audio: Float[Tensor, "b a s"], audio_hz: int, batch: MediaBatch) -> Float[Tensor, " b"]:
        """Cosine of each sound's embedding and that of its sample in the batch, -1 to 1."""
        if len(audio) != len(batch):
            raise UsageError(f"{len(audio)} sounds were given", f"the batch has {len(batch)} samples", "give one sound for each")
        sounds = self.embed_audio(audio, audio_hz).float()
        return nn.functional.cosine_similarity(sounds, self.embed_conditions(batch).to(sounds), dim=-1)


class ClapScorer(SimilarityScorer):
    """Audio-text likeness by a CLAP model of the transformers library.

    A sound longer than the model hears at once is embedded window by window; the embeddings' mean, weighted by length, stands for it.

    Args:
        pretrained: folder of a CLAP model that `save_pretrained` wrote, with its preprocessor and tokenizer, or a name on the hub (e.g.
            `laion/larger_clap_general`); with a folder nothing reaches for the network.
        dtype: precision of the model.

    Raises:
        UsageError: there is no such model, or it lacks weights.
    """

    def __init__(self, *, pretrained: str, dtype: Dtype = "float32") -> None:
        from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

        what = "likeness of sounds and texts (CLAP)"
        self.extractor = load_pretrained(ClapFeatureExtractor.from_pretrained, pretrained, what=what)
        self.tokenizer = load_pretrained(AutoTokenizer.from_pretrained, pretrained, what=what)
        self.network = FrozenEncoder(lambda: load_encoder(ClapModel.from_pretrained, pretrained, what=what, dtype=dtype))
        self.dtype = getattr(torch, dtype)
        self.device = torch.device("cpu")

    @torch.no_grad()
    def embed_audio(self, audio: Float[Tensor, "b a s"], audio_hz: int) -> Float[Tensor, "b e"]:
        """Embed sounds, on their device."""
        self.device = audio.device
        return torch.stack([self._embed_sound(sound, audio_hz) for sound in audio])

    @torch.no_grad()
    def embed_conditions(self, batch: MediaBatch) -> Float[Tensor, "b e"]:
        """Embed captions, on the device of the last sounds."""
        network = self.network.on(self.device)
        limit = network.config.text_config.max_position_embeddings - 2
        tokens = self.tokenizer(list(batch.captions), padding=True, truncation=True, max_length=limit, return_tensors="pt")
        found = network.get_text_features(tokens["input_ids"].to(self.device), attention_mask=tokens["attention_mask"].to(self.device))
        return _embeddings(found)

    def _embed_sound(self, sound: Float[Tensor, "a s"], audio_hz: int) -> Float[Tensor, " e"]:
        network, rate = self.network.on(sound.device), self.extractor.sampling_rate
        pieces = windows(sound, audio_hz, rate, self.extractor.nb_max_samples / rate)
        features = self.extractor(pieces, sampling_rate=rate, return_tensors="pt")["input_features"].to(sound.device, self.dtype)
        # No piece is longer than a window; the extractor would mark one at random.
        longer = torch.zeros(len(pieces), 1, dtype=torch.bool, device=sound.device)
        lengths = torch.tensor([float(len(piece)) for piece in pieces], device=sound.device)
        embeddings = _embeddings(network.get_audio_features(features, is_longer=longer)).float()
        return nn.functional.normalize((embeddings * lengths[:, None]).sum(0), dim=-1)


class ExportedAudioVideoScorer(SimilarityScorer):
    """Audio-video likeness by any contrastive model (ImageBind, CAVTP and their like) that was exported to a folder.

    The folder holds two programs of `torch.export`, with a free number of samples: `audio.pt2` maps mono sounds (n, samples) to
    embeddings (n, e), `video.pt2` maps frames (n, 3, f, h, w) to embeddings (n, e); and `scorer.json` with `audio_hz`, `window_s`,
    `num_frames` of a window, `size_px` of the square frames, and `mean` and `std` of each colour for pixels in [0, 1]. Whatever makes a
    spectrogram belongs to the program. Longer media are embedded window by window, and the means are compared.

    Args:
        folder: the folder.

    Raises:
        UsageError: the folder or a part of it is absent, or `scorer.json` lacks something.
    """

    def __init__(self, *, folder: str) -> None:
        path = Path(folder).expanduser()
        missing = [name for name in ("audio.pt2", "video.pt2", "scorer.json") if not (path / name).is_file()]
        if missing:
            raise UsageError(
                f"the folder {folder} was given for likeness of sounds and videos",
                f"it lacks {', '.join(missing)}" if path.is_dir() else "there is no such folder",
                "export a contrastive model with `torch.export.save` as `help(ExportedAudioVideoScorer)` says",
            )
        try:
            told = json.loads((path / "scorer.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"{path / 'scorer.json'} was given", f"it is no json: {error}", "correct it") from error
        wanted = ("audio_hz", "window_s", "num_frames", "size_px", "mean", "std")
        if absent := [name for name in wanted if name not in told]:
            raise UsageError(f"{path / 'scorer.json'} was given", f"it lacks {', '.join(absent)}", "add what the model was trained with")
        self.facts: dict[str, Any] = {name: told[name] for name in wanted}
        self.audio, self.video = (_program(path / name) for name in ("audio.pt2", "video.pt2"))

    @torch.no_grad()
    def embed_audio(self, audio: Float[Tensor, "b a s"], audio_hz: int) -> Float[Tensor, "b e"]:
        """Embed sounds."""
        hz, window_s = self.facts["audio_hz"], self.facts["window_s"]
        length = round(hz * window_s)
        rows = []
        for sound in audio:
            pieces = [np.pad(piece, (0, length - len(piece))) for piece in windows(sound, audio_hz, hz, window_s)]
            rows.append(_mean(self.audio(torch.from_numpy(np.stack(pieces)))))
        return torch.stack(rows).to(audio.device)

    @torch.no_grad()
    def embed_conditions(self, batch: MediaBatch) -> Float[Tensor, "b e"]:
        """Embed videos.

        Raises:
            UsageError: the batch has no videos, or does not say their frame rates.
        """
        if batch.video is None or batch.fps is None:
            raise UsageError(
                "a batch without videos was given to be compared with sounds",
                "likeness to a video needs its frames and their rate",
                "give `data.video: true`, or compare with captions (ClapScorer)",
            )
        return torch.stack([_mean(self.video(self._windows(video, float(fps)))) for video, fps in zip(batch.video, batch.fps, strict=True)])

    def _windows(self, video: Float[Tensor, "3 t h w"], fps: float) -> Float[Tensor, "n 3 f h w"]:
        facts, num_frames = self.facts, self.facts["num_frames"]
        per_window = max(1, round(facts["window_s"] * fps))
        count = max(1, round(video.shape[1] / per_window))
        edges = [round(video.shape[1] * part / count) for part in range(count + 1)]
        chosen = torch.cat(
            [first + ((torch.arange(num_frames) + 0.5) * (last - first) / num_frames).long() for first, last in zip(edges[:-1], edges[1:])]
        )
        frames = video[:, chosen].movedim(1, 0).float().cpu() / 2 + 0.5
        side = min(frames.shape[-2:])
        top, left = (frames.shape[-2] - side) // 2, (frames.shape[-1] - side) // 2
        frames = frames[..., top : top + side, left : left + side]
        size = (facts["size_px"], facts["size_px"])
        frames = nn.functional.interpolate(frames, size=size, mode="bilinear", antialias=True, align_corners=False)
        mean, std = (torch.tensor(facts[name]).view(3, 1, 1) for name in ("mean", "std"))
        return ((frames - mean) / std).unflatten(0, (count, num_frames)).movedim(2, 1)


def _program(path: Path) -> nn.Module:
    if not zipfile.is_zipfile(path):  # before torch tells of it at length
        raise UsageError(f"{path} was given", "it is no program of `torch.export.save`, or cut short", "export or copy it again")
    return torch.export.load(path).module()


def _embeddings(found: Any) -> Tensor:
    # transformers gives a record since 5.0.
    return found if isinstance(found, Tensor) else found.pooler_output


def _mean(embeddings: Float[Tensor, "n e"]) -> Float[Tensor, " e"]:
    return nn.functional.normalize(nn.functional.normalize(embeddings.float(), dim=-1).mean(0), dim=-1)
