"""Checkpoints of a few numbers in every type."""

from pathlib import Path

import torch


def make_state(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "backbone.weight": torch.randn(4, 3, generator=generator),
        "backbone.half": torch.randn(5, generator=generator).bfloat16(),
        "backbone.steps": torch.tensor(seed),
        "conditioners.text.projection.weight": torch.randn(2, 2, generator=generator, dtype=torch.float64),
        "autoencoder.flag": torch.tensor([True, False, True]),
        "autoencoder.none": torch.empty(0, 4),
    }


def make_checkpoint(path: Path, seed: int = 0, **more: object) -> Path:
    parameters = {
        "_class_path": "package.TinyModel",
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
        "backbone": {"class_path": "package.TinyBackbone", "init_args": {"width": 3}},
        "conditioners": {"text": {"class_path": "package.Words", "init_args": {"dropout": 0.1}}},
    }
    torch.save({"state_dict": make_state(seed), "hyper_parameters": parameters, "epoch": 3, "global_step": 17, **more}, path)
    return path


def assert_states_equal(given: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert given.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert given[name].dtype == tensor.dtype, name
        torch.testing.assert_close(given[name], tensor, rtol=0, atol=0)
