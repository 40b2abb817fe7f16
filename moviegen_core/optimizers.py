"""Optimizers beside torch's own: orthogonalised momentum for matrices, AdamW for the rest, in one optimizer that YAML can name."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from moviegen_core.parallel.dtensor import shard_like, whole

# The quintic iteration of torch.optim.Muon: it drives singular values into about [0.7, 1.2] in five steps.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_NUM_ITERATIONS = 5


class MuonAdamW(Optimizer):
    """Muon for every weight matrix and convolution kernel, AdamW for norms, biases and tables; one learning rate for both.

    A matrix's momentum is replaced by the nearest matrix with orthonormal rows or columns, scaled so that its root mean square is that of
    an AdamW step; so an AdamW learning rate is a good first guess. Kernels count as matrices (out, in·kernel). A parameter whose longer
    side is more than `table_ratio` times its shorter one (an embedding or a positional table) goes to AdamW. Matrices of one shape are
    orthogonalised together. A sharded matrix is gathered for it, on every process of its mesh: exact, and dear for large models.

    torch.optim.Muon takes two-dimensional parameters only and leaves the others to a second optimizer, which Lightning's automatic
    optimisation cannot step along.

    Args:
        params: parameters, or groups of them.
        lr: learning rate of both.
        momentum: decay of the momentum of matrices, in [0, 1).
        betas: AdamW's averages.
        eps: AdamW's epsilon.
        weight_decay: decoupled weight decay of both, per unit of learning rate.
        table_ratio: longest side over shortest from which a parameter counts as a table.
        half_precision: orthogonalise in bfloat16, as torch does; float32 where false.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float = 2e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        table_ratio: float = 40.0,
        half_precision: bool = True,
    ) -> None:
        if lr < 0.0 or not 0.0 <= momentum < 1.0:
            raise ValueError(
                f"lr={lr} and momentum={momentum} were given; lr is at least 0 and momentum in [0, 1); try lr=2e-3, momentum=0.95"
            )
        self.table_ratio = table_ratio
        self.half_precision = half_precision
        super().__init__(params, {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step with the gradients as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            updated = [parameter for parameter in group["params"] if parameter.grad is not None]
            matrices = [parameter for parameter in updated if self.is_matrix(parameter)]
            chosen = {id(parameter) for parameter in matrices}
            self._step_matrices(matrices, group)
            self._step_others([parameter for parameter in updated if id(parameter) not in chosen], group)
        return loss

    def is_matrix(self, parameter: Tensor) -> bool:
        """True where a parameter's momentum is orthogonalised."""
        if parameter.ndim < 2:
            return False
        rows, columns = parameter.shape[0], parameter.shape[1:].numel()
        return min(rows, columns) > 1 and max(rows, columns) <= self.table_ratio * min(rows, columns)

    def _step_matrices(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        by_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
        for parameter in matrices:
            by_shape[tuple(parameter.shape)].append(parameter)
        for shape, parameters in by_shape.items():
            updates = []
            for parameter in parameters:
                buffer = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
                buffer.lerp_(parameter.grad, 1.0 - group["momentum"])
                updates.append(whole(parameter.grad.lerp(buffer, group["momentum"])).flatten(1))
            rows, columns = updates[0].shape
            directions = orthogonalise(torch.stack(updates), half_precision=self.half_precision)
            scale = -group["lr"] * 0.2 * max(rows, columns) ** 0.5
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                parameter.add_(shard_like(direction.view(shape).to(parameter.dtype), parameter), alpha=scale)

    def _step_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        if not parameters:
            return
        for parameter in parameters:
            if "step" not in self.state[parameter]:
                fresh = {"exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
                self.state[parameter].update(step=torch.zeros(()), **fresh)
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            foreach=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def orthogonalise(matrices: Tensor, *, half_precision: bool = True) -> Tensor:
    """Replace every matrix of a stack (k, rows, columns) by one of nearly orthonormal rows or columns with the same singular vectors."""
    a, b, c = _COEFFICIENTS
    x = matrices.bfloat16() if half_precision else matrices.float()
    transposed = x.shape[1] > x.shape[2]
    x = x.mT if transposed else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(_NUM_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if transposed else x
