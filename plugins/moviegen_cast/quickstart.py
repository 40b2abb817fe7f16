"""The main job in one command: render a world, train models of films and of sounds on it, make films, let the oracles judge them.

Every stage is one of the ordinary commands with one of the ordinary presets (`quickstart/*`), so each can be run by hand.
"""

import json
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from moviegen_cast.report import Figures, read_scalars, write_page, write_report
from moviegen_cast.stages import Stage, StagedRun
from moviegen_core.files import write_bytes

_MASTER = "chosen.ckpt"
_FPS = 16.0  # as in the presets


def quickstart(
    folder: str = "quickstart",
    *,
    num_clips: int = 3072,
    num_pairs: int = 96,
    two_object_share: float = 0.0625,
    spread: float = 0.1,
    sound: bool = True,
    max_steps: int | None = None,
    num_threads: int | None = None,
    seed: int = 0,
) -> None:
    """Render the toy world, train on it, and leave film.mp4, contact_sheet.png, report.json and index.html in a folder.

    Stages that are done are not done again; an interrupted stage goes on from its last checkpoint.

    Args:
        folder: where everything goes.
        num_clips: films to train on.
        num_pairs: held-out prompts, each with its own noise, that the oracle judges.
        two_object_share: share of the training films with two objects.
        spread: share of the toy world's ranges of radius, position and path length that scenes are drawn from, 0 to 1. The presets' steps
            are chosen for the default; a larger spread wants more of them. Two objects always have the whole ranges of positions.
        sound: also train a DAC-VAE and a video-to-audio model, and give the films their sound.
        max_steps: steps of every training in place of its preset's, for a trial run that learns nothing.
        num_threads: threads of the CPU to use; all unless given.
        seed: root of all randomness.
    """
    import torch

    from moviegen_data.toyworld import sample_scene

    if num_threads is not None:
        torch.set_num_threads(num_threads)
    sample_scene(seed, spread=spread)  # refuses a spread that the world does not have before anything is written
    world = {"spread": spread, "seed": seed}
    settings = {"num_clips": num_clips, "num_pairs": num_pairs, "two_object_share": two_object_share, "max_steps": max_steps, **world}
    run = StagedRun(Path(folder), settings=settings)
    root = run.folder
    cap = (
        []
        if max_steps is None
        else [f"--trainer.{name}" for name in (f"max_steps={max_steps}", "val_check_interval=1", "log_every_n_steps=1")]
    )
    clips, latents = root / "clips", root / "latents"
    films = ["--data.urls", str(clips / "train-*.tar"), "--data.val_urls", str(clips / "val-*.tar")]
    mixed = ["--data.images.urls", str(clips / "train-*.tar")]
    cached = ["--data.urls", str(latents / "train-*.tar"), "--data.val_urls", str(latents / "val-*.tar")]
    sounds, codec = [f"--data.seed={seed}"], root / "dac_vae" / _MASTER
    image_weights, weights = root / "tae_image" / _MASTER, root / "tae" / _MASTER
    stages = [
        Stage("clips", "render the toy world into shards", partial(_render, num_clips=num_clips, share=two_object_share, world=world)),
        Stage("tae_image", "train the image autoencoder", partial(_fit, preset="quickstart/tae_image", args=[*films, *cap])),
        Stage(
            "tae",
            "inflate it and train the temporal autoencoder",
            partial(_fit, preset="quickstart/tae", args=[*films, *mixed, f"--model.image_checkpoint={image_weights}", *cap]),
        ),
        Stage("latents", "cache the latents", partial(_cache, clips=clips, weights=weights)),
        Stage(
            "t2v",
            "train text-to-video",
            partial(_fit, preset="quickstart/t2v", args=[*cached, f"--model.autoencoder_checkpoint={weights}", *cap]),
        ),
        Stage("films", "generate films for held-out prompts", partial(_generate, root=root, num_pairs=num_pairs, world=world)),
        Stage("oracle", "let the oracle judge", partial(_judge, root=root, weights=weights)),
    ]
    if sound:
        stages += [
            Stage("dac_vae", "train the autoencoder of sounds", partial(_fit, preset="quickstart/dac_vae", args=[*sounds, *cap])),
            Stage(
                "audio",
                "train video-to-audio",
                partial(_fit, preset="quickstart/audio", args=[*sounds, f"--model.autoencoder_checkpoint={codec}", *cap]),
            ),
            Stage("sound", "give the films their sound, and listen", partial(_sound, root=root, num_pairs=num_pairs, seed=seed)),
        ]
    run.run(stages)
    _report(run, spread=spread)


def _render(folder: Path, *, num_clips: int, share: float, world: dict[str, Any]) -> None:
    from moviegen_data.shards import ShardWriter

    for prefix, count in (("train", num_clips), ("val", 64)):
        with ShardWriter(folder, prefix=prefix, max_samples=512, overwrite=True) as writer:
            for key, parts in _samples(prefix, count, share, world):
                writer.write(key, parts)


def _samples(stage: str, count: int, share: float, world: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    from moviegen_data.toyworld import render_scenes
    from moviegen_data.toyworld.media import encode_sample

    num_two_object = round(count * share)
    for num_objects, number in ((1, count - num_two_object), (2, num_two_object)):
        for key, clip in render_scenes(number, num_objects=num_objects, split="train", stage=stage, fps=_FPS, **world):
            yield f"{key}-{num_objects}", encode_sample(clip)


def _fit(folder: Path, *, preset: str, args: Sequence[str]) -> None:
    """Run `moviegen fit`, from the last checkpoint of an interrupted one where there is any."""
    from moviegen_core.cli import main

    if (folder / _MASTER).is_file():
        return
    last = folder / "checkpoints" / "last.ckpt"
    resume = [f"--ckpt_path={last}"] if last.is_file() else []
    main(["fit", "--config", preset, f"--trainer.logger.save_dir={folder}", *args, *resume])
    last.replace(folder / _MASTER)


def _cache(folder: Path, *, clips: Path, weights: Path) -> None:
    from moviegen_core.cli import main

    for prefix in ("train", "val"):
        main(
            ["predict", "--config", "quickstart/latents", f"--ckpt_path={weights}", "--data.predict_urls", str(clips / f"{prefix}-*.tar")]
            + [f"--trainer.callbacks.output={folder}", f"--trainer.callbacks.prefix={prefix}"]
        )


def _generate(folder: Path, *, root: Path, num_pairs: int, world: dict[str, Any]) -> None:
    """Films for held-out prompts, the same with the text dropped, and films of two objects."""
    from moviegen_core.cli import main

    prompts = {"single": _prompts(num_pairs, 1, **world), "two_objects": _prompts(min(32, num_pairs), 2, **world)}
    prompts["dropped"] = [{**prompt, "caption": ""} for prompt in prompts["single"]]
    for name, items in prompts.items():
        file = folder / f"{name}.json"
        write_bytes(file, json.dumps(items, indent=1).encode())
        main(
            ["predict", "--config", "quickstart/predict", f"--ckpt_path={root / 't2v' / _MASTER}", f"--data.prompts={file}"]
            + [f"--trainer.callbacks.output={folder / name}"]
        )


def _prompts(count: int, num_objects: int, *, seed: int, spread: float) -> list[dict[str, Any]]:
    from moviegen_data.toyworld import caption_scene, sample_scene
    from moviegen_data.toyworld.world import scene_seed

    seeds = [scene_seed(seed, "predict", index) for index in range(count)]
    specs = [sample_scene(each, num_objects=num_objects, split="held_out", spread=spread) for each in seeds]
    return [{"key": f"film-{index:04d}", "caption": caption_scene(spec), "scene": spec.to_dict()} for index, spec in enumerate(specs)]


def _judge(folder: Path, *, root: Path, weights: Path) -> None:
    """Read every film back from its file and score it against the scene its prompt was written for."""
    from moviegen_eval.oracle import Oracle, chance

    films = root / "films"
    score = Oracle().score
    figures: dict[str, Any] = {"chance": {name: round(share, 4) for name, share in chance().items()}}
    for name in ("single", "dropped", "two_objects"):
        specs = _specs(films / f"{name}.json")
        figures[name] = _fractions(score(_read(films / name, films / f"{name}.json"), specs))
    truth, rebuilt = _reconstruct(_specs(films / "single.json")[:64], weights)
    figures["reconstruction"] = _fractions(score(rebuilt, _specs(films / "single.json")[:64]))
    figures["psnr_db"] = -10.0 * math.log10(float(((truth - rebuilt) ** 2).mean()) / 4.0)
    figures["num_pairs"] = len(_specs(films / "single.json"))
    write_bytes(folder / "figures.json", json.dumps(figures, indent=1).encode())


def _specs(file: Path) -> list[Any]:
    from moviegen_data.toyworld import SceneSpec

    return [SceneSpec.from_dict(item["scene"]) for item in json.loads(file.read_text())]


def _read(folder: Path, prompts: Path) -> list[Any]:
    from moviegen_core.media.video import read_video

    return [read_video(folder / f"{item['key']}.mp4").video for item in json.loads(prompts.read_text())]


def _reconstruct(specs: Sequence[Any], weights: Path) -> tuple[Any, Any]:
    """Held-out scenes, and the same through the autoencoder alone."""
    import torch

    from moviegen_core.weights import build_from_checkpoint
    from moviegen_data.toyworld import render
    from moviegen_data.toyworld.stream import to_pixels

    autoencoder = build_from_checkpoint(weights).eval()
    truth = to_pixels([render(spec) for spec in specs])
    with torch.no_grad():
        parts = [autoencoder.decode(autoencoder.encode(part), num_frames=part.shape[2]) for part in truth.split(8)]
    return truth, torch.cat(parts).clamp(-1.0, 1.0)


def _fractions(scored: "OracleScore") -> dict[str, float]:
    return {name: round(share, 4) for name, share in scored.to_dict().items()}


def _sound(folder: Path, *, root: Path, num_pairs: int, seed: int) -> None:
    """The films with sound, and what the oracle for sound hears in those of held-out silent films."""
    from moviegen_cast.sound import hearing_figures, load_model, read_film, sounds_for
    from moviegen_core.media.video import write_video
    from moviegen_data.toyworld import SceneSpec, sound_caption

    model = load_model(root / "audio" / _MASTER, seed=seed, steps=16, guidance_scale=2.0)
    items = json.loads((root / "films" / "single.json").read_text())
    for first in range(0, len(items), 32):
        part = items[first : first + 32]
        keys, told = [item["key"] for item in part], [sound_caption(SceneSpec.from_dict(item["scene"])) for item in part]
        films = [read_film(root / "films" / "single" / f"{key}.mp4") for key in keys]
        sounds = sounds_for(model, films, captions=told, keys=keys)
        for key, film, audio in zip(keys, films, sounds, strict=True):
            write_video(folder / f"{key}.mp4", film.video, fps=film.fps, audio=audio, audio_hz=model.audio_hz, crf=10)
    figures = hearing_figures(model, num_clips=num_pairs, world={"height": 32, "width": 32, "fps": _FPS, "seed": seed})
    write_bytes(folder / "figures.json", json.dumps(figures, indent=1).encode())


def _report(run: StagedRun, *, spread: float) -> None:
    from moviegen_core.media.images import contact_sheet
    from moviegen_core.media.video import read_video
    from moviegen_data.toyworld import SceneSpec, is_heard

    root = run.folder
    with_sound = (root / "sound" / "figures.json").is_file()
    found = json.loads((root / "oracle" / "figures.json").read_text())
    figures = Figures(
        oracle=found["single"],
        chance=found["chance"],
        ablation=found["dropped"],
        two_objects=found["two_objects"],
        reconstruction=found["reconstruction"],
        num_pairs=found["num_pairs"],
        spread=spread,
        psnr_db=round(found["psnr_db"], 2),
        hearing=json.loads((root / "sound" / "figures.json").read_text()) if with_sound else {},
        seconds=run.seconds,
    )
    write_report(root, figures)
    prompts = json.loads((root / "films" / "single.json").read_text())[:24]
    paths = [root / "films" / "single" / f"{item['key']}.mp4" for item in prompts]
    captions = [item["caption"] for item in prompts]
    contact_sheet(root / "contact_sheet.png", [read_video(path).video for path in paths], captions, columns=3)
    chosen = 0
    if with_sound:
        paths = [root / "sound" / path.name for path in paths]
        scenes = [SceneSpec.from_dict(item["scene"]) for item in prompts]
        chosen = next((index for index, scene in enumerate(scenes) if any(map(is_heard, scene.objects))), 0)
    write_bytes(root / "film.mp4", paths[chosen].read_bytes())
    curves = {
        f"{title}: {name}": points
        for title in ("tae_image", "tae", "t2v", "dac_vae", "audio")
        for name, points in read_scalars(root / title, ["train_loss", "val_psnr", "val_si_sdr", "val_loss"]).items()
    }
    write_page(root, figures, list(zip(captions, paths, strict=True)), curves)
    table = {"text-to-video": figures.oracle, "text dropped": figures.ablation, "chance": figures.chance}
    print(f"\nOracle on {figures.num_pairs} held-out prompts:")
    for name, values in table.items():
        print(f"  {name:14s}" + "".join(f"  {key} {100 * value:5.1f} %" for key, value in values.items()))
    if with_sound:
        print("Oracle for sound on held-out silent films:")
    for name, values in figures.hearing_table().items():
        print(f"  {name:18s}" + "".join(f"  {key} {value}" for key, value in values.items()))
    print(f"\nLook at {root / 'index.html'} (films, curves), {root / 'contact_sheet.png'}, {root / 'film.mp4'}, {root / 'report.json'}.")
