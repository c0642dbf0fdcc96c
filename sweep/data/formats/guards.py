"""Checks shared by all readers: any fault of a file is one InputError, and what is read can be trained on."""

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from typing import Final

import numpy as np

from sweep.common.errors import InputError
from sweep.data.pool import Labels, Pictures, Pool

MAX_BYTES: Final = 4 * 2**30
"""Largest size of an unpacked archive, and of the pixels of a data set."""


@contextlib.contextmanager
def reading(where: object, what: str) -> Iterator[None]:
    """Turns whatever a decoder of untrusted bytes raises into one InputError: `where` is damaged or is not `what`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # oddities in a file that is readable nonetheless
            yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{where}: there is no such file") from None
    except PermissionError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror})") from error
    except Exception as error:  # decoders raise nearly anything
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{where}: is damaged, or is not {what} ({words})") from error


def with_own_test(
    train: tuple[Pictures, Labels], test: tuple[Pictures, Labels], names: tuple[str, ...], where: object
) -> Pool:
    """One pool from a training and a test set."""
    if train[0].shape[1:] != test[0].shape[1:]:
        raise InputError(
            f"{where}: training pictures are {list(train[0].shape[1:])}, test pictures {list(test[0].shape[1:])}"
        )
    pictures, labels = np.concatenate([train[0], test[0]]), np.concatenate([train[1], test[1]])
    return checked(Pool(pictures, labels, names, own_test=len(test[1])), where)


def checked(pool: Pool, where: object) -> Pool:
    """The pool, if it can be trained on: at least two classes, none empty, and pictures of at least one pixel."""
    if not pool.pictures.size:
        raise InputError(f"{where}: holds no picture")
    counts = np.bincount(pool.labels[pool.labels >= 0], minlength=len(pool.class_names))
    if pool.labels.min() < 0 or len(counts) > len(pool.class_names):
        span = f"0 to {len(pool.class_names) - 1}"
        raise InputError(f"{where}: labels from {pool.labels.min()} to {pool.labels.max()}; expected {span}")
    if len(counts) < 2:
        raise InputError(f"{where}: only one class ({pool.class_names[0]!r}); expected at least two")
    if not counts.all():
        missing = pool.class_names[int(np.argmin(counts))]
        raise InputError(f"{where}: no picture of class {missing!r}; expected labels 0, 1, 2 …, one per class")
    if pool.own_test and not 0 < pool.own_test < len(pool.labels):
        raise InputError(f"{where}: {pool.own_test:,} of {len(pool.labels):,} pictures are for testing")
    # Contiguous, so that workers can share them.
    return dataclasses.replace(pool, pictures=np.ascontiguousarray(pool.pictures))


def gibibytes() -> str:
    return f"{MAX_BYTES / 2**30:.0f} GiB"
