"""The planner's memory against what torch allocates: whole steps of sharded backbones under fake tensors and a fake process group."""

import warnings

import pytest
import torch

from moviegen_core.parallel.planner.layout import Layout
from moviegen_core.parallel.planner.memory import estimate_memory
from moviegen_core.parallel.planner.parameters import read_parameters, shard_parameters
from moviegen_core.parallel.planner.simulation import fake_plan, fake_processes, simulate_step
from moviegen_t2v.model import VideoTransformer

SIZES = {"num_layers": 3, "width": 512, "ffn_width": 1408, "num_heads": 8, "max_frames": 8, "max_height": 32, "max_width": 32}
LATENT_SHAPE, CONTEXT_LENGTH = (16, 8, 64, 64), 64  # 8,192 tokens


def build(layout, sizes=SIZES):
    return VideoTransformer(**sizes, activation_checkpointing=layout.checkpointing, kept_activations=layout.kept_activations)


def compared(layout, latent_shape=LATENT_SHAPE, sizes=SIZES, context_length=CONTEXT_LENGTH):
    """Bytes that torch allocates, and bytes that the planner expects."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 renames collectives
        measured = simulate_step(lambda: build(layout, sizes), layout, latent_shape, context_length)
    with torch.device("meta"):
        backbone = build(layout, sizes)
    mesh = {"context": layout.context, "tensor": layout.tensor, "element_bytes": layout.element_bytes}
    footprint = backbone.footprint(latent_shape, context_length, **mesh)
    return measured, estimate_memory(shard_parameters(backbone, layout.tensor), footprint, layout).tensors


@pytest.mark.parametrize(
    "layout",
    [
        Layout(4, 1, 1, "none"),
        Layout(8, 2, 4, "selective", 0.5),
        Layout(2, 4, 1, "block", micro_batch=2),
        pytest.param(Layout(2, 2, 2, "none"), marks=pytest.mark.slow),
        pytest.param(Layout(8, 2, 4, "block"), marks=pytest.mark.slow),
        pytest.param(Layout(2, 1, 2, "selective", 1.0, precision="fp32"), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_small_backbone_within_a_tenth(layout):
    measured, estimated = compared(layout)
    assert estimated == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(4, 1, 1, "none"),
        Layout(2, 1, 4, "block", micro_batch=2),
        pytest.param(Layout(4, 2, 4, "selective", 0.5), marks=pytest.mark.slow),
        pytest.param(Layout(2, 1, 2, "none", precision="fp32"), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_without_a_gate_within_a_tenth(layout):
    measured, estimated = compared(layout, sizes=SIZES | {"feed_forward": "gelu", "ffn_width": 2048})
    assert estimated == pytest.approx(measured, rel=0.1)


@pytest.mark.slow
def test_without_a_context_and_for_images_within_a_tenth():
    measured, estimated = compared(Layout(4, 1, 2, "none", micro_batch=8), (16, 1, 64, 64), context_length=0)
    assert estimated == pytest.approx(measured, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout",
    [
        Layout(768, 2, 4, "none"),
        Layout(768, 2, 4, "selective", 0.5),
        Layout(768, 2, 4, "block"),
        Layout(1536, 1, 4, "block"),
        Layout(6144, 1, 1, "block"),
        Layout(768, 1, 8, "selective", 0.25),
        Layout(768, 8, 1, "block"),
    ],
    ids=str,
)
def test_width_of_the_paper_within_a_tenth(layout):
    """Eight layers of the 30 B model at 73,728 tokens; benchmarks/planner_memory.py has all 48."""
    measured, estimated = compared(layout, (16, 32, 96, 96), {"num_layers": 8}, 768)
    assert estimated == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(("data", "context", "tensor"), [(4, 1, 1), (3, 1, 2), (2, 2, 4)])
def test_kept_parameters_are_those_that_fsdp_keeps(data, context, tensor):
    with torch.device("meta"):
        whole, sharded = VideoTransformer(**SIZES), VideoTransformer(**SIZES)
    with fake_processes(data * context * tensor):
        sharded.parallelize(fake_plan(data, context, tensor))
        local = sum(parameter.to_local().numel() for parameter in sharded.parameters())
        found = read_parameters(sharded)
    assert found == shard_parameters(whole, tensor)
    assert found.kept(data * context) == local


@pytest.mark.parametrize("feed_forward", ["swiglu", "gelu"])
def test_flops_of_the_blocks_are_those_of_the_backbone(feed_forward):
    with torch.device("meta"):
        backbone = VideoTransformer(**SIZES, feed_forward=feed_forward)
    footprint = backbone.footprint(LATENT_SHAPE, CONTEXT_LENGTH, context=2, tensor=2)
    whole = backbone.num_flops(LATENT_SHAPE, CONTEXT_LENGTH)
    assert 4 * footprint.num_blocks * footprint.block_flops == pytest.approx(whole, rel=0.01)
    assert sum(product.num_flops for product in footprint.products) == pytest.approx(footprint.block_flops, rel=0.01)


@pytest.mark.parametrize("feed_forward", ["swiglu", "gelu"])
def test_selective_checkpointing_counts_the_products_that_it_sees(feed_forward):
    from moviegen_core.conditioner import Conditioning
    from moviegen_core.nn.checkpointing import ProductCounter

    torch.manual_seed(0)
    sizes = SIZES | {"num_layers": 1, "width": 64, "ffn_width": 96, "num_heads": 4, "feed_forward": feed_forward}
    backbone, counter = VideoTransformer(**sizes), ProductCounter()
    original = backbone.blocks[0].forward

    def watched(*args, **kwargs):
        with counter:
            return original(*args, **kwargs)

    backbone.blocks[0].forward = watched
    mask = torch.ones(1, 6, dtype=torch.bool)
    backbone(torch.randn(1, 16, 2, 8, 8), torch.rand(1), Conditioning(context=torch.randn(1, 6, 64), context_mask=mask))
    expected = backbone.footprint((16, 2, 8, 8), 6, element_bytes=4).products
    assert [(seen.num_flops, seen.num_bytes) for seen in counter.products] == [(own.num_flops, own.num_bytes) for own in expected]
