"""Sound for films that have none."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moviegen_core.errors import UsageError, require_at_least

_SIDE_PX = 256  # of the shorter side; frame encoders see less
_MOST_FPS = 25.0  # latent frames per second (6.1.3)


def add_sound(
    film: str,
    *,
    output: str = "film_with_sound.mp4",
    prompt: str = "",
    checkpoint: str = "quickstart/audio/chosen.ckpt",
    seed: int = 0,
    steps: int = 64,
    guidance_scale: float = 3.0,
) -> None:
    """Generate the sound of a film with a trained video-to-audio model, and write the film with it.

    The picture is copied as it is where an mp4 can hold it, and otherwise encoded anew.

    Args:
        film: a video file of any kind; what sound it has is replaced.
        output: the file to write, ending in .mp4.
        prompt: what shall be heard; the film alone decides unless given.
        checkpoint: a checkpoint of video-to-audio training; the quickstart's unless given.
        seed: chooses the noise.
        steps: solver steps.
        guidance_scale: how strictly film and prompt are followed; 1 is no stricter than the model was trained.
    """
    from moviegen_core.files import write_bytes
    from moviegen_core.media.video import copy_with_sound, encode_video

    require_at_least(1, steps=steps)
    wanted = (("film", film, "give a video file"), ("checkpoint", checkpoint, "train a model, e.g. `moviegen quickstart`"))
    for name, path, advice in wanted:
        if not Path(path).is_file():
            raise UsageError(f"{name} {path} was given", "there is no such file", advice)
    if Path(output).suffix != ".mp4":
        raise UsageError(f"--output {output} was given", "films with sound are written as .mp4", "give a name that ends in .mp4")
    if Path(output).exists() and Path(output).samefile(film):
        raise UsageError(f"--output {output} was given", "it is the film itself, which would be lost", "give another name")
    clip = watch_film(film)
    model = load_model(checkpoint, seed=seed, steps=steps, guidance_scale=guidance_scale)
    (audio,) = sounds_for(model, [clip], captions=[prompt], keys=[Path(film).stem])
    encoded = copy_with_sound(film, audio, model.audio_hz)
    if encoded is None:
        whole = read_film(film)
        encoded = encode_video(whole.video, fps=whole.fps, audio=audio, audio_hz=model.audio_hz)
    write_bytes(output, encoded)
    print(f"wrote {output}")


def watch_film(path: str | Path) -> Any:
    """A video file as `moviegen_core.media.video.Clip`, upright, small and at no more frames than a sound has latents: what a model sees.

    Raises:
        UsageError: it cannot be read to its end.
    """
    import torch

    from moviegen_core.media.video import Clip
    from moviegen_data.faults import SampleError
    from moviegen_data.video import VideoDecoder

    videos = VideoDecoder()
    try:
        info, (count, duration_s) = videos.probe(path), videos.count(path)
        fps = min(count / duration_s, _MOST_FPS)
        scale = min(1.0, _SIDE_PX / min(info.height, info.width))
        video = torch.empty(3, max(1, round(duration_s * fps)), round(info.height * scale), round(info.width * scale))
        videos.decode(path, video, fps=fps, hold_last=True)
    except SampleError as error:
        raise UsageError(
            f"the film {path} was given", f"no video can be read from it ({error})", "give a file that a player shows"
        ) from error
    return Clip(video=video, fps=fps)


def read_film(path: str | Path) -> Any:
    """A video file as `moviegen_core.media.video.Clip`.

    Raises:
        UsageError: it cannot be read.
    """
    import av

    from moviegen_core.media.video import read_video

    try:
        return read_video(path)
    except (av.FFmpegError, IndexError, ValueError) as error:
        cause = f"{type(error).__name__}: {error}"
        raise UsageError(
            f"the film {path} was given", f"no video can be read from it ({cause})", "give a file that a player shows"
        ) from error


def load_model(checkpoint: str | Path, *, seed: int, steps: int, guidance_scale: float) -> Any:
    """A video-to-audio model with the midpoint solver of 6.1.6, and MultiDiffusion where a film is longer than its positions.

    Raises:
        UsageError: the checkpoint is of another kind of model.
    """
    from moviegen_audio import MultiDiffusion, VideoToAudio
    from moviegen_core.flow.schedules import LinearSchedule
    from moviegen_core.flow.solvers import MidpointSolver
    from moviegen_core.weights import build_from_checkpoint

    model = build_from_checkpoint(checkpoint)
    if not isinstance(model, VideoToAudio):
        raise UsageError(
            f"the checkpoint {checkpoint} was given", f"it holds a {type(model).__name__}", "give one of a VideoToAudio, e.g. audio/toy"
        )
    window = model.backbone.max_frames
    options = {"steps": steps, "guidance_scale": guidance_scale, "schedule": LinearSchedule(), "solver": MidpointSolver()}
    model.sampler = MultiDiffusion(window=window, hop=window - window // 4, **options)
    model.seed = seed
    return model


def sounds_for(model: Any, clips: Sequence[Any] | None, *, captions: Sequence[str], keys: Sequence[str], **more: Any) -> list[Any]:
    """Sounds (a, s) for films of equal size and length, or for captions alone.

    Args:
        model: a `VideoToAudio`.
        clips: the films; None for none.
        captions: one each; empty ones say nothing.
        keys: names that choose the noise.
        more: further arguments of `VideoToAudio.generate`.
    """
    import torch

    if clips is None:
        return list(model.generate(captions, keys=keys, **more))
    video, fps = torch.stack([clip.video for clip in clips]), torch.tensor([float(clip.fps) for clip in clips])
    return list(model.generate(captions, keys=keys, video=video, fps=fps, **more))


def hearing_figures(model: Any, *, num_clips: int, world: Mapping[str, Any], batch_size: int = 32) -> dict[str, Any]:
    """What the oracle hears in the sounds of held-out silent toy films, and when the film or the caption is left out.

    Args:
        model: a `VideoToAudio` that was trained on the toy world.
        num_clips: held-out films; timing and combinations of shape, colour and motion were never trained on.
        world: settings of `moviegen_data.toyworld.world.World`.
        batch_size: films at a time.
    """
    from moviegen_core.media.video import Clip
    from moviegen_data.toyworld import sound_caption
    from moviegen_data.toyworld.stream import to_pixels
    from moviegen_data.toyworld.world import World
    from moviegen_eval import hearing_chance, score_sounds

    drawn = World(**{**world, "split": "held_out", "vary_timing": True, "audio_hz": model.audio_hz})
    clips = [drawn.clip("predict", index) for index in range(num_clips)]
    films = [Clip(video=pixels, fps=clip.fps) for pixels, clip in zip(to_pixels(clips), clips, strict=True)]
    told = [sound_caption(clip.spec) for clip in clips]
    duration_s = drawn.num_frames / drawn.fps
    cases = {"film and caption": (True, True), "film alone": (True, False), "caption alone": (False, True), "nothing": (False, False)}
    figures: dict[str, Any] = {}
    for name, (with_film, with_caption) in cases.items():
        sounds = []
        for first in range(0, num_clips, batch_size):
            part = slice(first, first + batch_size)
            captions = told[part] if with_caption else [""] * len(told[part])
            keys = [f"sound-{index}" for index in range(num_clips)][part]
            sounds += sounds_for(model, films[part] if with_film else None, captions=captions, keys=keys, duration_s=duration_s)
        score = score_sounds(sounds, model.audio_hz, [clip.spec for clip in clips], [clip.events for clip in clips])
        figures[name] = {key: round(share, 4) for key, share in score.to_dict().items()}
    guess = hearing_chance([clip.events for clip in clips])
    return {**figures, "chance": {key: round(share, 4) for key, share in guess.items()}, "num_clips": num_clips}
