"""All pictures of a data set with their labels, before they are split."""

import dataclasses
import functools
import hashlib

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.uint8]
"""`[n, channels, height, width]`."""

Labels = NDArray[np.int64]
"""`[n]`, from 0 on."""


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """All pictures of a data set, unsplit; the last `own_test` of them are the test set that it comes with.

    `notes` tell the user how they were read.
    """

    pictures: Pictures
    labels: Labels
    class_names: tuple[str, ...]
    own_test: int = 0
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identifies all pixels and labels, and where the test set begins."""
        return fingerprint(self.pictures, self.labels, self.own_test)


def fingerprint(pictures: Pictures, labels: Labels, own_test: int = 0) -> str:
    """16 hexadecimal digits of SHA-256 over the shape, the pixels, the labels and the number of test pictures."""
    digest = hashlib.sha256(repr(pictures.shape).encode())
    digest.update(np.ascontiguousarray(pictures).data)
    digest.update(labels.astype("<i8").tobytes())
    if own_test:
        digest.update(f"test {own_test}".encode())
    return digest.hexdigest()[:16]
