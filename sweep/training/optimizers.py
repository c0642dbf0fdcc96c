"""The optimizers, as `torch.optim` defines them, with a learning rate, momentum and weight decay per run."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import torch

from sweep.space.runs import Run

BETAS: Final = (0.9, 0.999)
EPSILON: Final = 1e-8


class Optimizer:
    """Updates parameters `[runs, …]` in place; what changes from step to step is computed on the device.

    `state` holds what a checkpoint has to keep.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        parameters: Mapping[str, torch.Tensor],
        decayed: Collection[str],
        frozen: Mapping[str, torch.Tensor] | None = None,
        kernels: Any = None,
    ) -> None:
        """`decayed` names the only parameters that weight decay touches, in runs that have it.

        `frozen` maps parameters that some runs do not train to a mask `[runs]` of these runs. `kernels` is the module
        `sweep.networks.conv.kernels` if that is to do the work.
        """
        self.frozen, self.kernels = frozen or {}, kernels
        some = next(iter(parameters.values()))
        self.steps, self.cosine, self.adamw = runs[0].steps, runs[0].schedule == "cosine", runs[0].optimizer == "adamw"

        def numbers(name: str) -> torch.Tensor:
            return torch.tensor([getattr(run, name) for run in runs], dtype=some.dtype, device=some.device)

        self.rates, self.momentum, self.decay = map(numbers, ("learning_rate", "momentum", "weight_decay"))
        self.no_decay = torch.zeros_like(self.decay)
        self.decayed = frozenset(decayed if runs[0].weight_decay > 0 else ())
        kinds = ["first", "second"] if self.adamw else ["velocity"] if runs[0].momentum > 0 else []
        self.state = {
            f"{kind}/{name}": torch.zeros_like(parameter) for kind in kinds for name, parameter in parameters.items()
        }

    @torch.no_grad()
    def rates_after(self, batches: torch.Tensor) -> torch.Tensor:
        """Each run's learning rate `[runs]` after `batches` batches `[1]`, by its schedule."""
        if not self.cosine:
            return self.rates
        # torch.optim.lr_scheduler.CosineAnnealingLR with T_max = steps, in closed form
        factor = (1 + torch.cos(batches.double() * (math.pi / self.steps))) / 2
        return (self.rates * factor).to(self.rates.dtype)

    def steps_in_backward(self, weights: Sequence[str], rates: torch.Tensor) -> dict[str, Any]:
        """The steps of these weights, by name, that kernels take as they compute the gradient."""
        if self.adamw or not self.kernels:
            return {}
        return {
            name: self.kernels.SgdStep(self.state.get(f"velocity/{name}"), rates, self.momentum, self._decay(name))
            for name in weights
        }

    @torch.no_grad()
    def update(
        self,
        parameters: Mapping[str, torch.Tensor],
        gradients: Mapping[str, torch.Tensor],
        rates: torch.Tensor,
        counts: Mapping[str, torch.Tensor],
    ) -> None:
        """One step of the parameters that `gradients` names, at learning rates `[runs]`.

        `counts` holds the number of each parameter's updates `[1]`, this one included, for AdamW's bias correction.
        Parameters whose count is the same tensor share what is computed from it.
        """
        if not self.adamw:
            for name, gradient in gradients.items():
                self._sgd(name, parameters[name], gradient, rates)
            return
        distinct = {id(counts[name]): counts[name] for name in gradients}
        corrections = {key: self._corrections(count, rates) for key, count in distinct.items()}
        for name, gradient in gradients.items():
            self._adamw(name, parameters[name], gradient, rates, corrections[id(counts[name])])

    def _sgd(self, name: str, parameter: torch.Tensor, gradient: torch.Tensor, rates: torch.Tensor) -> None:
        velocity = self.state.get(f"velocity/{name}")
        if self.kernels:
            numbers = rates, self.momentum, self._decay(name)
            self.kernels.sgd(parameter, gradient, velocity, *numbers, self.frozen.get(name))
            return
        gradient = self._masked(name, gradient)
        if name in self.decayed:
            gradient = gradient.addcmul(parameter, _over(self.decay, parameter))
        if velocity is not None:
            gradient = velocity.mul_(_over(self.momentum, parameter)).add_(gradient)
        parameter.addcmul_(gradient, _over(-rates, parameter))

    def _corrections(self, count: torch.Tensor, rates: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """AdamW's bias corrections after `count` updates.

        For the kernels, one tensor: the divisor of the first moment, and the square root of the second moment's.
        Without kernels, two: the negated rates `[runs]` over the first divisor, and the second divisor.
        """
        first, second = (1 - beta ** count.double() for beta in BETAS)
        if self.kernels:
            return (torch.cat([first, second.sqrt()]).to(rates.dtype),)
        return (-rates / first).to(rates.dtype), second.to(rates.dtype)

    def _adamw(
        self,
        name: str,
        parameter: torch.Tensor,
        gradient: torch.Tensor,
        rates: torch.Tensor,
        corrections: tuple[torch.Tensor, ...],
    ) -> None:
        first, second = self.state[f"first/{name}"], self.state[f"second/{name}"]
        if self.kernels:
            moments = first, second, rates, self._decay(name), *corrections
            self.kernels.adamw(parameter, gradient, *moments, self.frozen.get(name), *BETAS, EPSILON)
            return
        gradient = self._masked(name, gradient)
        if name in self.decayed:
            parameter.mul_(_over(1 - rates * self.decay, parameter))
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        corrected_rates, second_correction = corrections
        scale = (second / second_correction).sqrt_().add_(EPSILON)
        parameter.addcdiv_(first * _over(corrected_rates, parameter), scale)

    def _decay(self, name: str) -> torch.Tensor:
        return self.decay if name in self.decayed else self.no_decay

    def _masked(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient, zero in the runs for which this parameter is frozen."""
        frozen = self.frozen.get(name)
        return gradient if frozen is None else gradient.masked_fill(_over(frozen, gradient), 0)


def _over(numbers: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Numbers `[runs]`, shaped to broadcast over a parameter `[runs, …]`."""
    return numbers.view(-1, *[1] * (parameter.dim() - 1))
