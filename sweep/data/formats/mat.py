"""SVHN's MATLAB files."""

from pathlib import Path

import numpy as np

from sweep.data.formats.guards import reading, with_own_test
from sweep.data.pool import Labels, Pictures, Pool


def svhn(train: Path, test: Path, class_names: tuple[str, ...]) -> Pool:
    """SVHN's cropped digits from its two .mat files; the label 10 stands for the digit 0."""
    return with_own_test(_mat(train), _mat(test), class_names, train)


def _mat(path: Path) -> tuple[Pictures, Labels]:
    import scipy.io

    with reading(path, "a MATLAB file with X and y"):
        found = scipy.io.loadmat(path, variable_names=["X", "y"])
        pixels, labels = np.asarray(found["X"]), np.asarray(found["y"]).reshape(-1)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[2] != 3:
            raise ValueError(f"X is {pixels.dtype} {list(pixels.shape)}, expected bytes [height, width, 3, n]")
        if labels.dtype.kind not in "iuf" or not np.isin(labels, np.arange(1, 11)).all():
            raise ValueError("y holds labels other than 1 to 10")
        if len(labels) != pixels.shape[3]:
            raise ValueError(f"{pixels.shape[3]:,} pictures and {len(labels):,} labels")
        return np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)), labels.astype(np.int64) % 10
