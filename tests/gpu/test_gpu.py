"""What only a CUDA device can show; `tox -e gpu` runs it with the torch of the machine."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from moviegen_core.batch import MediaBatch
from moviegen_core.nn.attention import fused_attention
from moviegen_core.parallel.strategy import MeshStrategy
from moviegen_t2v.model import VideoTransformer
from moviegen_t2v.training import TextToVideo
from moviegen_text.embedded import HashedWordConditioner

pytestmark = [
    pytest.mark.gpu,
    # What torch and Lightning say of a particular machine is not ours.
    pytest.mark.filterwarnings("ignore"),
]


def model(**settings):
    return TextToVideo(
        backbone=partial(
            VideoTransformer, num_layers=2, width=64, ffn_width=96, num_heads=4, in_channels=4, patch_size=(1, 1, 1),
            max_frames=4, max_height=8, max_width=8, **settings,
        ),
        conditioners={"prompt": partial(HashedWordConditioner, width_text=16, num_layers=1, num_buckets=64)},
        optimizer=partial(torch.optim.AdamW, lr=1e-3),
    )  # fmt: skip


def losses(strategy="auto", accelerator="gpu", steps=6, precision="32-true", **settings):
    """Losses of a few steps on one batch."""
    made = model(**settings)
    seen = []
    made.on_train_batch_end = lambda outputs, *_: seen.append(outputs["loss"].item())
    batch = MediaBatch(
        captions=["a red ball", "two squares"],
        keys=["a", "b"],
        latents=torch.randn(2, 4, 3, 5, 5, generator=torch.Generator().manual_seed(0)),
    )
    trainer = Trainer(
        accelerator=accelerator, devices=1, strategy=strategy, precision=precision, max_steps=steps, gradient_clip_val=1.0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(made, DataLoader([batch] * steps, batch_size=None))
    return seen


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_fused_attention_with_masked_keys(dtype):
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 4, length, 64, device="cuda", dtype=dtype) for length in (37, 21, 21))
    mask = torch.rand(3, 1, 1, 21, device="cuda") < 0.5
    mask[1] = False
    reference = F.scaled_dot_product_attention(query.double(), key.double(), value.double(), attn_mask=mask).nan_to_num()
    torch.testing.assert_close(fused_attention(query, key, value, mask).double(), reference, atol=2e-2, rtol=2e-2)
    assert fused_attention(query, key, value, mask)[1].eq(0).all()


def test_attention_holds_no_square_matrix():
    length = 32_768
    query = torch.randn(1, 1, length, 64, device="cuda", dtype=torch.bfloat16)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    fused_attention(query, query, query)
    assert torch.cuda.max_memory_allocated() - before < length * length // 8


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"reshard_after_forward": False},
        {"cpu_offload": True},
    ],
    ids=["mesh", "gathered", "offload"],
)
def test_a_mesh_of_one_gpu_trains_as_the_gpu_alone(settings):
    assert losses(MeshStrategy(**settings)) == pytest.approx(losses(), rel=1e-3)


def test_half_precision_by_autocast_and_by_fsdp_agree():
    assert losses(MeshStrategy(param_dtype="bfloat16")) == pytest.approx(losses(precision="bf16-mixed"), rel=2e-2)


@pytest.mark.parametrize(
    "settings",
    [
        {"activation_checkpointing": "block"},
        {"activation_checkpointing": "selective"},
        {"compile_blocks": "default"},
        {"compile_blocks": "default", "activation_checkpointing": "selective"},
        {"compile_blocks": "reduce-overhead"},
    ],
    ids=lambda settings: "-".join(settings.values()),
)
def test_blocks_run_in_every_way_to_the_same_losses(settings):
    assert losses(**settings) == pytest.approx(losses(), rel=1e-3)
