"""MuonAdamW against torch's own optimizers."""

import copy

import pytest
import torch
from torch import nn

from moviegen_core.optimizers import MuonAdamW, orthogonalise


def _train(module, optimizers, steps=5):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(16, 6, generator=generator)
        module.zero_grad()
        module(x).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
    return [parameter.detach() for parameter in module.parameters()]


def test_equals_torchs_muon_on_matrices_and_adamw_on_the_rest():
    module = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    reference = copy.deepcopy(module)
    matrices = [p for p in reference.parameters() if p.ndim == 2]
    vectors = [p for p in reference.parameters() if p.ndim == 1]
    muon = torch.optim.Muon(matrices, lr=0.01, momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(vectors, lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    ours = _train(module, [MuonAdamW(module.parameters(), lr=0.01, weight_decay=0.1)])
    for got, wanted in zip(ours, _train(reference, [muon, adamw]), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=2e-4)  # both iterate in bfloat16, in another order


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape):
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape), half_precision=False))
    assert values.min() > 0.6 and values.max() < 1.3


def test_tables_and_vectors_go_to_adamw():
    optimizer = MuonAdamW([nn.Parameter(torch.zeros(2, 2))])
    assert optimizer.is_matrix(torch.zeros(16, 3, 3, 3))
    assert not optimizer.is_matrix(torch.zeros(4096, 8))
    assert not optimizer.is_matrix(torch.zeros(8))
    assert not optimizer.is_matrix(torch.zeros(1, 8))


def test_state_survives_a_checkpoint():
    module = nn.Linear(6, 4)
    optimizer = MuonAdamW(module.parameters(), lr=0.01)
    _train(module, [optimizer], steps=3)
    other = nn.Linear(6, 4)
    other.load_state_dict(module.state_dict())
    resumed = MuonAdamW(other.parameters(), lr=0.01)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for got, wanted in zip(_train(other, [resumed]), _train(module, [optimizer]), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="momentum in \\[0, 1\\)"):
        MuonAdamW([nn.Parameter(torch.zeros(2, 2))], momentum=1.0)
