"""What a step of the optimizers costs; that they are those of `torch.optim`, tests/training/test_trainer.py shows."""

from collections import Counter
from typing import Any

import torch
from support import oracle
from torch.utils._python_dispatch import TorchDispatchMode

from sweep.space.runs import Run
from sweep.training.optimizers import BETAS, Optimizer
from sweep.training.trainer import Trainer


class Counted(TorchDispatchMode):
    """Counts the operations that PyTorch carries out, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


ADAMW = Run(width=3, hidden=5, kernel_size=3, batch_size=5, steps=6, optimizer="adamw")


def test_adamw_works_out_its_corrections_once_per_step_and_not_once_per_parameter() -> None:
    trainer = Trainer([ADAMW], oracle.synthetic())
    with Counted() as counted:
        trainer.step()
    assert len(trainer.model.parameters) > 2 and counted.operations["pow"] == len(BETAS)


def test_parameters_with_another_count_of_updates_have_corrections_of_their_own() -> None:
    names, often, seldom = ("a", "b", "c", "d"), torch.tensor([8]), torch.tensor([4])
    counts = {"a": often, "b": often, "c": seldom, "d": seldom}
    parameters = {name: torch.zeros(1, 2) for name in names}
    gradients = {name: torch.ones(1, 2) for name in names}
    optimizer = Optimizer([ADAMW], parameters, decayed=())
    with Counted() as counted:
        optimizer.update(parameters, gradients, optimizer.rates_after(torch.tensor([4])), counts)
    assert counted.operations["pow"] == 2 * len(BETAS)
    assert torch.equal(parameters["a"], parameters["b"]) and torch.equal(parameters["c"], parameters["d"])
    for name, count in counts.items():
        corrected = [(1 - beta) / (1 - beta ** int(count)) for beta in BETAS]
        wanted = -ADAMW.learning_rate * corrected[0] / corrected[1] ** 0.5
        torch.testing.assert_close(parameters[name], torch.full((1, 2), wanted))
