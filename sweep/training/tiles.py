"""Tensors of networks in tiles, which a checkpoint holds network by network."""

import torch

from sweep.networks.conv.native.engine import packed, unpacked


class Tiles:
    """A tensor `[tiles, numbers, lanes]`, which a checkpoint holds as `[networks, numbers]`."""

    def __init__(self, tensor: torch.Tensor, networks: int) -> None:
        self.tensor, self.networks = tensor, networks

    def detach(self) -> torch.Tensor:
        """What a checkpoint holds."""
        return unpacked(self.tensor, self.networks).contiguous()

    def copy_(self, numbers: torch.Tensor) -> None:
        """Takes what a checkpoint held."""
        self.tensor.copy_(packed(numbers, self.tensor.shape[2]))
