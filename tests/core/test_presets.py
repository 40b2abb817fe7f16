"""Presets by name, includes, deep merge, and the messages when something is wrong."""

import json
from pathlib import Path

import pytest
import yaml

from moviegen_core.cli import main
from moviegen_core.errors import UsageError
from moviegen_core.presets import compose, core_preset_directory, find_presets, load, merge

OFFER = """
from pathlib import Path
from moviegen_core import PresetDirectory, hookimpl

@hookimpl
def moviegen_presets():
    yield PresetDirectory(Path({folder!r}))
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_own_values_win_over_includes_and_later_includes_over_earlier(tmp_path):
    write(tmp_path / "a.yaml", "trainer: {max_steps: 1, precision: bf16-true, devices: 1}\n")
    write(tmp_path / "sub" / "b.yaml", "include: [../a.yaml]\ntrainer: {max_steps: 2, devices: 2}\n")
    own = write(tmp_path / "own.yaml", "include: [a.yaml, sub/b.yaml]\ntrainer: {max_steps: 3}\n")
    assert load(own) == {"trainer": {"max_steps": 3, "precision": "bf16-true", "devices": 2}}


def test_includes_are_relative_to_their_file_not_to_the_folder_one_is_in(tmp_path, monkeypatch):
    write(tmp_path / "deep" / "a.yaml", "x: 1\n")
    write(tmp_path / "deep" / "b.yaml", "include: [a.yaml]\n")
    monkeypatch.chdir(tmp_path)
    assert compose(["deep/b.yaml"]) == {"x": 1}


def test_a_circle_is_told_with_its_way(tmp_path):
    a = write(tmp_path / "a.yaml", "include: [b.yaml]\n")
    write(tmp_path / "b.yaml", "include: [c.yaml]\n")
    write(tmp_path / "c.yaml", "include: [a.yaml]\n")
    with pytest.raises(UsageError, match=r"a\.yaml -> .*b\.yaml -> .*c\.yaml -> .*a\.yaml"):
        load(a)


def test_one_file_may_be_included_twice_by_two_ways(tmp_path):
    write(tmp_path / "base.yaml", "x: 1\n")
    write(tmp_path / "a.yaml", "include: [base.yaml]\n")
    write(tmp_path / "b.yaml", "include: [base.yaml]\n")
    assert load(write(tmp_path / "c.yaml", "include: [a.yaml, b.yaml]\n")) == {"x": 1}


def test_missing_include_names_who_asked_and_what_is_near(tmp_path):
    write(tmp_path / "cpu.yaml", "{}\n")
    a = write(tmp_path / "a.yaml", "include: [cpuu.yaml]\n")
    with pytest.raises(UsageError, match=r"cpuu\.yaml was asked for by .*a\.yaml; the nearest file .* is 'cpu\.yaml'"):
        load(a)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- 1\n", "it holds a list"),
        ("a: [}\n", "it is not YAML"),
        ("include: a.yaml\n", "a list of file names is expected"),
        ("include: [1]\n", "a list of file names is expected"),
    ],
)
def test_files_that_are_no_configs(tmp_path, text, told):
    with pytest.raises(UsageError, match=told):
        load(write(tmp_path / "a.yaml", text))


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UsageError, match="it is not YAML"):
        load(path)


def test_empty_file_is_an_empty_config(tmp_path):
    assert load(write(tmp_path / "a.yaml", "# nothing yet\n")) == {}


def test_lists_replace_and_plus_appends():
    base = {"trainer": {"callbacks": ["a"]}}
    assert merge(base, {"trainer": {"callbacks": ["b"]}}) == {"trainer": {"callbacks": ["b"]}}
    assert merge(base, {"trainer": {"callbacks+": ["b"]}}) == {"trainer": {"callbacks": ["a", "b"]}}
    assert merge(base, {"trainer": {"callbacks+": "b"}}) == {"trainer": {"callbacks": ["a", "b"]}}
    both = merge({"trainer": {"callbacks+": ["a"]}}, {"trainer": {"callbacks+": ["b"]}})
    assert both == {"trainer": {"callbacks+": ["a", "b"]}}
    assert merge(both, {"trainer": {"callbacks": ["c"]}}) == {"trainer": {"callbacks": ["c"]}}
    assert base == {"trainer": {"callbacks": ["a"]}}


def test_another_class_drops_the_arguments_of_the_earlier_one():
    base = {"model": {"class_path": "a.A", "init_args": {"x": 1, "y": 2}}}
    assert merge(base, {"model": {"class_path": "b.B", "init_args": {"z": 3}}})["model"]["init_args"] == {"z": 3}
    assert merge(base, {"model": {"class_path": "A", "init_args": {"y": 3}}})["model"]["init_args"] == {"x": 1, "y": 3}
    assert merge(base, {"model": {"init_args": {"y": 3}}})["model"] == {"class_path": "a.A", "init_args": {"x": 1, "y": 3}}


def test_a_value_may_be_taken_back_with_null():
    assert merge({"model": {"class_path": "A"}}, {"model": None}) == {"model": None}


@pytest.mark.parametrize(
    ("text", "value"), [("1e-4", 1e-4), ("1E+3", 1000.0), ("2.5e-3", 2.5e-3), ("-1e4", -1e4), ("1e", "1e"), ("12", 12)]
)
def test_scientific_numbers_are_numbers(tmp_path, text, value):
    assert load(write(tmp_path / "a.yaml", f"x: {text}\n")) == {"x": value}


def test_a_strangers_presets_are_found_by_name_from_any_folder(install, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "their_configs"
    write(folder / "waves" / "toy.yaml", "# learns waves on a CPU\ntrainer: {max_steps: 7}\n")
    install("waves", OFFER.format(folder=str(folder)))
    monkeypatch.chdir(tmp_path)
    main(["presets", "list", "--json"])
    record = next(record for record in json.loads(capsys.readouterr().out) if record["name"] == "waves/toy")
    assert record["package"] == "moviegen-waves" and record["summary"] == "learns waves on a CPU"
    main(["presets", "show", "waves/toy"])
    assert yaml.safe_load(capsys.readouterr().out) == {"trainer": {"max_steps": 7}}
    with pytest.raises(UsageError, match="no such preset or file; the nearest preset is 'waves/toy'"):
        compose(["wave/toy"])


def test_two_packages_with_one_preset_name(install, tmp_path):
    for name in ("ours", "theirs"):
        write(tmp_path / name / "waves" / "toy.yaml", "{}\n")
        install(name, OFFER.format(folder=str(tmp_path / name)))
    with pytest.raises(UsageError, match=r"two packages offer it: .*moviegen-ours.*moviegen-theirs.*give one of the files"):
        compose(["waves/toy"])


def test_a_file_beats_a_preset_and_its_absence_is_told_as_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine.yaml", "x: 1\n")
    assert compose(["./mine.yaml"]) == compose(["mine.yaml"]) == {"x": 1}
    with pytest.raises(UsageError, match=r"no such file; the nearest file there is 'mine\.yaml'"):
        compose(["./mien.yaml"])


def test_shipped_presets_are_found():
    names = {preset.name for preset in find_presets() if preset.package == "moviegen"}
    assert core_preset_directory().is_dir()
    assert names == {
        path.relative_to(core_preset_directory()).with_suffix("").as_posix() for path in core_preset_directory().rglob("*.yaml")
    }


def test_schedules_of_shipped_presets_end_where_training_ends():
    checked = 0
    for preset in find_presets():
        settings = compose([preset.name])
        schedule = settings.get("model", {}).get("init_args", {}).get("lr_scheduler") or {}
        if "total_steps" in schedule.get("init_args", {}) and "max_steps" in settings.get("trainer", {}):
            assert schedule["init_args"]["total_steps"] == settings["trainer"]["max_steps"], preset.name
            checked += 1
    assert checked >= 4
