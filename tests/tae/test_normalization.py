"""Fused group normalisation against torch's own."""

import pytest
import torch
from torch.nn import functional as F

from moviegen_tae.normalization import GroupNormSiLU


@pytest.mark.parametrize(
    ("channels", "groups", "size"), [(8, 2, (4, 6)), (16, 8, (7, 5)), (6, 3, (1, 1)), (32, 32, (16, 32)), (64, 8, (3, 32))]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_torchs(channels: int, groups: int, size: tuple[int, int], layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    norm = GroupNormSiLU(groups, channels).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = (3.0 + torch.randn(5, channels, *size)).double().to(memory_format=layout).requires_grad_()
    grad = torch.randn_like(x)
    norm(x).backward(grad)
    ours = [x.grad, norm.weight.grad, norm.bias.grad]
    reference = x.detach().clone().requires_grad_()
    weight, bias = (z.detach().clone().requires_grad_() for z in (norm.weight, norm.bias))
    wanted = F.silu(F.group_norm(reference, groups, weight, bias, 1e-6))
    wanted.backward(grad)
    torch.testing.assert_close(norm(x), wanted)
    with torch.no_grad():
        torch.testing.assert_close(norm(x), wanted)
    for got, want in zip(ours, [reference.grad, weight.grad, bias.grad], strict=True):
        torch.testing.assert_close(got, want)


def test_bfloat16_is_no_worse_than_torchs() -> None:
    torch.manual_seed(0)
    norm = GroupNormSiLU(8, 16)
    x = (1.0 + torch.randn(4, 16, 32, 32)).bfloat16().to(memory_format=torch.channels_last)
    grad = torch.randn_like(x)
    exact, ours, theirs = x.float().requires_grad_(), x.clone().requires_grad_(), x.clone().requires_grad_()
    F.silu(F.group_norm(exact, 8, eps=1e-6)).backward(grad.float())
    norm(ours).backward(grad)
    F.silu(F.group_norm(theirs, 8, eps=1e-6)).backward(grad)
    error = [(z.grad.float() - exact.grad).norm() for z in (ours, theirs)]
    assert ours.grad.dtype == torch.bfloat16
    assert error[0] <= error[1]
