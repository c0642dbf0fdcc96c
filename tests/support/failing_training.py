"""A program in which training one width raises an error: started with `environment` among its variables."""

import os
from pathlib import Path

WIDTH = 4
"""The width that cannot be trained."""

_SITECUSTOMIZE = f"""
import importlib.util
import sys


class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "sweep.training.trainer":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            train = module.train

            def failing(runs, *arguments, **options):
                if runs[0].width == {WIDTH}:
                    raise RuntimeError("width {WIDTH} cannot be trained")
                return train(runs, *arguments, **options)

            module.train = failing

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
"""


def environment(folder: Path, path: str | None = os.environ.get("PYTHONPATH")) -> dict[str, str]:
    """Variables for a launch, or for a cluster: Python starts with a module in `folder`, and has `path` after it."""
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), path]))}
