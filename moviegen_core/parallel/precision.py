"""The element type that a trainer computes in, wherever it was chosen."""

from typing import Any

import torch

_DTYPES = {"bf16": torch.bfloat16, "16": torch.float16, "32": torch.float32, "64": torch.float64}


def compute_dtype_of(trainer: Any) -> torch.dtype:
    """What matrix products of a training run in: FSDP's `param_dtype` where a strategy sets one, else that of `trainer.precision`."""
    policy = getattr(trainer.strategy, "fsdp", {}).get("mp_policy")
    if policy is not None and policy.param_dtype is not None:
        return policy.param_dtype
    return next((dtype for name, dtype in _DTYPES.items() if str(trainer.precision).startswith(name)), torch.float32)
