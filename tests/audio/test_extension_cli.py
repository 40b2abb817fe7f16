"""The samplers of long sounds by name, on the command line and in YAML."""

import re
from pathlib import Path

import pytest
import yaml

from moviegen_core.cli import main

README = Path(__file__).parents[2] / "plugins" / "moviegen_audio" / "README.md"


def printed_sampler(args, capsys):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "t2v/debug", *args, "--print_config"])
    out, err = capsys.readouterr()
    assert not stop.value.code, err
    return yaml.safe_load(out)["sampler"]


def test_the_papers_configuration_in_the_readme_parses(capsys, tmp_path):
    block = re.search(r"```yaml\n(sampler:.*?)```", README.read_text(), re.DOTALL)[1]
    (tmp_path / "sampler.yaml").write_text(block)
    found = printed_sampler(["--config", str(tmp_path / "sampler.yaml")], capsys)
    assert found["class_path"] == "moviegen_audio.MultiDiffusion"
    given = yaml.safe_load(block)["sampler"]["init_args"]
    assert {name: found["init_args"][name] for name in given} == given


def test_a_sampler_is_chosen_by_its_name(capsys):
    values = {"window": 8, "hop": 5, "num_candidates": 3, "steps": 9}
    args = [text for name, value in values.items() for text in (f"--sampler.{name}", str(value))]
    found = printed_sampler(["--sampler", "SegmentBeamSearch", *args, "--sampler.scorer", "moviegen_audio.Continuity"], capsys)
    assert found["class_path"] == "moviegen_audio.SegmentBeamSearch"
    assert {name: found["init_args"][name] for name in values} == values
    assert found["init_args"]["scorer"]["class_path"].endswith("Continuity")
