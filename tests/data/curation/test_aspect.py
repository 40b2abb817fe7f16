"""The mix of shapes: the fewest are dropped, always the same ones."""

import itertools
import math
import pickle
import random

import pytest

from moviegen_core.errors import UsageError
from moviegen_core.presets import compose
from moviegen_data.curation import Clip
from moviegen_data.curation.stages import aspect
from moviegen_data.curation.stages.aspect import AspectMix, quotas_of

SIZES = {"landscape": (1280, 720), "portrait": (720, 1280), "square": (800, 800)}


def clips(**counts):
    return [
        Clip(key=f"{shape}-{number:05d}", source="a.mp4", facts=dict(zip(("width", "height"), SIZES[shape], strict=True)))
        for shape, count in counts.items()
        for number in range(count)
    ]


def left(found):
    kept = [clip.key for clip in found if clip.drop is None]
    return {shape: sum(key.startswith(shape) for key in kept) for shape in SIZES}


@pytest.mark.parametrize(
    ("counts", "mix", "wanted"),
    [
        ({"landscape": 900, "portrait": 100}, {"landscape": 0.6, "portrait": 0.4}, (151, 100)),
        ({"landscape": 60, "portrait": 400}, {"landscape": 0.6, "portrait": 0.4}, (60, 40)),
        ({"landscape": 60, "portrait": 400}, {"landscape": 0.8, "portrait": 0.2}, (60, 15)),
        ({"landscape": 80, "portrait": 20}, {"landscape": 0.8, "portrait": 0.2}, (80, 20)),
    ],
)
def test_the_mix_is_reached_by_dropping_one_shape_only(counts, mix, wanted):
    assert left(AspectMix(mix=mix).apply(clips(**counts))) == {"landscape": wanted[0], "portrait": wanted[1], "square": 0}


def test_no_larger_subset_has_the_mix():
    """Against trying every subset: with a tolerance, no more clips could stay."""
    mix, tolerance = {"landscape": 0.5, "portrait": 0.3, "square": 0.2}, 0.05
    for counts in itertools.product(range(1, 14, 3), repeat=3):
        named = dict(zip(mix, counts, strict=True))
        found = quotas_of(named, mix, tolerance)
        assert all(0 <= found[shape] <= named[shape] for shape in mix)
        fits = [
            sum(some)
            for some in itertools.product(*(range(count + 1) for count in counts))
            if sum(some) and all(abs(part / sum(some) - share) <= tolerance + 1e-9 for part, share in zip(some, mix.values(), strict=True))
        ]
        assert sum(found.values()) >= max(fits, default=0)
        for shape, share in mix.items():  # within the tolerance, to a clip
            assert abs(found[shape] - share * sum(found.values())) <= tolerance * sum(found.values()) + 1


def test_a_mix_within_the_tolerance_stays_whole():
    found = AspectMix(mix={"landscape": 0.6, "portrait": 0.4}, tolerance=0.02).apply(clips(landscape=62, portrait=38))
    assert all(clip.drop is None for clip in found)


def test_the_choice_depends_on_keys_alone():
    given = clips(landscape=90, portrait=10)
    shuffled = random.Random(0).sample(given, len(given))
    kept = {clip.key for clip in AspectMix().apply(given) if clip.drop is None}
    found = AspectMix().apply(shuffled)
    assert [clip.key for clip in found] == [clip.key for clip in shuffled]
    assert {clip.key for clip in found if clip.drop is None} == kept
    assert {clip.key for clip in AspectMix(seed=1).apply(given) if clip.drop is None} != kept
    # of 90 the 15 that stay are not simply the first
    assert max(int(key[-5:]) for key in kept if key.startswith("landscape")) > 40


def test_only_landscape_is_width_at_least_height():
    found = AspectMix(only="landscape").apply(clips(landscape=3, portrait=2, square=2))
    assert left(found) == {"landscape": 3, "portrait": 0, "square": 2}
    drop = next(clip.drop for clip in found if clip.drop)
    assert (drop.reason, drop.measured, drop.wanted) == ("portrait not wanted", "720 x 1280 px", "landscape")


def test_squares_are_their_own_where_the_mix_names_them():
    mix = {"landscape": 0.5, "portrait": 0.25, "square": 0.25}
    assert left(AspectMix(mix=mix).apply(clips(landscape=50, portrait=50, square=10))) == {"landscape": 21, "portrait": 11, "square": 10}
    nearly = Clip(key="a", source="a.mp4", facts={"width": 102, "height": 100})
    assert AspectMix(mix=mix).shape(nearly) == "square"
    assert AspectMix().shape(nearly) == "landscape"


def test_an_absent_shape_is_an_error_unless_it_may_be_kept():
    with pytest.raises(UsageError, match="5 landscape, 0 portrait"):
        AspectMix().apply(clips(landscape=5))
    assert all(clip.drop is None for clip in AspectMix(absent="keep").apply(clips(landscape=5)))
    assert AspectMix().apply([]) == []
    assert [clip.drop.reason for clip in AspectMix(only="landscape").apply(clips(portrait=1))] == ["portrait not wanted"]


def test_what_is_preferred_is_dropped_last():
    given = [clip.annotated(humans=int(clip.key[-5:]) % 3 == 0) for clip in clips(landscape=90, portrait=10)]  # 30 + 4 with humans
    kept = [clip for clip in AspectMix(mix={"landscape": 0.8, "portrait": 0.2}, prefer={"humans": True}).apply(given) if clip.drop is None]
    assert len(kept) < 60 and sum(clip.annotations["humans"] for clip in kept) == 34
    kept = [clip for clip in AspectMix(only="landscape", prefer={"humans": True}).apply(given) if clip.drop is None]
    assert len(kept) == 90
    with pytest.raises(UsageError, match="no clip has the annotation 'people'; there are humans"):
        AspectMix(prefer={"people": True}).apply(given)


def test_settings_that_make_no_sense_are_refused():
    for settings in ({"mix": {"landscape": 0.5}}, {"mix": {"wide": 1.0}}, {"mix": {}}, {"tolerance": 1.0}, {"square_ratio": 0.9}):
        with pytest.raises(UsageError):
            AspectMix(**settings)
    with pytest.raises(UsageError, match="contradict"):
        AspectMix(mix={"landscape": 1.0}, only="landscape")
    with pytest.raises(UsageError, match="Probe"):
        AspectMix().apply([Clip(key="a", source="a.mp4")])


def test_it_travels():
    stage = pickle.loads(pickle.dumps(AspectMix(mix={"landscape": 0.8, "portrait": 0.2})))
    assert left(stage.apply(clips(landscape=8, portrait=8))) == {"landscape": 8, "portrait": 2, "square": 0}


def test_sounds_have_no_shape_and_pass():
    sound = Clip("s", "s.wav", facts={"audio_hz": 48000})
    films = [Clip(f"k{number}", "k.mp4", facts={"width": 16, "height": 9}) for number in range(3)]
    made = AspectMix(only="portrait", absent="keep").apply([*films, sound])
    assert made[-1].drop is None and [clip.key for clip in made] == ["k0", "k1", "k2", "s"]


def test_the_search_begins_where_it_may_end():
    """Against a search from all clips on, in sets where most of one shape go."""
    for landscape, portrait, tolerance in ((1000, 7, 0.0), (3, 500, 0.05), (40, 60, 0.45), (100, 100, 0.0)):
        counts, mix = {"landscape": landscape, "portrait": portrait}, {"landscape": 0.8, "portrait": 0.2}
        found = quotas_of(counts, mix, tolerance)
        larger = (
            total
            for total in range(sum(found.values()) + 1, landscape + portrait + 1)
            if all(math.ceil((mix[shape] - tolerance) * total - 0.5 - 1e-9) <= counts[shape] for shape in mix)
            and sum(min(counts[shape], math.floor((mix[shape] + tolerance) * total + 0.5 + 1e-9)) for shape in mix) >= total
        )
        assert sum(found.values()) > 0 and next(larger, None) is None


def test_millions_of_clips_take_no_longer_than_a_few(monkeypatch):
    searched = []
    monkeypatch.setattr(aspect, "range", lambda *span: searched.append(range(*span)) or searched[-1], raising=False)
    assert quotas_of({"landscape": 10**9, "portrait": 10**6}, {"landscape": 0.6, "portrait": 0.4}, 0.0)["portrait"] == 10**6
    assert searched[0].start < 2_600_000


def test_models_leave_the_mix_of_a_preset_alone():
    """Also where it has none, as `small`; what prefers humans is laid over it by `humans`, and keeps its shares."""
    assert compose(["curation/small", "curation/models"])["stages"]["aspect"] is None
    plain, models, humans = ["curation/high_res"], ["curation/models"], ["curation/humans"]
    own = compose(plain)["stages"]["aspect"]["init_args"]
    assert compose(plain + models)["stages"]["aspect"]["init_args"] == own
    assert compose(plain + models + humans)["stages"]["aspect"]["init_args"] == {**own, "prefer": {"humans": True}}


@pytest.mark.parametrize("name", ["low_res", "high_res", "sft"])
def test_presets_mix_shapes_behind_what_else_drops_clips(name):
    stages = list(compose([f"curation/{name}", "curation/models", "curation/humans"])["stages"])
    assert stages[stages.index("concept_embedding") :][:4] == ["concept_embedding", "humans", "concepts", "human_share"]
    assert stages[stages.index("aspect") + 1 :] == ["camera", "captions"]
    # One decoding serves these; a stage with a model between them runs elsewhere, and would have it done twice.
    assert stages[stages.index("scenes") :][:4] == ["scenes", "static", "motion", "jitter"]
