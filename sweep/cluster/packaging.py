"""What a node without this project needs to train for us: our own packages and their requirements."""

import contextlib
import importlib.metadata
import importlib.util
import site
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from sweep.common.errors import InputError
from sweep.common.progress import say
from sweep.networks.conv.native import build

EXCLUDED: Final = ["**/__pycache__", "**/results", "**/.native-*"]
"""Files of our packages that are not sent."""


def packages() -> list[str]:
    """The folders of our packages, as they run here."""
    specs = (importlib.util.find_spec(name) for name in ("sweep", "analysis"))
    return [str(Path(str(spec and spec.origin)).parent) for spec in specs]


def checkout() -> str | None:
    """The folder that this project is run from; None where it is installed."""
    root = str(Path(__file__).parents[2])
    return None if root in [*site.getsitepackages(), site.getusersitepackages()] else root


def requirements() -> dict[str, Any]:
    """The project's requirements: specifiers by distribution."""
    from packaging.requirements import Requirement

    try:
        lines = importlib.metadata.requires("sweep") or []
    except importlib.metadata.PackageNotFoundError:
        raise InputError("--install: sweep itself is not installed here, so its requirements are unknown") from None
    wanted = map(Requirement, lines)
    return {each.name: each.specifier for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})}


def lacking(there: Iterable[Mapping[str, str | None]], wanted: Mapping[str, Any]) -> list[str]:
    """What to install: each distribution that some node lacks in a suitable version, pinned to our version.

    Ray is not replaced: a cluster with another version is rejected elsewhere.
    """
    nodes = list(there)
    names = [
        name
        for name, specifier in wanted.items()
        if name != "ray" and any(_lacks(node.get(name), specifier) for node in nodes)
    ]
    # An index does not have local versions such as 2.9+cpu.
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names]


def _lacks(version: str | None, specifier: Any) -> bool:
    return version is None or not specifier.contains(version, prereleases=True)


def runtime_env(pip: list[str], console: Console) -> dict[str, Any]:
    """Ray's runtime environment with our packages, and these distributions from an index, if any.

    Nodes may be of another kind of CPU than this machine, and have no compiler: all kernels travel, if we have one.
    """
    _compile(console)
    carried: dict[str, Any] = {"py_modules": packages(), "excludes": EXCLUDED}
    return carried | ({"pip": pip} if pip else {})


def _compile(console: Console) -> None:
    libraries = [build.HERE / build.file_name(variant) for variant in build.variants()]
    with contextlib.suppress(build.NotBuilt, OSError):
        if not all(map(build.is_whole, libraries)) and build.compiler():
            say(console, "compiling the native kernels, which are sent along")
            build.build(build.HERE, build.variants())
