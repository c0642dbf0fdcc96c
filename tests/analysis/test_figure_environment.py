"""What `analysis.figures.environment` promises: the same bytes, whatever settings this machine and user have."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis import effects, figures
from analysis.study import analyse

pytestmark = pytest.mark.integration

ROWS = pd.DataFrame(
    [
        {"width": width, "bias": bias, "seed": seed, "test_accuracy": 0.8 + 0.002 * (seed % 3) + 0.08 * bias / width}
        for width in (1, 4)
        for seed in range(6)
        for bias in (True, False)
    ]
)
SETTINGS = {
    "text.usetex": True, "font.size": 20.0, "figure.dpi": 50.0, "savefig.bbox": "tight", "savefig.facecolor": "black",
    "axes.grid": True, "svg.fonttype": "none", "svg.hashsalt": "mine", "path.simplify": False, "axes.formatter.limits":
    [0, 0], "font.family": "serif", "axes.prop_cycle": "cycler('color', ['r'])",
}  # fmt: skip
PROGRAM = """
import sys
from pathlib import Path
from test_figure_environment import draw
draw(Path(sys.argv[1]))
import matplotlib
print(matplotlib.get_backend(auto_select=False))
"""


def draw(folder: Path) -> dict[str, bytes]:
    """Two of the figures, by file."""
    folder.mkdir()
    figures.draw(analyse(ROWS, name="a$b"), effects.pairs(ROWS), None, folder, ["effect_by_width", "variance"])
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return draw(tmp_path_factory.mktemp("usual") / "out")


def drawn_elsewhere(tmp_path: Path, **environment: str) -> dict[str, bytes]:
    """The same figures, made by a new process in `tmp_path` with this in its environment; it says nothing."""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "out"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": paths} | environment,
    )  # fmt: skip
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "agg\n")
    return {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}


def settings(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [f"{name}: {str(value).strip('[]')}" for name, value in SETTINGS.items()]
    (folder / "matplotlibrc").write_text("\n".join(lines))
    return folder / "matplotlibrc"


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "qtagg", "no such thing"])
def test_the_backend_of_the_environment_is_not_used(tmp_path: Path, usual: dict[str, bytes], backend: str) -> None:
    assert drawn_elsewhere(tmp_path, MPLBACKEND=backend) == usual


@pytest.mark.parametrize("named", ["the file", "its folder", "the configuration", "this folder"])
def test_a_file_of_settings_changes_no_picture(tmp_path: Path, usual: dict[str, bytes], named: str) -> None:
    file = settings(tmp_path if named == "this folder" else tmp_path / "settings")
    given = {"the file": {"MATPLOTLIBRC": str(file)}, "its folder": {"MATPLOTLIBRC": str(file.parent)}}
    given["the configuration"] = {"MPLCONFIGDIR": str(file.parent)}
    assert drawn_elsewhere(tmp_path, **given.get(named, {})) == usual


def test_a_file_of_settings_that_is_no_text_ends_nothing(tmp_path: Path, usual: dict[str, bytes]) -> None:
    (tmp_path / "matplotlibrc").write_bytes(b"\xff\xfe\x00backend: nothing")
    assert drawn_elsewhere(tmp_path) == usual


def test_a_folder_of_settings_that_cannot_be_written_is_not_needed(tmp_path: Path, usual: dict[str, bytes]) -> None:
    (tmp_path / "file").write_text("")
    assert drawn_elsewhere(tmp_path, MPLCONFIGDIR=str(tmp_path / "file" / "below")) == usual


def test_what_draws_letters_is_not_told_how(tmp_path: Path, usual: dict[str, bytes]) -> None:
    assert drawn_elsewhere(tmp_path, FREETYPE_PROPERTIES="truetype:interpreter-version=35") == usual


def test_settings_that_a_program_has_made_are_left_aside_and_left_alone(
    tmp_path: Path, usual: dict[str, bytes]
) -> None:
    import matplotlib  # here alone: a process that draws elsewhere imports this module too

    with matplotlib.rc_context(SETTINGS):
        before = dict(matplotlib.rcParams)
        assert draw(tmp_path / "out") == usual
        assert dict(matplotlib.rcParams) == before


def test_the_environment_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MPLBACKEND", "qtagg")
    monkeypatch.delenv("MATPLOTLIBRC", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "matplotlibrc").write_text("")
    program = (
        "import os, analysis.figures; from pathlib import Path\n"
        "print(os.environ['MPLBACKEND'], os.environ.get('MATPLOTLIBRC'), Path('matplotlibrc').exists())"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "qtagg None True\n"
