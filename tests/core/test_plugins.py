"""The plugin host: isolation of broken plugins, validation of records, clashes, the block list, no torch."""

import json
import subprocess
import sys

import pytest

from moviegen_core.cli import main
from moviegen_core.errors import UsageError
from moviegen_core.plugins import plugin_host

OFFER = """
from moviegen_core import Command, Component, PresetDirectory, hookimpl

@hookimpl
def moviegen_components():
    yield Component("{kind}", "{path}", "a class")
"""


def test_builtins_are_ordinary_plugins():
    plugins = {plugin.name: plugin for plugin in plugin_host().plugins}
    assert {"core", "data", "tae", "text", "t2v", "eval", "cast"} <= set(plugins)
    assert all(plugin.status == "loaded" and plugin.package == "moviegen" for plugin in plugins.values() if plugin.package == "moviegen")
    assert plugin_host().component("FlowModel").class_path == "moviegen_core.generator.FlowModel"


def test_stranger_is_worth_as_much_as_a_builtin(hello):
    host = plugin_host()
    assert not host.problems
    assert host.component("HelloBackbone").class_path == "moviegen_hello.HelloBackbone"
    assert ("hello", "greet") in host.commands
    assert next(plugin for plugin in host.plugins if plugin.name == "hello").version == "1.2.3"


def test_broken_plugin_harms_nobody_and_is_named(hello, broken, capsys):
    main(["plugins", "list"])
    out, err = capsys.readouterr()
    assert "hello" in out and "t2v" in out
    for part in ("'broken'", "moviegen-broken 6.6.6", "RuntimeError: no flux capacitor on this machine", "MOVIEGEN_BLOCK_PLUGINS=broken"):
        assert part in err
    assert plugin_host().component("HelloBackbone") and plugin_host().component("FlowModel")


@pytest.mark.parametrize("failure", ["raise SystemExit(3)", "import moviegen_nowhere", "def f(:", "1/0"])
def test_any_failure_on_import_is_survived(install, failure):
    install("bad", failure)
    host = plugin_host()
    assert [problem.plugin for problem in host.problems] == ["bad"]
    assert host.component("FlowModel")


@pytest.mark.parametrize("name", ["broken", "moviegen-broken"])
def test_blocked_plugin_is_not_even_imported(broken, monkeypatch, name, capsys):
    monkeypatch.setenv("MOVIEGEN_BLOCK_PLUGINS", f" {name} ,")
    main(["plugins", "list", "--json"])
    out, err = capsys.readouterr()
    assert err == ""
    assert {record["name"]: record["status"] for record in json.loads(out)}["broken"] == "blocked"


def test_block_list_with_an_unknown_name_is_told(broken, monkeypatch, capsys):
    monkeypatch.setenv("MOVIEGEN_BLOCK_PLUGINS", "brokn,broken")
    main(["plugins", "list"])
    assert "MOVIEGEN_BLOCK_PLUGINS has 'brokn'" in (err := capsys.readouterr().err)
    assert "the nearest plugin or package is 'broken'" in err


def test_misspelt_hook_names_the_plugin_and_the_nearest_hook(install):
    install("typo", "from moviegen_core import hookimpl\n@hookimpl\ndef moviegen_componets():\n    yield from ()\n")
    (problem,) = plugin_host().problems
    assert "plugin 'typo' of package moviegen-typo 1.0" in str(problem)
    assert "'moviegen_componets'" in str(problem) and "'moviegen_components'" in str(problem)


def test_unmarked_hook_is_not_ignored_in_silence(install):
    install("shy", "def moviegen_components():\n    yield from ()\n")
    (problem,) = plugin_host().problems
    assert "@moviegen_core.hookimpl" in str(problem)


def test_hook_with_arguments_that_do_not_exist(install):
    install("greedy", "from moviegen_core import hookimpl\n@hookimpl\ndef moviegen_components(registry):\n    yield from ()\n")
    (problem,) = plugin_host().problems
    assert "registry" in str(problem)


@pytest.mark.parametrize(
    ("kind", "path", "told"),
    [
        ("bakbone", "moviegen_x.Thing", "kinds are model, backbone"),
        ("backbone", "Thing", "package.module.ClassName"),
        ("backbone", "moviegen_x:Thing", "package.module.ClassName"),
    ],
)
def test_wrong_records_are_refused(install, kind, path, told):
    install("x", OFFER.format(kind=kind, path=path))
    (problem,) = plugin_host().problems
    assert told in str(problem) and "moviegen-x 1.0" in str(problem)


def test_records_of_another_type_are_refused(install):
    install("x", "from moviegen_core import hookimpl\n@hookimpl\ndef moviegen_components():\n    return ['moviegen_x.Thing']\n")
    (problem,) = plugin_host().problems
    assert "'moviegen_x.Thing'" in str(problem) and "Component records are expected" in str(problem)


def test_preset_folder_that_is_absent_is_refused(install):
    offer = "from pathlib import Path\nfrom moviegen_core import PresetDirectory, hookimpl\n@hookimpl\ndef moviegen_presets():\n"
    install("x", offer + "    yield PresetDirectory(Path('/nowhere/at/all'))\n")
    (problem,) = plugin_host().problems
    assert "/nowhere/at/all" in str(problem)


def test_commands_may_not_take_the_trainers_names(install):
    offer = "from moviegen_core import Command, hookimpl\n@hookimpl\ndef moviegen_commands():\n"
    install("x", offer + "    yield Command('', 'fit', 'moviegen_x:fit', 'mine')\n")
    (problem,) = plugin_host().problems
    assert "are taken" in str(problem)


def test_class_name_clash_names_both_packages(install):
    install("ours", OFFER.format(kind="backbone", path="moviegen_ours.Wave"))
    install("theirs", OFFER.format(kind="backbone", path="moviegen_theirs.Wave"))
    host = plugin_host()
    (problem,) = host.problems
    assert "moviegen-ours 1.0" in str(problem) and "moviegen-theirs 1.0" in str(problem) and "Wave" in str(problem)
    with pytest.raises(UsageError, match=r"moviegen_ours\.Wave.*moviegen_theirs\.Wave.*full class path"):
        host.component("Wave")
    assert host.component("FlowModel")


def test_two_packages_with_one_plugin_name(install):
    install("twin", OFFER.format(kind="backbone", path="moviegen_twin.One"))
    install("twin", OFFER.format(kind="backbone", path="moviegen_twin.One"), package="another-package")
    (problem,) = plugin_host().problems
    assert "'twin'" in str(problem) and "moviegen-twin" in str(problem) and "another-package" in str(problem)


def test_unknown_class_name_gets_the_nearest():
    with pytest.raises(UsageError, match="the nearest class is 'FlowModel'"):
        plugin_host().component("FlowModle")


def test_show_one_plugin(hello, capsys):
    main(["plugins", "show", "hello", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert {component["name"] for component in record["components"]} == {"HelloBackbone", "HelloConditioner", "HelloLatents"}
    assert record["commands"][0]["function_path"] == "moviegen_hello:greet"
    main(["plugins", "show", "hello"])
    assert "moviegen hello greet" in capsys.readouterr().out


def test_show_an_unknown_plugin(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["plugins", "show", "t2w"])
    assert stop.value.code == 2
    assert "plugin 't2w' was given; the nearest plugin is 't2v'" in capsys.readouterr().err


@pytest.mark.parametrize("args", [["--version"], ["--help"], ["plugins", "list"], ["plugins"], ["presets", "list", "--json"]])
def test_listing_imports_no_torch(args):
    code = f"import sys; from moviegen_core.cli import main; main({args!r}); assert not {{'torch', 'lightning'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True)


def test_scaffold_passes_its_own_test(install, tmp_path, monkeypatch, capsys):
    main(["plugins", "new", "waves", "--folder", str(tmp_path)])
    root = tmp_path / "moviegen-waves"
    assert f"pip install -e {root}" in capsys.readouterr().out
    site = install("waves", "")
    (site / "moviegen_waves.py").unlink()
    (root / "moviegen_waves").rename(site / "moviegen_waves")
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(root)],
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert "2 passed" in outcome.stdout, outcome.stdout + outcome.stderr


@pytest.mark.parametrize(("name", "told"), [("t2v", "has it already"), ("2fast", "lower-case letters"), ("class", "lower-case letters")])
def test_scaffold_refuses_bad_names(name, told, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["plugins", "new", name, "--folder", str(tmp_path)])
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
