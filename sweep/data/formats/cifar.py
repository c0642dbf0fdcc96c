"""CIFAR's pickles, read by an unpickler that accepts only plain data and arrays."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweep.common.errors import InputError
from sweep.data.formats.archives import tar_members
from sweep.data.formats.guards import reading, with_own_test
from sweep.data.pool import Labels, Pictures, Pool
from sweep.space.catalogue import Unpacked


def cifar_archive(path: Path, inside: Unpacked) -> Pool:
    """CIFAR-10 or -100 from its .tar.gz."""
    wanted = {f"{inside.folder}/{name}": name for name, _ in inside.files}
    found = {wanted[str(name)]: content() for name, content in tar_members(path) if str(name) in wanted}
    missing = sorted(set(wanted.values()) - found.keys())
    if missing:
        raise InputError(f"{path}: holds no {inside.folder}/{missing[0]}")
    return _cifar({name: found[name] for name in wanted.values()}, path)


def cifar_folder(folder: Path, inside: Unpacked) -> Pool:
    """CIFAR-10 or -100 from the folder that its archive unpacks to."""
    return _cifar({name: (folder / name).read_bytes() for name, _ in inside.files}, folder)


def _cifar(contents: dict[str, bytes], where: object) -> Pool:
    """The pool from the contents of the files by name: training batches, then the test batch, then the class names."""
    *train, test, about = contents
    meta = unpickled(contents[about], f"{where}, {about}")
    names = meta.get("fine_label_names", meta.get("label_names"))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where}, {about}: names no classes")
    parts = []
    for batches in (train, [test]):
        found = [_cifar_batch(contents[name], f"{where}, {name}") for name in batches]
        parts.append((np.concatenate([each[0] for each in found]), np.concatenate([each[1] for each in found])))
    return with_own_test(parts[0], parts[1], tuple(names), where)


def _cifar_batch(content: bytes, where: object) -> tuple[Pictures, Labels]:
    batch = unpickled(content, where)
    pixels, labels = batch.get("data"), batch.get("fine_labels", batch.get("labels"))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3072:
        raise InputError(f"{where}: data is not an array [n, 3072] of bytes")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 1000 for label in labels):
        raise InputError(f"{where}: labels is not a list of numbers from 0")
    if len(labels) != len(pixels):
        raise InputError(f"{where}: {len(pixels):,} pictures and {len(labels):,} labels")
    return pixels.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)


def unpickled(content: bytes, where: object) -> dict[str, Any]:
    """The mapping in a pickle of numbers, text, lists and NumPy arrays; anything else in it is refused, not run."""
    with reading(where, "a pickle of arrays"):
        found = _Arrays(io.BytesIO(content), encoding="latin1").load()
        if not isinstance(found, dict):
            raise ValueError("it holds no mapping")
        return found


class _Arrays(pickle.Unpickler):
    """Allows only the names that a pickled NumPy array refers to."""

    def find_class(self, module: str, name: str) -> Any:
        modern = module.replace("numpy.core", "numpy._core")
        match modern, name:
            case "numpy", "ndarray":
                return np.ndarray
            case "numpy", "dtype":
                return _plain_dtype
            case "numpy._core.multiarray", "_reconstruct":
                return _empty_array
            case "numpy._core.numeric", "_frombuffer":
                return _from_buffer
            case "_codecs", "encode":
                return _encoded
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _plain_dtype(name: Any, *_: Any) -> np.dtype[Any]:
    if name not in ("u1", "i1", "i2", "i4", "i8", "u2", "u4", "u8", "f4", "f8"):
        raise pickle.UnpicklingError(f"it holds an array of {name!r}")
    dtype: np.dtype[Any] = np.dtype(name)
    return dtype


def _empty_array(kind: Any, shape: Any, code: Any) -> NDArray[Any]:
    if kind is not np.ndarray or tuple(shape) != (0,):
        raise pickle.UnpicklingError("an array in it is pickled in an unusual way")
    return np.ndarray((0,), np.int8)


def _from_buffer(buffer: Any, dtype: np.dtype[Any], shape: Any, order: Any) -> NDArray[Any]:
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it holds bytes as {encoding!r}")
    return text.encode("latin1")
