"""What a mesh of processes refuses, and how it builds weights; equality with one process is in test_mesh.py."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from moviegen_core.backbone import Backbone
from moviegen_core.cli import main
from moviegen_core.errors import UsageError
from moviegen_core.nn.initialization import draw_weights
from moviegen_core.nn.linear import Projection
from moviegen_core.parallel.place import DataPlace, data_place
from moviegen_core.parallel.plan import CONTEXT, DATA, TENSOR, ParallelPlan
from moviegen_core.parallel.precision import compute_dtype_of
from moviegen_core.parallel.sequence import ShardedSequence
from moviegen_core.parallel.strategy import MeshStrategy
from moviegen_t2v.model import VideoTransformer


@pytest.fixture
def plan():
    """A plan for 2 x 2 x 2 processes of which only this one exists; nothing is ever sent."""
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=8)
    yield ParallelPlan(init_device_mesh("cpu", (2, 2, 2), mesh_dim_names=(DATA, CONTEXT, TENSOR)))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("sizes", [{"tensor_parallel_size": 3}, {"data_parallel_size": 1}, {"context_parallel_size": 4}])
def test_a_mesh_of_another_size_is_refused_before_processes_start(sizes):
    with pytest.raises(UsageError, match="for 2 processes; the three multiply to the number of processes; change trainer.devices"):
        Trainer(accelerator="cpu", devices=2, strategy=MeshStrategy(**sizes), logger=False)


def test_heads_that_do_not_divide_are_refused(plan):
    plan.require_heads(6)
    with pytest.raises(UsageError, match="tensor_parallel_size=2 was given for 9 attention heads; .*; give one of 1, 3, 9"):
        plan.require_heads(9)
    with pytest.raises(UsageError, match="=2 x context_parallel_size=2 with all_to_all was given for 6 .*must be one of 1, 2, 3, 6"):
        replace(plan, context_method="all_to_all").require_heads(6)
    backbone = VideoTransformer(num_layers=1, width=12, ffn_width=8, num_heads=3)
    with pytest.raises(UsageError, match="for 3 attention heads"):
        backbone.parallelize(plan)


def test_a_feed_forward_width_that_does_not_divide_is_refused(plan):
    backbone = VideoTransformer(num_layers=1, width=16, ffn_width=25, num_heads=4)
    with pytest.raises(UsageError, match="tensor_parallel_size=2 was given for ffn_width=25; .*; give a ffn_width that divides, e.g. 26"):
        backbone.parallelize(plan)


def test_a_padded_length_stands_for_one_real_length(plan):
    sequence = ShardedSequence(plan.context, plan.tensor)
    lengths = (27, 28, 26, 27, 32, 28)
    padded = [sequence.split(torch.ones(1, length, 2), dim=1).shape[1] * 2 for length in lengths]  # a process holds half a context's share
    assert padded == [28, 32, 36, 28, 40, 32]
    assert [sequence.lengths[length] for length in padded] == list(lengths)


def test_one_precision_is_given():
    for precision in ("bf16-true", "16-true"):
        with pytest.raises(UsageError, match=f"param_dtype=bfloat16 was given with trainer.precision={precision}"):
            MeshStrategy(param_dtype="bfloat16")._require_one_precision(SimpleNamespace(precision=precision))
    MeshStrategy(param_dtype="bfloat16")._require_one_precision(SimpleNamespace(precision="32-true"))
    assert MeshStrategy(reduce_dtype="bfloat16").fsdp["mp_policy"].reduce_dtype == torch.bfloat16


def test_computation_is_in_the_type_that_was_asked_for():
    def told(precision, **options):
        return compute_dtype_of(SimpleNamespace(strategy=MeshStrategy(**options), precision=precision))

    assert told("32-true", param_dtype="bfloat16") == torch.bfloat16
    assert told("32-true", reduce_dtype="bfloat16") == told("32-true") == torch.float32
    assert told("bf16-mixed") == torch.bfloat16


def test_a_backbone_that_knows_nothing_of_meshes_is_sharded_over_data_alone(plan):
    class Plain(Backbone):
        def __init__(self):
            super().__init__(width=8)
            self.layer = Projection(8, 8)

    with pytest.raises(UsageError, match="Plain can be sharded over data alone"):
        Plain().parallelize(plan)


def test_a_model_that_shards_nothing_is_refused(monkeypatch):
    strategy = MeshStrategy()
    strategy._model = nn.Linear(2, 2)
    monkeypatch.setattr(MeshStrategy, "world_size", 2)
    with pytest.raises(UsageError, match="leaves 2 trained parameters unsharded, e.g. 'weight'; use `trainer.strategy: ddp`"):
        strategy._require_shards()


def test_the_short_name_alone_is_a_strategy(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "t2v/debug", "--trainer.devices", "2", "--trainer.strategy", "MeshStrategy", "--print_config"])
    assert not stop.value.code
    assert Trainer(accelerator="cpu", devices=1, strategy="meshstrategy", logger=False).strategy.__class__ is MeshStrategy


def test_place_of_a_process():
    assert data_place(None) == DataPlace(rank=0, count=1, leads=True)
    strategy = SimpleNamespace(distributed_sampler_kwargs={"rank": 1, "num_replicas": 2}, leads_replica=False)
    assert data_place(SimpleNamespace(strategy=strategy)) == DataPlace(rank=1, count=2, leads=False)


def small_backbone():
    return VideoTransformer(num_layers=1, width=16, ffn_width=24, num_heads=4, in_channels=4, max_frames=2, max_height=2, max_width=2)


def test_weights_depend_on_seed_and_name_alone():
    torch.manual_seed(1)
    one = small_backbone()
    draw_weights(one, 3, name="backbone")
    torch.manual_seed(2)
    state, two = torch.get_rng_state(), small_backbone()
    torch.set_rng_state(state)
    draw_weights(two, 3, name="backbone")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    draw_weights(two, 4, name="backbone")
    assert not torch.equal(one.blocks[0].ffn.w1.weight, two.blocks[0].ffn.w1.weight)


def test_a_shard_is_drawn_as_its_part_of_the_whole(plan):
    whole = small_backbone()
    draw_weights(whole, 3, name="backbone")
    with torch.device("meta"):
        sharded = small_backbone()
    sharded.parallelize(plan)
    sharded.to_empty(device="cpu")
    draw_weights(sharded, 3, name="backbone")
    # The first process holds the first quarter of a half of the rows, or of the columns.
    w1, w2 = sharded.blocks[0].ffn.w1.weight.to_local(), sharded.blocks[0].ffn.w2.weight.to_local()
    assert torch.equal(w1, whole.blocks[0].ffn.w1.weight[:3]) and w1.shape == (3, 16)
    assert torch.equal(w2, whole.blocks[0].ffn.w2.weight[:4, :12]) and w2.shape == (4, 12)


class Undrawn(nn.Module):
    """Forgets its scale."""

    def __init__(self):
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.ones(8, 2)), nn.Parameter(torch.ones(8))

    def reset_parameters(self):
        nn.init.ones_(self.weight)


def test_a_part_that_forgets_a_parameter_is_named(plan):
    with torch.device("meta"):
        module = nn.Sequential(Undrawn())
    plan.shard(module)
    module.to_empty(device="cpu")
    with pytest.raises(UsageError, match="Undrawn at '0' was built without memory; its reset_parameters leaves 'scale' undrawn"):
        draw_weights(module, 0)
