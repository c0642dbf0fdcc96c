"""The environment that figures are drawn in: matplotlib as it comes, whatever settings this machine or user has.

A backend out of the environment that is not installed, or a `matplotlibrc` that nobody can read, ends the first import
of matplotlib; so that import happens here.
"""

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

SET: Final = {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull, "FREETYPE_PROPERTIES": ""}
"""What stands in the environment while matplotlib is imported: no display, no file of settings, letters as ever."""


def load_matplotlib() -> None:
    """Imports matplotlib without the settings of the user; does nothing where it is loaded already."""
    if "matplotlib" in sys.modules:
        return
    with _environment(), _elsewhere(), _silent():
        importlib.import_module("matplotlib.figure")


@contextlib.contextmanager
def default_style(settings: Any) -> Iterator[None]:
    """Matplotlib's default settings, then these by name, for as long as it lasts."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in SET}
    os.environ.update(SET)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _elsewhere() -> contextlib.AbstractContextManager[None]:
    """Another current folder where this one has a `matplotlibrc`, which would be read before all others."""
    return contextlib.chdir(Path(__file__).parent) if os.path.exists("matplotlibrc") else contextlib.nullcontext()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what matplotlib says of a folder of settings that it cannot write to: it takes a temporary one."""
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
