"""Building stages from a configuration, and cutting them into steps."""

import pytest

from moviegen_core.errors import UsageError
from moviegen_data.curation.pipeline import Named, build_stages, steps_of
from moviegen_data.curation.stage import ClipStage, Function, Resources, SetStage


class Passes(ClipStage):
    def apply(self, clip, media):
        return clip


class Compares(SetStage):
    def apply(self, clips):
        return clips


def entry(**arguments):
    return {"class_path": "moviegen_hello.HelloBrightness", "init_args": arguments}


def test_stages_are_built_in_order_and_null_leaves_one_out():
    made = build_stages(
        {"b": entry(least=3.0), "gone": None, "a": {"class_path": "Function", "init_args": {"path": "moviegen_hello:halves"}}}
    )
    assert [named.name for named in made] == ["b", "a"] and made[0].stage.least == 3.0 and isinstance(made[1].stage, Function)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, "no stage was given"),
        ({"a": {"class_path": "Funktion"}}, "nearest stage is 'Function'"),
        ({"a": entry(last=1)}, "last"),
        ({"a": entry(least="bright")}, "least"),
        ({"a": {"class_path": "moviegen_hello.Nothing"}}, "Nothing"),
        ({"a": {"init_args": {}}}, "the stage 'a' is"),
        ({"a": {**entry(), "resources": {"gpus": 1}}}, "there are num_cpus, num_gpus, num_workers"),
        ({"a": {**entry(), "resources": [1]}}, "there are num_cpus, num_gpus, num_workers"),
        ({"a": {**entry(), "resources": {"num_gpus": -1}}}, "shares are numbers from 0 on"),
        ({"a": {**entry(), "resources": {"num_workers": 1.5}}}, "workers whole numbers from 1 on"),
        ({"a": {"class_path": "Function", "init_args": {"path": "moviegen_hello:nothing"}}}, "cannot be called"),
        ({"a": {"class_path": "Function", "init_args": {"path": "moviegen_hello:halves", "arguments": {"cuont": 3}}}}, "cuont"),
    ],
)
def test_what_cannot_be_built_is_told(config, told):
    with pytest.raises(UsageError, match=told):
        build_stages(config)


def stages(*kinds, **settings):
    return [Named(f"s{number}", kind(), settings if number == len(kinds) - 1 else {}) for number, kind in enumerate(kinds)]


def test_comparing_stages_stand_alone():
    steps = steps_of(stages(Passes, Passes, Compares, Compares, Passes))
    assert [[named.name for named in step.stages] for step in steps] == [["s0", "s1"], ["s2"], ["s3"], ["s4"]]
    assert [step.compares for step in steps] == [False, True, True, False]


def test_a_change_of_settings_is_another_step():
    one, other = steps_of(stages(Passes, Compares, Passes)), steps_of(stages(Passes, Compares, Passes, x=1))
    assert [a.digest == b.digest for a, b in zip(one, other, strict=True)] == [True, True, False]


def test_resources_are_no_settings():
    plain, shared = (build_stages({"b": {**entry(), **more}}) for more in ({}, {"resources": {"num_cpus": 2, "num_gpus": 0.25}}))
    assert shared[0].share[0] == Resources(num_cpus=2, num_gpus=0.25) and plain[0].share[0] == Resources()
    assert steps_of(plain)[0].digest == steps_of(shared)[0].digest, "what is done on a laptop is not done again on a cluster"


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (1, "1"), ({1: "a"}, {"1": "a"}), ({"a": 1, "b": 2}, {"b": 2, "a": 1})])
def test_settings_that_look_alike_are_not_the_same(one, other):
    first, second = (steps_of([Named("s", Passes(), {"x": value})])[0].digest for value in (one, other))
    assert first != second
    assert steps_of([Named("s", Passes(), {"x": {1: 2, "a": 3}})]), "names of all kinds"


def test_another_text_of_a_stage_is_another_step(tmp_path, monkeypatch):
    def digest(text):
        apply = f"    def apply(self, clip, media):\n        return clip.scored({text}=1)\n"
        (tmp_path / f"stage_{text}.py").write_text(f"from moviegen_data.curation.stage import ClipStage\nclass Mine(ClipStage):\n{apply}")
        monkeypatch.syspath_prepend(str(tmp_path))
        stage = __import__(f"stage_{text}").Mine()
        return steps_of([Named("s", stage, {"class_path": "Mine"})])[0].digest

    assert digest("a") != digest("b") and digest("a") == digest("a")
