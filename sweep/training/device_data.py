"""A data set on the device that trains: its pictures, its split, and how runs scale them."""

import functools
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sweep.data.pool import Pool
from sweep.data.splits import Data
from sweep.space.runs import Run


@functools.lru_cache(maxsize=4)
def on_device(pool: Pool, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A pool's pictures `[n, channels, height, width]` and labels on a device.

    The last few pools stay there from one array to the next, whatever the splits. On a CPU the tensors share the pool's
    memory, which may be shared by all workers of a machine.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # and nobody writes to it
        arrays = (torch.from_numpy(np.ascontiguousarray(array)) for array in (pool.pictures, pool.labels))
        pictures, labels = (array.to(device) for array in arrays)
    return pictures, labels


class Scaling(NamedTuple):
    """Factor and offset `[networks, channels]` that turn a byte into each network's input."""

    factor: torch.Tensor
    offset: torch.Tensor


class DeviceData:
    """A data set on a device: pictures as uint8 `[n, channels, height, width]`, labels as int64, split and scaling."""

    def __init__(self, data: Data, device: str) -> None:
        self.pictures, self.labels = on_device(data.pool, device)
        self.split, self.device = data.split, device
        self.shape, self.classes, self.fingerprint = data.picture_shape, data.classes, data.fingerprint
        self._moments: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}

    @property
    def validation(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Validation pictures and labels."""
        return self.part(self.split.validation)

    @property
    def test(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Test pictures and labels."""
        return self.part(self.split.test)

    def part(self, places: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """A copy of the pictures and labels at some places of the pool."""
        chosen = torch.from_numpy(places).to(self.device)
        return self.pictures[chosen], self.labels[chosen]

    def moments(self, examples: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation `[channels]` of the first training pictures, in 0 … 1; exact: it counts bytes."""
        if examples not in self._moments:
            channels = self.part(self.split.train[:examples])[0].unbind(1)
            counts = torch.stack([torch.bincount(each.flatten(), minlength=256) for each in channels]).cpu().numpy()
            share, values = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
            mean = share @ values
            deviation = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
            # A channel that never varies is only centered.
            self._moments[examples] = mean, np.where(deviation > 0, deviation, 1)
        return self._moments[examples]

    def scaling(self, run: Run) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Factor and offset `[channels]` that turn a byte into the run's input."""
        ones = np.ones(self.shape[0])
        match run.input_scaling:
            case "unit":
                return ones / 255, 0 * ones
            case "centered":
                return ones / 255, -0.5 * ones
            case "standardized":
                mean, deviation = self.moments(run.train_examples or len(self.split.train))
                return 1 / (255 * deviation), -mean / deviation

    def scalings(self, networks: Sequence[Run], dtype: torch.dtype) -> Scaling:
        """The scaling of all networks, on the device."""
        factors, offsets = zip(*map(self.scaling, networks), strict=True)
        return Scaling(*(torch.tensor(np.stack(part), dtype=dtype, device=self.device) for part in (factors, offsets)))


@functools.lru_cache(maxsize=4)
def device_data(data: Data, device: str) -> DeviceData:
    """`data` on a device, kept from one array to the next."""
    return DeviceData(data, device)
