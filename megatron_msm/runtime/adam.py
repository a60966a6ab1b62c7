"""AdamW that counts steps per parameter group, where TE's and apex's FusedAdam cannot be used.

megatron-core's distributed optimizer writes and restores the optimizer state of FusedAdam, where
`step` belongs to the group. torch.optim.AdamW keeps it per parameter, which that code cannot
restore (`load_parameter_state_from_fully_reshardable` copies every state key, KeyError 'step').
This class is torch's own update (`torch.optim.adamw.adamw`) behind FusedAdam's state layout.
"""

from collections.abc import Callable
from typing import Any

import torch
from megatron.core import optimizer as megatron_optimizer
from megatron.core.optimizer import distrib_optimizer
from torch.optim.adamw import adamw
from torch.optim.optimizer import ParamsT


class GroupStepAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) with apex FusedAdam's interface.

    State per parameter: `exp_avg`, `exp_avg_sq` (same shape and dtype as the parameter). Per group:
    `step`, an int that counts calls to `step()`.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        adam_w_mode: bool = True,
        capturable: bool = False,
    ) -> None:
        if not adam_w_mode:
            raise ValueError("only decoupled weight decay (AdamW) is implemented")
        if capturable:  # which megatron-core passes from 0.19 on
            raise ValueError("CUDA graphs of the optimizer step are not implemented")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(  # type: ignore[override]  # torch declares overloads; there is no closure here
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                self._update(group, params)
        return None

    def _update(self, group: dict[str, Any], params: list[torch.Tensor]) -> None:
        for param in params:
            if not self.state[param]:
                self.state[param]["exp_avg"] = torch.zeros_like(param)
                self.state[param]["exp_avg_sq"] = torch.zeros_like(param)
        # The functional form counts the step itself, from the number of steps already made.
        steps = [torch.tensor(float(group["step"] - 1)) for _ in params]
        beta1, beta2 = group["betas"]
        adamw(
            params,
            [param.grad for param in params if param.grad is not None],
            [self.state[param]["exp_avg"] for param in params],
            [self.state[param]["exp_avg_sq"] for param in params],
            [],
            steps,
            foreach=False,
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def choose_adam(*, is_cuda: bool) -> None:
    """Make megatron-core build `GroupStepAdamW` on a CPU, and where it found neither TE nor apex.

    Theirs run on GPUs alone. The four flags are what megatron-core sets when apex is there: they
    choose the constructor call (optimizer/__init__.py:359) and where checkpoints keep `step`
    (distrib_optimizer.py:640-682).
    """
    if is_cuda and not megatron_optimizer.USING_PYTORCH_OPTIMIZER:
        return
    megatron_optimizer.Adam = distrib_optimizer.Adam = GroupStepAdamW
    megatron_optimizer.USING_PYTORCH_OPTIMIZER = False
    distrib_optimizer.HAVE_APEX_OR_TE = True
    distrib_optimizer.USING_TE_OPTIMIZER = False
    distrib_optimizer.USING_APEX_OPTIMIZER = True
