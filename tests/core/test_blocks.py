"""Compiled blocks: the same results, one graph for every size, what is refused."""

import copy
import shutil
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from moviegen_core.errors import UsageError
from moviegen_core.nn import blocks as blocks_module
from moviegen_core.nn.blocks import prepare_blocks
from moviegen_core.nn.transformer import TransformerBlock

WIDTH, LAYERS = 32, 3
# torch hides these warnings of its own while it compiles, but not where warnings are errors.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Compile without generating code; collects the number of tokens in every graph."""
    found: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]):
        found.append(max(x.shape[1] for x in inputs if x.ndim == 3))
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    monkeypatch.setattr(blocks_module, "BACKEND", backend)
    torch._dynamo.reset()
    yield found
    torch._dynamo.reset()


def build(dtype: torch.dtype = torch.float32, **settings: object) -> nn.ModuleList:
    torch.manual_seed(0)
    made = nn.ModuleList(TransformerBlock(width=WIDTH, ffn_width=48, num_heads=2) for _ in range(LAYERS)).to(dtype)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    prepare_blocks(made, **settings)
    return made


def call(made: nn.ModuleList, num_tokens: int = 24, dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(1)
    x, positions, context = (torch.randn(shape, dtype=dtype) for shape in ((2, num_tokens, WIDTH), (num_tokens, WIDTH), (2, 7, WIDTH)))
    modulation, mask = torch.randn(2, 6, WIDTH), torch.rand(2, 1, 1, 7) < 0.7
    x.requires_grad_(torch.is_grad_enabled())
    for block in made:
        x = block(x, positions, modulation, context, mask)
    return x.float().square().mean()


def learnt(made: nn.ModuleList, loss: Tensor) -> list[Tensor]:
    made.zero_grad()
    loss.backward()
    return [loss.detach(), *(parameter.grad.clone() for parameter in made.parameters())]


@pytest.mark.parametrize("how", ["none", "selective", "block"])
def test_plumbing_of_compilation(graphs: list[int], how: str) -> None:
    """All blocks share a graph, in training and in evaluation; a second step and a second backbone make none."""
    plain, compiled = build(), build(activation_checkpointing=how, compile_blocks="default")
    for _ in range(3):
        torch.testing.assert_close(learnt(compiled, call(compiled)), learnt(plain, call(plain)), rtol=1e-4, atol=1e-4)
    assert graphs == [24]
    with torch.no_grad():
        torch.testing.assert_close(call(compiled), call(plain))
    assert graphs == [24, 24]


def test_more_sizes_than_torch_keeps_graphs_for(graphs: list[int]) -> None:
    """Every bucket of sizes is compiled once; none runs uncompiled and none by dynamic shapes."""
    plain, compiled = build(), build(compile_blocks="default")
    sizes = [10, 11, 12, 13]
    with torch._dynamo.config.patch(recompile_limit=2):
        for num_tokens in 2 * sizes:
            torch.testing.assert_close(call(compiled, num_tokens), call(plain, num_tokens))
    assert graphs == sizes


def test_chunked_attention_is_compiled_as_one_call(graphs: list[int]) -> None:
    settings = {"dtype": torch.bfloat16}
    plain, compiled = build(**settings), build(**settings, activation_checkpointing="selective", compile_blocks="default")
    for _ in range(2):
        wanted, found = learnt(plain, call(plain, **settings)), learnt(compiled, call(compiled, **settings))
        for a, b in zip(found, wanted, strict=True):
            assert (a - b).norm() <= 0.05 * b.norm()
    assert graphs == [24]


def test_names_stay_and_copies_are_their_own(graphs: list[int]) -> None:
    compiled = build(compile_blocks="default", activation_checkpointing="block")
    assert compiled.state_dict().keys() == build().state_dict().keys()
    other = copy.deepcopy(compiled)
    before = call(other)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    assert not torch.equal(call(other), before)
    torch.testing.assert_close(call(compiled), before)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["none", "selective"])
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_generated_code_equals_eager(how: str) -> None:
    plain, compiled = build(), build(activation_checkpointing=how, compile_blocks="default")
    for _ in range(2):
        torch.testing.assert_close(learnt(compiled, call(compiled)), learnt(plain, call(plain)), rtol=1e-4, atol=1e-4)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="compile_blocks='fast' was given; known are default, reduce-overhead, .*null"):
        build(compile_blocks="fast")
    with pytest.raises(UsageError, match="reduce-overhead was given with activation_checkpointing=block"):
        build(compile_blocks="reduce-overhead", activation_checkpointing="block")
    with pytest.raises(UsageError, match="reduce-overhead was given on cpu; it replays CUDA graphs; give compile_blocks default"):
        call(build(compile_blocks="reduce-overhead"))
