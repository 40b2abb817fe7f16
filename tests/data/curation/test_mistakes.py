"""Mistakes in what `moviegen data curate` is given: what was given, what exists, what to do next."""

import pytest

from moviegen_core.cli import main
from moviegen_core.errors import UsageError
from moviegen_core.presets import compose
from moviegen_data.curation import command
from moviegen_data.curation.command import read_config
from moviegen_data.curation.local_engine import LocalEngine
from moviegen_data.curation.pipeline import build_stages
from moviegen_data.curation.ray_engine import RayEngine


def refused(args, capsys):
    """The one line that a user reads."""
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.count("; ") == 2 and "Union" not in told and "<class" not in told, told
    return told


@pytest.mark.parametrize(
    ("kind", "arguments", "told"),
    [
        (
            "Duration",
            {"min_sec": 3},
            ("the argument 'min_sec'", "Duration has the arguments min_s, max_s, of which 'min_s' is the nearest"),
        ),
        ("Duration", {"colour": 3}, ("the argument 'colour'", "Duration has the arguments min_s, max_s")),
        ("Duration", {"min_s": "three"}, ("min_s='three'", "it takes float")),
        ("Duration", {"max_s": "three"}, ("max_s='three'", "it takes float | None")),
        ("Duration", {"min_s": None}, ("min_s=null", "it takes float")),
        ("Scenes", {"method": "ffmpg"}, ("method='ffmpg'", "it takes Literal['ffmpeg', 'pyscenedetect', 'both']")),
        ("Mentions", {"terms": ["a", 3]}, ("terms=['a', 3]", "it takes list[str] | str")),
        ("SidecarCaptions", {"portion": [0, "a"]}, ("portion=[0, 'a']", "it takes tuple[float, float]")),
        (
            "Faces",
            {"faces": {"class_path": "YuNetFaces", "init_args": {"detector": "a"}}},
            ("the argument 'faces.detector'", "YuNetFaces has the arguments detector_path, recognizer_path, min_score, of which"),
        ),
        ("Faces", {"faces": {"class_path": "YuNetFaces", "init_args": {"detector_path": 3}}}, ("faces.detector_path=3", "it takes str")),
        ("Faces", {"faces": "YuNetFace"}, ("faces='YuNetFace'", "the nearest class is 'YuNetFaces'")),
        ("LeastShare", {}, ("as {'class_path': 'LeastShare', 'init_args': {}}", "the following arguments are required: having")),
    ],
)
def test_arguments_of_stages(kind, arguments, told):
    with pytest.raises(UsageError) as error:
        build_stages({"mine": {"class_path": kind, "init_args": arguments}})
    given, exists = told
    assert error.value.given == f"the stage 'mine' was given {given}"
    assert error.value.exists.startswith(exists)
    assert error.value.advice == f"see `moviegen data stage {kind}`"


def test_null_where_it_is_a_value():
    (made,) = build_stages({"mine": {"class_path": "Duration", "init_args": {"max_s": None}}})
    assert made.stage.max_s is None


def test_arguments_that_are_no_mapping():
    with pytest.raises(UsageError, match=r"the stage 'mine' is .*a stage is `\{class_path"):
        build_stages({"mine": {"class_path": "Duration", "init_args": [3]}})


@pytest.fixture
def write(tmp_path):
    def write_file(name, text):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write_file


def test_leaving_out_what_is_not_there(write):
    with pytest.raises(UsageError, match=r"mine.yaml leaves out `txet: null`; the nearest stage is 'text'; correct the name"):
        read_config(["curation/high_res", write("mine.yaml", "stages: {txet: null}")])
    base = write("base.yaml", "stages: {text: {class_path: Duration}, probe: {class_path: Probe}, place: null}")
    with pytest.raises(UsageError, match=r"over.yaml leaves out `txet: null`; the nearest stage is 'text'"):
        read_config([write("over.yaml", "include: [base.yaml]\nstages: {txet: null}")])
    with pytest.raises(UsageError, match=r"over.yaml leaves out `txet: null`"):
        read_config([write("last.yaml", "include: [base.yaml, over.yaml]")])
    with pytest.raises(UsageError, match=r"third.yaml leaves out `zzz: null`; known are place, probe, text"):
        read_config([base, write("third.yaml", "stages: {place: null, zzz: null, mine: {class_path: Duration}}")])


def test_null_leaves_a_stage_of_an_earlier_file_out(write):
    base = write("base.yaml", "stages: {text: {class_path: Duration}, probe: {class_path: Probe}, place: null}")
    over = write("over.yaml", "include: [base.yaml]\nstages: {text: null, place: null}")
    for names in ([over], [base, write("plain.yaml", "stages: {text: null}")], [base, over]):
        assert [named.name for named in read_config(names)[0]] == ["probe"]


def test_presets_hold_places_wherever_they_are_laid(write):
    first = write("first.yaml", "stages: {mine: {class_path: Duration}}")
    assert None in compose(["curation/low_res"])["stages"].values()
    stages, _ = read_config([first, "curation/low_res"])
    assert stages[0].name == "mine" and len(stages) > 5


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--engine", "LocalEngin"], "--engine LocalEngin was given; the nearest class is 'LocalEngine'"),
        (["--engine", "LocalEngine", "--engine.num_workers", "two"], "--engine.num_workers two was given; it takes int"),
        (["--engine.num_workers", "two"], "--engine.num_workers two was given; it takes int"),
        (
            ["--engine", "LocalEngine", "--engine.num_worker", "2"],
            "--engine.num_worker was given; LocalEngine has the arguments num_workers, max_restarts, of which 'num_workers' is the nearest",
        ),
        (
            ["--engine", "RayEngine", "--engine.num_workers", "2"],
            "--engine.num_workers was given; RayEngine has the arguments address, num_cpus",
        ),
        (["--part_size", "x"], "--part_size x was given; it takes int"),
    ],
)
def test_arguments_of_the_command(args, told, capsys):
    line = refused(["data", "curate", "in", "out", "--config", "curation/high_res", *args], capsys)
    assert line.startswith(f"moviegen: error: {told}") and line.endswith("; see `moviegen data curate --help`")


@pytest.mark.parametrize(
    ("args", "kind", "settings"),
    [
        ([], LocalEngine, {"num_workers": 0}),
        (["--engine.num_workers", "2"], LocalEngine, {"num_workers": 2, "max_restarts": 8}),
        (["--engine", "LocalEngine", "--engine.num_workers", "3"], LocalEngine, {"num_workers": 3}),
        (["--engine", "RayEngine"], RayEngine, {"num_cpus": None}),
        (["--engine", "RayEngine", "--engine.num_cpus", "2"], RayEngine, {"num_cpus": 2}),
    ],
)
def test_the_engine_is_this_machine_unless_another_is_given(args, kind, settings, make_folder, make_config, tmp_path, monkeypatch, capsys):
    engines = []

    def stop(engine, stages):
        engines.append(engine)
        raise UsageError("enough", "was", "seen")

    monkeypatch.setattr(command, "_require_resources", stop)
    refused(["data", "curate", str(make_folder(1)), str(tmp_path / "out"), "--config", make_config(), *args], capsys)
    (engine,) = engines
    assert type(engine) is kind and {name: vars(engine)[name] for name in settings} == settings


def test_stages_are_listed(capsys):
    main(["data", "stages"])
    lines = capsys.readouterr().out.splitlines()
    assert "Duration             drops clips that are too short or too long" in lines and lines == sorted(lines)


def test_a_stage_tells_its_arguments(capsys):
    main(["data", "stage", "Duration"])
    assert capsys.readouterr().out.splitlines() == [
        "moviegen_data.curation.stages.duration.Duration: Drops clips that are too short or too long. Pictures pass.",
        "  min_s: float = 4.0",
        "      least seconds.",
        "  max_s: float | None = 120.0",
        "      most seconds; None for no limit.",
    ]
    main(["data", "stage", "moviegen_data.curation.stages.share.LeastShare"])
    assert "  having: Mapping[str, Any], which must be given" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["Duratoin", "moviegen_data.nothing.X", "moviegen_data.curation.LocalEngine", "m.", ".x", ".x.Y"])
def test_stages_that_are_none(name, capsys):
    assert "`moviegen data stages`" in refused(["data", "stage", name], capsys)


def test_every_stage_has_help_for_every_argument(capsys):
    from moviegen_core.plugins import plugin_host

    for name in plugin_host().curation_stages:
        main(["data", "stage", name])
    assert "no help" not in capsys.readouterr().out
