"""The whole road on a world too small to learn from: every stage runs, nothing is done twice, the outputs keep their form."""

import json
from pathlib import Path

import pytest

from moviegen_cast.report import read_scalars
from moviegen_cast.stages import Stage, StagedRun
from moviegen_core.cli import main
from moviegen_core.media.video import read_video


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished trial run."""
    folder = tmp_path_factory.mktemp("trial") / "quickstart"
    main(["quickstart", f"--folder={folder}", "--num_clips=8", "--num_pairs=2", "--max_steps=2"])
    return folder


def test_report_has_the_promised_fields(run):
    report = json.loads((run / "report.json").read_text())
    for name in ("oracle", "chance", "ablation", "two_objects", "reconstruction"):
        assert set(report[name]) == {"colour", "shape", "motion"}
        assert all(0.0 <= share <= 1.0 for share in report[name].values())
    assert report["num_pairs"] == 2
    assert report["spread"] == 0.1
    stages = {"clips", "tae_image", "tae", "latents", "t2v", "films", "oracle", "dac_vae", "audio", "sound"}
    assert set(report["seconds"]) == stages
    assert set(report["hearing"]) == {"film and caption", "film alone", "caption alone", "nothing", "chance", "num_clips"}
    assert all(0.0 <= share <= 1.0 for share in report["hearing"]["film alone"].values())
    assert report["versions"]["moviegen"]


def test_films_are_what_was_asked_for(run):
    film = read_video(run / "film.mp4")
    assert film.video.shape == (3, 16, 64, 64)
    assert film.audio_hz == 16000 and film.audio.shape[1] / 16000 == pytest.approx(1.0, abs=0.15)  # AAC fills its last frame
    assert len(list((run / "films" / "single").glob("*.mp4"))) == 2
    assert (run / "contact_sheet.png").stat().st_size > 1000
    page = (run / "index.html").read_text()
    assert page.count("<video") == 2 and "<svg" in page


def test_prompts_are_of_the_world_that_was_trained_on(run):
    prompts = json.loads((run / "films" / "single.json").read_text())
    assert all(abs(prompt["scene"]["objects"][0][axis] - 0.5) <= 0.05 for prompt in prompts for axis in "xy")


def test_a_spread_outside_of_its_range_leaves_nothing_behind(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["quickstart", f"--folder={tmp_path / 'new'}", "--spread=2"])
    assert "give a number between them" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_events_hold_the_curves(run):
    curves = read_scalars(run / "tae", ["val_psnr"])
    assert curves["val_psnr"][-1][0] >= 1


def test_second_run_does_nothing_again(run, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.ckpt")}
    main(["quickstart", f"--folder={run}", "--num_clips=8", "--num_pairs=2", "--max_steps=2"])
    assert capsys.readouterr().out.count("done before") == 10
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.ckpt")} == before


def test_other_settings_in_the_same_folder_are_refused(run, capsys):
    with pytest.raises(SystemExit):
        main(["quickstart", f"--folder={run}", "--num_clips=9", "--num_pairs=2", "--max_steps=2"])
    assert "num_clips differ" in capsys.readouterr().err


def test_one_prompt_makes_one_film(run, tmp_path, capsys):
    target = tmp_path / "made" / "film.mp4"
    settings = [f"--checkpoint={run / 't2v' / 'chosen.ckpt'}", "--steps=2", f"--output={target}"]
    main(["generate", 'a "quoted": red circle, [moving] left \N{GRINNING FACE}', *settings])
    assert read_video(target).video.shape == (3, 16, 64, 64)
    assert [path.name for path in target.parent.iterdir()] == ["film.mp4"]
    with pytest.raises(SystemExit):
        main(["generate", "a circle", "--checkpoint=absent.ckpt"])
    assert "moviegen quickstart" in capsys.readouterr().err


def test_a_film_gets_a_sound(run, tmp_path, capsys):
    target, checkpoint = tmp_path / "heard.mp4", f"--checkpoint={run / 'audio' / 'chosen.ckpt'}"
    film = run / "films" / "single" / "film-0000.mp4"
    main(["sound", str(film), checkpoint, "--steps=1", "--prompt=a red circle bounces", f"--output={target}"])
    made = read_video(target)
    assert made.video.shape == (3, 16, 64, 64) and made.audio.shape[0] == 1
    for args, told in (
        (["absent.mp4", checkpoint], "film absent.mp4 was given; there is no such file"),
        ([str(run / "report.json"), checkpoint], "no video can be read from it"),
        ([str(film), f"--checkpoint={run / 't2v' / 'chosen.ckpt'}"], "it holds a TextToVideo; give one of a VideoToAudio"),
        ([str(film), checkpoint, "--output=sound.wav"], "give a name that ends in .mp4"),
    ):
        with pytest.raises(SystemExit):
            main(["sound", *args])
        assert told in capsys.readouterr().err


def test_interrupted_stage_goes_on(tmp_path):
    calls = []

    def fails_once(folder: Path) -> None:
        calls.append(folder.name)
        if len(calls) == 2:
            raise KeyboardInterrupt

    stages = [Stage(name, name, fails_once) for name in ("one", "two", "three")]
    with pytest.raises(KeyboardInterrupt):
        StagedRun(tmp_path, settings={}).run(stages)
    StagedRun(tmp_path, settings={}).run(stages)
    assert calls == ["one", "two", "two", "three"]
    assert set(StagedRun(tmp_path, settings={}).seconds) == {"one", "two", "three"}


def test_prompts_become_files_with_the_readmes_command(run, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\na blue ring moves left\n")
    checkpoint, output = run / "t2v" / "chosen.ckpt", tmp_path / "made"
    main(
        ["predict", "--config", "predict", f"--ckpt_path={checkpoint}", f"--data.prompts={prompts}", "--sampler.steps=2"]
        + [f"--trainer.callbacks.output={output}", "--model.seed=3"]
    )
    assert len(list(output.glob("*.mp4"))) == 2


def test_half_finished_cache_is_made_anew(run):
    from moviegen_cast.quickstart import _cache

    _cache(run / "latents", clips=run / "clips", weights=run / "tae" / "chosen.ckpt")
    assert (run / "latents" / "train.index.json").is_file()
