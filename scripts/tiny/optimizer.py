"""Muon for the matrices inside the network and Adam for the rest, as one optimiser, and the learning rate over a run.

What it gives up: Muon's choices (momentum 0.95, five iterations, Nesterov) are fixed.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class MuonAdam(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for groups with `matrices=True`, Adam for the others.

    Muon replaces the update of a matrix by the nearest orthogonal one: all singular directions learn at one rate, the
    faint ones of coevolution like the strong ones of profiles. Matrices of one shape are orthogonalised in one batch.
    """

    def __init__(self, groups: list[dict[str, Any]], momentum: float = 0.95, betas: tuple[float, float] = (0.9, 0.98)):
        super().__init__(groups, {"lr": 1e-3, "matrices": False, "weight_decay": 0.0})
        self.momentum, self.betas = momentum, betas

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of the parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["matrices"]:
                self._muon(parameters, group["lr"], group["weight_decay"])
            else:
                self._adam(parameters, group["lr"])
        return loss

    def _muon(self, parameters: list[Tensor], lr: float, decay: float) -> None:
        by_shape: dict[tuple[int, ...], list[Tensor]] = {}
        for parameter in parameters:
            by_shape.setdefault(tuple(sorted(parameter.shape)), []).append(parameter)
        for members in by_shape.values():
            updates = []
            for parameter in members:
                gradient = parameter.grad
                assert gradient is not None
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(gradient, 1 - self.momentum)
                update = gradient.lerp(state["momentum"], self.momentum)
                updates.append(update if update.shape[0] <= update.shape[1] else update.T)
            for parameter, update in zip(members, orthogonalize(torch.stack(updates)), strict=True):
                rows, columns = parameter.shape
                parameter.mul_(1 - lr * decay)
                parameter.add_(update if rows <= columns else update.T, alpha=-lr * max(1.0, rows / columns) ** 0.5)

    def _adam(self, parameters: list[Tensor], lr: float) -> None:
        fast, slow = self.betas
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state.update(mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
                state["count"] = torch.tensor(0.0)
            state["count"] += 1
        means, squares = [state["mean"] for state in states], [state["square"] for state in states]
        torch._foreach_lerp_(means, gradients, 1 - fast)
        torch._foreach_mul_(squares, slow)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - slow)
        roots = torch._foreach_sqrt(squares)
        corrections = [1 - slow ** float(state["count"]) for state in states]
        torch._foreach_div_(roots, [math.sqrt(correction) for correction in corrections])
        torch._foreach_add_(roots, 1e-8)
        rates = [-lr / (1 - fast ** float(state["count"])) for state in states]
        torch._foreach_addcdiv_(parameters, means, roots, rates)


def orthogonalize(matrices: Float[Tensor, "K R C"], iterations: int = 5) -> Float[Tensor, "K R C"]:
    """Bring all singular values to about 1 by Newton-Schulz iterations with Muon's coefficients (R <= C)."""
    x: Tensor = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.transpose(1, 2)
        x = 3.4445 * x + (2.0315 * (gram @ gram) - 4.7750 * gram) @ x
    return x


def parameter_groups(network: nn.Module, lr: float, adam_lr: float, decay: float) -> list[dict[str, Any]]:
    """Matrices between hidden states go to Muon; embeddings, biases, norms and the column head to Adam.

    The contact head goes to neither: it is fitted afterwards.
    """
    inside: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, value in network.named_parameters():
        if "contact_head" not in name:
            apart = value.ndim != 2 or "embed_tokens" in name or "lm_head.weight" in name or "column_head" in name
            (others if apart else inside).append(value)
    return [
        {"params": inside, "lr": lr, "matrices": True, "weight_decay": decay},
        {"params": others, "lr": adam_lr},
    ]


def rate_factor(step: int, steps: int, decay_steps: int, warmup: int = 100) -> float:
    """Learning rate relative to its plateau: linear warm-up, constant, linear to zero over the last `decay_steps`.

    Before the decay it does not depend on `steps`, so a run may be given more steps later without a difference.
    """
    return min(1.0, (step + 1) / warmup, (steps - step) / max(1, decay_steps))
