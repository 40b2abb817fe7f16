"""The benchmarks of curation start, and say what they need."""

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """Gives a benchmark as a module."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.delenv("MOVIEGEN_MEDIA", raising=False)

    def loaded(name):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return loaded


@pytest.mark.parametrize(("name", "own"), [("scenes", "--share"), ("curation", "--small")])
def test_they_start(name, own, load, tmp_path, monkeypatch, capsys):
    if name == "scenes":
        pytest.importorskip("scenedetect")
    load("measuring"), load("curation_examples")
    main = load(name).main
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    told = capsys.readouterr().out
    assert all(argument in told for argument in ("--media", "--output", own))
    for arguments in ((), ("--media", str(tmp_path))):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(SystemExit, match="2"):
            main()
        assert capsys.readouterr().err.endswith("error: give --media, or MOVIEGEN_MEDIA, a folder with video/\n")


def test_media_are_looked_for(load, monkeypatch, tmp_path, capsys):
    measuring = load("measuring")
    monkeypatch.setattr(sys, "argv", ["it"])
    monkeypatch.setenv("MOVIEGEN_MEDIA", str(tmp_path))
    parser = measuring.media_parser("it", output="it.json")
    (tmp_path / "video").mkdir()
    arguments = measuring.parse_media(parser, "video")
    assert arguments.media == tmp_path and arguments.output == FOLDER / "results" / "it.json"
    with pytest.raises(SystemExit, match="2"):
        measuring.parse_media(parser, "audio", "video")
    assert "a folder with audio/ and video/" in capsys.readouterr().err
