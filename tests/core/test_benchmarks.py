"""The benchmark for a GPU runs without one at tiny sizes, and counts as the backbone does."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from moviegen_core.nn import blocks as blocks_module
from moviegen_t2v.model import VideoTransformer

pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]


@pytest.fixture
def gpu_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    path = Path(__file__).parents[2] / "benchmarks" / "gpu_blocks.py"
    spec = importlib.util.spec_from_file_location("gpu_blocks", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "gpu_blocks", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(blocks_module, "BACKEND", blocks_module.BACKEND)
    yield module
    torch._dynamo.reset()


def test_dry_run(gpu_blocks: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    records = []
    original = gpu_blocks.measure
    monkeypatch.setattr(gpu_blocks, "measure", lambda *args: records.append(original(*args)) or records[0])
    assert gpu_blocks.main(["--dry-run", "--output", str(tmp_path / "none.json")]) == 0
    assert not any(tmp_path.iterdir())
    settings = records[0]["runs"]["32"]["settings"]
    assert settings.keys() == gpu_blocks.SETTINGS.keys()
    assert [name for name, found in settings.items() if "failed" in found] == ["CUDA graphs, none"]
    for found in settings.values():
        if "failed" not in found:
            assert found["tflops"] > 0 and sum(found["parts"].values()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(gpu_blocks: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_blocks.main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_counts_as_the_backbone(gpu_blocks: ModuleType) -> None:
    sizes = gpu_blocks.Sizes(width=64, ffn_width=160, num_heads=4, context=7)
    one, two = (VideoTransformer(num_layers=n, width=64, ffn_width=160, num_heads=4) for n in (1, 2))
    assert gpu_blocks.num_flops(sizes, 64)[0] == two.num_flops((16, 4, 8, 8), 7) - one.num_flops((16, 4, 8, 8), 7)
