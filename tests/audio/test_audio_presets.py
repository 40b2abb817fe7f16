"""The audio presets' sizes and plans, with an autoencoder and encoders that need no files."""

import pytest
import torch
import yaml

from moviegen_audio.scorer import OnsetSyncScorer
from moviegen_core.flow.guidance import classifier_free_guidance
from moviegen_core.learning_rate import WarmupLinearLR
from moviegen_core.parallel.planner.workload import read_workload
from moviegen_core.presets import compose, core_preset_directory
from moviegen_core.sizes import build_model, measure

MODELS = core_preset_directory().parent / "model" / "audio"


@pytest.fixture
def preset(tmp_path):
    """A preset's model with a stand-in for the autoencoder, and its frames embedded beforehand."""

    def write(name, **init_args):
        video = {"class_path": "moviegen_audio.VideoFrames", "init_args": {"encoder": None, "feature_width": 1024}}
        caption = {"class_path": "moviegen_text.HashedWordConditioner", "init_args": {"max_words": 512}}
        autoencoder = {"class_path": "moviegen_core.autoencoder.AudioAutoencoder", "init_args": {}}
        changes = {"conditioners": {"video": video, "caption": caption}, "autoencoder": autoencoder, **init_args}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"include": [str(MODELS / f"{name}.yaml")], "model": {"init_args": changes}}))
        return str(path)

    return write


@pytest.mark.parametrize(("name", "billions"), [("300m", 0.31), ("3b", 3.0), ("13b", 12.43)])
def test_sizes_by_component(preset, name, billions):
    sizes = measure(preset(name))
    parts = sizes["components"]["backbone"]["parts"]
    assert sizes["components"]["backbone"]["total"] / 1e9 == pytest.approx(billions, rel=0.01)
    assert parts["blocks"] / sizes["components"]["backbone"]["total"] > 0.95
    assert sizes["latent_shape"] == [128, 250 if name == "300m" else 750] and sizes["num_tokens"] == sizes["latent_shape"][1]
    assert sizes["components"]["conditioners.context"]["note"] == "it has no parameters"
    model = build_model(compose([preset(name)]))
    with torch.device("meta"):
        backbone = model.factories[0]()
    d = backbone.width
    assert parts["blocks"] == len(backbone.blocks) * (16 * d * d + 9 * d) and backbone.ffn_width == 4 * d


def test_the_paper_preset_has_the_papers_numbers(preset):
    model = build_model(compose([preset("13b")]))
    with torch.device("meta"):
        backbone = model.factories[0]()
    block = backbone.blocks[0]
    assert (len(backbone.blocks), backbone.width, block.ffn.w1.out_features) == (36, 4608, 18432)
    assert (backbone.in_channels, backbone.extra_channels, backbone.max_frames) == (128, 128, 750)
    given = compose([str(MODELS / "13b.yaml")])["model"]["init_args"]
    caption = given["conditioners"]["caption"]["init_args"]
    assert (model.joint_dropout, model.duration_s, caption["max_tokens"], caption["dropout"]) == (0.2, 30.0, 512, 0.1)
    assert given["conditioners"]["context"]["init_args"] == {"masked_min": 0.75, "masked_max": 1.0, "dropout": 0.5}
    optimizer = model.optimizer([torch.nn.Parameter(torch.zeros(1))])
    assert optimizer.defaults["lr"] == 1e-4 and optimizer.defaults["weight_decay"] == 0.1


@pytest.mark.parametrize("name", ["predict", "predict_long"])
def test_the_weight_on_the_unconditional_field_is_3(name):
    """6.1.6: "CFG with a weight of 3 on unconditional vector fields", midpoint, 64 steps."""
    given = compose([f"audio/{name}"])["sampler"]["init_args"]
    unconditional = classifier_free_guidance(torch.zeros(1), torch.ones(1), given["guidance_scale"])
    assert unconditional == -3.0 and given["steps"] == 64 and given["solver"]["class_path"].endswith("MidpointSolver")


def test_a_plan_counts_the_captions_tokens_alone(preset):
    workload = read_workload(preset("300m"))
    assert (workload.latent_shape, workload.num_tokens, workload.context_length) == ((128, 250), 250, 512)
    assert workload.num_flops == workload.backbone.num_flops((128, 250), 512)


def test_a_scorer_and_an_encoder_can_be_named(preset):
    encoder = {"class_path": "moviegen_audio.EmbeddedFrameEncoder", "init_args": {"feature_width": 12}}
    video = {"class_path": "moviegen_audio.VideoFrames", "init_args": {"encoder": encoder}}
    scorer = {"class_path": "moviegen_audio.OnsetSyncScorer", "init_args": {"max_lag": 2}}
    assert isinstance(build_model(compose([preset("300m", scorer="moviegen_audio.OnsetSyncScorer")])).scorer, OnsetSyncScorer)
    model = build_model(compose([preset("300m", scorer=scorer, num_candidates=8, conditioners={"video": video})]))
    assert isinstance(model.scorer, OnsetSyncScorer) and (model.scorer.max_lag, model.num_candidates) == (2, 8)
    conditioner = model.factories[1]["video"](16)
    assert (conditioner.feature_width, conditioner.encoder.linear.out_features) == (12, 12)


def test_arguments_that_a_scorer_has_not_are_told(preset):
    scorer = {"class_path": "moviegen_audio.OnsetSyncScorer", "init_args": {"max_leg": 2}}
    with pytest.raises(ValueError, match="max_leg"):
        build_model(compose([preset("300m", scorer=scorer)]))


def test_the_rate_of_fine_tuning_rises_and_falls_in_straight_lines():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    schedule = WarmupLinearLR(optimizer, total_steps=100, warmup_steps=10, final_share=1e-4)
    rates = []
    for _ in range(101):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:10] == pytest.approx([1e-5 * step for step in range(1, 11)])
    assert rates[10:101] == pytest.approx([1e-4 + (1e-8 - 1e-4) * step / 90 for step in range(91)])
    with pytest.raises(ValueError, match="shorter than the run"):
        WarmupLinearLR(optimizer, total_steps=10, warmup_steps=10)
