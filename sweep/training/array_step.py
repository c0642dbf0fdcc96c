"""One training step of an array on its device: every network trains on its next batch."""

import torch

from sweep.training.batch_feed import ORDER_BLOCK
from sweep.training.device_batches import DeviceBatches
from sweep.training.fused_model import FusedModel, cross_entropies
from sweep.training.optimizers import Optimizer


class Losses:
    """Sums of every network's training losses on the device, `[turns, networks]`, and whether all were `finite`."""

    def __init__(self, turns: int, networks: int, steps: int, device: str) -> None:
        self.loss_sum = torch.zeros(turns, networks, dtype=torch.float64, device=device)
        self.last_loss_sum = torch.zeros_like(self.loss_sum)
        self.finite = torch.ones(turns, networks, dtype=torch.bool, device=device)
        # The training loss in a row is that of the last tenth of all steps, however many points the curve has.
        tenth = -(-steps // 10)
        self.last_tenth = (steps - 1) // tenth * tenth
        self.last_steps = steps - self.last_tenth

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """All that training changes, by name."""
        return {"loss_sum": self.loss_sum, "last_loss_sum": self.last_loss_sum, "finite": self.finite}

    def add(self, turn: int, losses: torch.Tensor, done: torch.Tensor) -> None:
        """Adds a turn's losses `[networks]` after `done` steps `[1]`."""
        self.loss_sum[turn] += losses
        self.last_loss_sum[turn] += torch.where(done >= self.last_tenth, losses, 0)

    def flush(self) -> torch.Tensor:
        """The sums `[turns, networks]` since the last call; they restart at zero."""
        self.finite &= self.loss_sum.isfinite()
        sums = self.loss_sum.clone()
        self.loss_sum.zero_()
        return sums

    def last_mean(self) -> torch.Tensor:
        """Mean of the last tenth of all steps `[turns, networks]`."""
        return self.last_loss_sum / self.last_steps


class ArrayStep:
    """Takes steps between which nothing but the content of tensors changes, so that a graph can replay them.

    `at` `[1]` is the number of steps taken, counted on the device.
    """

    def __init__(self, model: FusedModel, batches: DeviceBatches, optimizer: Optimizer, losses: Losses) -> None:
        self.model, self.batches, self.optimizer, self.losses = model, batches, optimizer, losses
        self.at = torch.zeros(1, dtype=torch.int64, device=losses.loss_sum.device)

    def take(self) -> None:
        """Trains every network on its next batch, in every turn.

        The loss is the sum over networks of each one's mean: none scales another's learning rate.
        """
        place = self.at.remainder(ORDER_BLOCK)
        pictures, labels = self.batches.batch(place)
        dropouts = self.batches.masks.at(place)
        own = self.at + 1  # updates of a parameter that only one of two turns trains
        rates = self.optimizer.rates_after(self.at)
        steps = self.optimizer.steps_in_backward([layer.weight for layer in self.model.shape.linears], rates)
        for turn in range(self.model.turns):
            logits = self.model.logits(turn, pictures, training=True, dropouts=dropouts, steps=steps)
            losses = cross_entropies(logits, labels).mean(1)
            learning = self.model.learning(turn, steps)
            gradients = dict(zip(learning, torch.autograd.grad(losses.sum(), list(learning.values())), strict=True))
            with torch.no_grad():
                count = self.at * self.model.turns + turn + 1
                counts = {name: own if name in self.model.absent else count for name in gradients}
                self.optimizer.update(self.model.parameters, gradients, rates, counts)
                self.losses.add(turn, losses, self.at)
        self.at += 1
