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


def environment(folder: Path) -> dict[str, str]:
    """Variables for a launch and its workers, which Python starts with a module that lies in `folder` from then on."""
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}
