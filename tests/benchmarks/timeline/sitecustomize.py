"""Notes when named functions and imports begin and end, in every Python process that inherits this environment.

Python imports this module as it starts where its folder is on PYTHONPATH. `TIMELINE` names the file that gets a line
for each span: process, name, begin and end (seconds since the epoch), tabs between them. `TIMELINE_CALLS` are the
functions, as `module:name` or `module:Class.name`, and `TIMELINE_IMPORTS` the modules, spaces between them.
"""

import functools
import importlib.abc
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


@contextmanager
def span(name: str) -> Iterator[None]:
    begin = time.time()
    try:
        yield
    finally:
        line = f"{os.getpid()}\t{name}\t{begin:.6f}\t{time.time():.6f}\n"
        file = os.open(os.environ["TIMELINE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, line.encode())
        os.close(file)


def noted(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(call)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        with span(name):
            return call(*arguments, **options)

    return wrapper


class Finder(importlib.abc.MetaPathFinder):
    """Has the modules of interest imported as they would be, and notes it."""

    def __init__(self, calls: list[str], imports: list[str]) -> None:
        self.imports, self.looking = set(imports), False
        self.calls: dict[str, list[str]] = {}
        for call in calls:
            module, _, name = call.partition(":")
            self.calls.setdefault(module, []).append(name)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if self.looking or not (name in self.calls or name in self.imports):
            return None
        self.looking = True
        try:
            found = importlib.util.find_spec(name)
        finally:
            self.looking = False
        if found is None or found.loader is None:
            return None
        execute = found.loader.exec_module

        def noting(module: ModuleType) -> None:
            if name in self.imports:
                with span(f"import {name}"):
                    execute(module)
            else:
                execute(module)
            for call in self.calls.get(name, ()):
                *owners, last = call.split(".")
                owner = functools.reduce(getattr, owners, module)
                setattr(owner, last, noted(getattr(owner, last), f"{name}:{call}"))

        found.loader.exec_module = noting  # type: ignore[method-assign]
        return found


if "TIMELINE" in os.environ:
    sys.meta_path.insert(0, Finder(os.environ["TIMELINE_CALLS"].split(), os.environ["TIMELINE_IMPORTS"].split()))
