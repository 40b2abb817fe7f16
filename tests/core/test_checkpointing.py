"""Activation checkpointing of any blocks: nothing changes but the memory and the work, and those as promised."""

import gc
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from moviegen_core.errors import UsageError
from moviegen_core.nn.blocks import prepare_blocks
from moviegen_core.nn.checkpointing import Product, ProductCounter, choose
from moviegen_core.nn.transformer import TransformerBlock

WIDTH, TOKENS, LAYERS = 64, 96, 3
SETTINGS = [("none", 0.5), ("selective", 1.0), ("selective", 0.5), ("selective", 0.0), ("block", 0.5)]


class Strange(nn.Module):
    """A block of someone else's: a convolution, attention, dropout, and a keyword argument."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv1d(WIDTH, 3 * WIDTH, 3, padding=1)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, *, gate: Tensor) -> Tensor:
        q, k, v = self.mix(x.transpose(1, 2)).transpose(1, 2).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        return x + gate * F.dropout(self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)), 0.3)


class LiveBytes(TorchDispatchMode):
    """Knows which storages that were made within it are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for storage in (leaf.untyped_storage() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)):
            self.storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return out

    def count(self) -> int:
        gc.collect()
        return sum(num_bytes for storage, num_bytes in self.storages.values() if not storage.expired())


def blocks(make: Callable[[], nn.Module], how: str, kept: float) -> nn.ModuleList:
    torch.manual_seed(0)
    made = nn.ModuleList(make() for _ in range(LAYERS))
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.1)
    prepare_blocks(made, activation_checkpointing=how, kept_activations=kept)
    return made


def ours() -> TransformerBlock:
    return TransformerBlock(width=WIDTH, ffn_width=160, num_heads=4)


def call_ours(made: nn.ModuleList, num_tokens: int = TOKENS) -> Tensor:
    torch.manual_seed(1)
    x = torch.randn(2, num_tokens, WIDTH)
    if torch.is_autocast_enabled("cpu"):
        x = x.bfloat16()
    others = torch.randn(num_tokens, WIDTH), torch.randn(2, 6, WIDTH), torch.randn(2, 7, WIDTH), torch.rand(2, 1, 1, 7) < 0.7
    for block in made:
        x = block(x, *others)
    return x.float().square().mean()


def call_strange(made: nn.ModuleList) -> Tensor:
    torch.manual_seed(1)
    x, gate = torch.randn(2, TOKENS, WIDTH), torch.rand(WIDTH)
    for block in made:
        x = block(x, gate=gate)
    return x.square().mean()


def learnt(made: nn.ModuleList, loss: Tensor) -> list[Tensor]:
    made.zero_grad()
    loss.backward()
    return [loss.detach(), *(parameter.grad.clone() for parameter in made.parameters())]


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["fp32", "autocast"])
@pytest.mark.parametrize(("make", "call"), [(ours, call_ours), (Strange, call_strange)], ids=["ours", "strange"])
def test_changes_neither_loss_nor_gradients(make: Callable, call: Callable, dtype: torch.dtype | None) -> None:
    """In the first pass, which counts, and in the second; with autocast's cache filled by an earlier call in its region."""
    wanted = None
    for how, kept in SETTINGS:
        made = blocks(make, how, kept)
        for again in (0, 0, 1):
            with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
                loss = call(made)
                if again:
                    loss = call(made) + 0.0 * loss
            results = learnt(made, loss)
            wanted = wanted or results
            torch.testing.assert_close(results, wanted, rtol=1e-6, atol=1e-7)


def test_each_size_has_its_own_choice() -> None:
    plain, selective = blocks(ours, "none", 0.5), blocks(ours, "selective", 0.5)
    for num_tokens in (16, 96, 16, 40, 96):
        wanted = learnt(plain, call_ours(plain, num_tokens))
        torch.testing.assert_close(learnt(selective, call_ours(selective, num_tokens)), wanted, rtol=1e-6, atol=1e-7)


def test_evaluation_keeps_nothing() -> None:
    made = blocks(ours, "selective", 1.0)
    weights = sum(parameter.numel() * parameter.itemsize for parameter in made.parameters())
    with LiveBytes() as live, torch.no_grad():
        call_ours(made)
        assert live.count() <= weights  # products make views of them


def test_names_of_the_state_stay() -> None:
    assert blocks(ours, "selective", 0.5).state_dict().keys() == blocks(ours, "none", 0.5).state_dict().keys()


def measured(how: str, kept: float) -> tuple[int, int]:
    """Bytes that wait for the backward pass, and FLOPs of a training step, of the second step."""
    made = blocks(ours, how, kept)
    call_ours(made).backward()
    with FlopCounterMode(display=False) as flops, LiveBytes() as live:
        loss = call_ours(made)
        waiting = live.count()
        loss.backward()
    return waiting, flops.get_total_flops()


def test_memory_and_work_are_as_promised() -> None:
    with torch.no_grad(), ProductCounter() as counter:
        call_ours(blocks(ours, "none", 0.5))
    products = counter.products[: len(counter.products) // LAYERS]
    # FLOPs of attention on CPUs are missing from torch's count, not from ours.
    counted = [product for product in products if "flash" not in str(product.key)]
    bytes_of, flops_of = zip(*(measured(how, kept) for how, kept in SETTINGS), strict=True)

    assert bytes_of[0] > bytes_of[1] > bytes_of[2] > bytes_of[4] == bytes_of[3]
    assert flops_of[0] == flops_of[1] < flops_of[2] < flops_of[3] == flops_of[4]
    total = sum(product.num_bytes for product in products)
    for i in range(1, 4):
        share = SETTINGS[i][1]
        kept = choose(products, share)
        promised = sum(product.num_bytes for product in kept)
        assert share * total - max(product.num_bytes for product in products) <= promised <= share * total
        assert bytes_of[i] - bytes_of[4] == pytest.approx(LAYERS * promised, abs=1000)
        again = sum(product.num_flops for product in counted) - sum(product.num_flops for product in kept if product in counted)
        assert flops_of[i] - flops_of[0] == LAYERS * again


def test_most_flops_per_byte_go_first() -> None:
    long, wide, narrow, large = Product("attention", 900, 10), Product("w2", 300, 10), Product("wq", 100, 10), Product("w1", 200, 20)
    products = [narrow, long, large, wide]
    assert choose(products, 0.0) == []
    assert choose(products, 0.2) == [long]
    assert choose(products, 0.4) == [long, wide]
    assert choose(products, 0.7) == [long, wide, narrow]  # of equals the first; the second does not fit
    assert choose(products, 1.0) == [long, wide, narrow, large]


@pytest.mark.parametrize("attended", [TOKENS, 7], ids=["long", "short"])
def test_attention_over_long_sequences_is_kept_first(attended: int) -> None:
    """Attention to l keys costs 4·l per number, a product of width d 2·d."""
    query, weight = torch.randn(1, 4, TOKENS, 16), torch.randn(WIDTH, WIDTH)
    with ProductCounter() as counter:
        F.scaled_dot_product_attention(query, query[:, :, :attended], query[:, :, :attended])
        F.linear(torch.randn(TOKENS, WIDTH), weight)
    first = choose(counter.products, 0.6)[0]
    assert ("attention" in str(first.key)) == (4 * attended > 2 * WIDTH)


@pytest.mark.parametrize(
    ("how", "kept", "message"),
    [
        ("some", 0.5, "activation_checkpointing='some' was given; known are none, selective, block"),
        (True, 0.5, "activation_checkpointing=True"),
        ("selective", 1.5, r"kept_activations=1.5 was given.*from 0 to 1"),
        ("selective", float("nan"), "kept_activations=nan"),
    ],
)
def test_bad_values_are_refused(how: str, kept: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        prepare_blocks([], activation_checkpointing=how, kept_activations=kept)
