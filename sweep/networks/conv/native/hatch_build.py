"""Compiles the kernels while the wheel is built or installed; the wheel is pure Python where no compiler can."""

import importlib.util
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("sweep/networks/conv/native")


class KernelHook(BuildHookInterface[Any]):
    """Hatchling's hook of the wheel; the libraries lie beside their sources, also where it is editable."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles what is not there yet, for every kind of CPU that this machine may be of."""
        build = _module(Path(self.root) / FOLDER / "build.py")
        try:
            libraries = build.build(build.HERE, build.variants()) if build.variants() else []
        except (build.NotBuilt, OSError) as error:
            self.app.display_warning(f"without native kernels, which train narrow networks faster: {error}")
            return
        if libraries:
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
            build_data["force_include"] |= {str(path): str(FOLDER / path.name) for path in libraries}


def _module(file: Path) -> Any:
    """`build.py` by itself: `sweep` is not installed yet, or is another version."""
    spec = importlib.util.spec_from_file_location("_sweep_native_build", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
