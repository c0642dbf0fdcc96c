"""Sources that stand for those of the native kernels, and are compiled in a moment."""

from pathlib import Path

from sweep.networks.conv.native import build

SOURCE = """
#include "tile.hpp"
extern "C" int sweep_lanes() { return LANES; }
extern "C" long sweep_scratch(void *) { return 0; }
"""


def write(folder: Path, comment: str = "") -> None:
    """Puts them where the kernels' sources are; another comment makes other sources of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in build.SOURCES:
        (folder / name).write_text(f"// {comment}\n" + SOURCE * (name == "network.cpp"))
