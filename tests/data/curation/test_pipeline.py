"""Building stages from a configuration, and cutting them into steps."""

import pytest

from moviegen_core.errors import UsageError
from moviegen_data.curation.pipeline import Named, build_stages, operators_of, steps_of
from moviegen_data.curation.stage import ClipStage, Function, Resources, SetStage


class Passes(ClipStage):
    def apply(self, clip, media):
        return clip


class OnGpu(Passes):
    resources = Resources(num_gpus=0.5)


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
    steps = steps_of(stages(Passes, Passes, Compares, Compares, Passes), "media")
    assert [[named.name for named in step.stages] for step in steps] == [["s0", "s1"], ["s2"], ["s3"], ["s4"]]
    assert [step.compares for step in steps] == [False, True, True, False]


def test_a_change_is_a_change_from_there_on():
    one, other = steps_of(stages(Passes, Compares, Passes), "m"), steps_of(stages(Passes, Compares, Passes, x=1), "m")
    assert [a.digest == b.digest for a, b in zip(one, other, strict=True)] == [True, True, False]
    assert steps_of(stages(Passes), "m")[0].digest != steps_of(stages(Passes), "n")[0].digest


def test_neighbours_of_equal_resources_share_workers():
    (step,) = steps_of(stages(Passes, Passes, OnGpu, Passes), "m")
    assert [(resources.num_gpus, len(members)) for resources, members in operators_of(step)] == [(0.0, 2), (0.5, 1), (0.0, 1)]
