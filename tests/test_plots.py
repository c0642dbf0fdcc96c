"""What `analysis.plots` promises: a figure for every shape of sweep, saying what it shows and what it leaves out."""

import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis import effects, plots, threshold

PNG = b"\x89PNG\r\n\x1a\n"


def table(pairs: int = 6, **axes: list[Any]) -> pd.DataFrame:
    """Rows of a grid whose effect falls with width and vanishes under batch norm; seeds add a little spread."""
    rows = []
    for values in itertools.product(*axes.values()):
        settings = dict(zip(axes, values, strict=True))
        effect = 0.0 if settings.get("batch_norm") else 0.08 / settings.get("width", 4) ** 1.2
        for seed, bias in itertools.product(range(pairs), (True, False)):
            accuracy = 0.8 + 0.002 * (seed % 3) + bias * (effect + 0.001 * (seed % 2))
            rows.append({**settings, "bias": bias, "seed": seed, "test_accuracy": accuracy})
    return pd.DataFrame(rows)


def texts(rows: pd.DataFrame, folder: Path, margin: float = 0.5, name: str = "study") -> list[str]:
    """All texts of the figure, in the order drawn; matplotlib leaves them as comments beside their outlines."""
    cells = effects.cells(rows, margin, 0.95)
    brackets = threshold.thresholds(cells, margin, 0.95)
    stem = folder / "effect_by_width"
    path = plots.effect_by_width(cells, brackets, margin=margin, confidence=0.95, name=name, out_stem=stem)
    assert path == folder / "effect_by_width.png"
    assert path.read_bytes().startswith(PNG)
    assert sorted(one.name for one in folder.iterdir()) == ["effect_by_width.png", "effect_by_width.svg"]
    return re.findall(r"<!-- (.+?) -->", stem.with_suffix(".svg").read_text(encoding="utf-8"), re.DOTALL)


def test_the_figure_names_its_axis_lines_margin_pairs_and_confidence(tmp_path: Path) -> None:
    said = texts(table(width=[1, 4, 64], depth=[2, 4], batch_norm=[False, True]), tmp_path)
    assert {"1", "4", "64"} <= set(said)
    assert not {"2", "8", "16", "32"} & set(said)
    for line in ("without batch norm, depth 2", "with batch norm, depth 4"):
        assert said.count(line) == 2  # in the legend and beside its bracket
    assert "study: effect of convolution bias against width" in said
    assert "margin ±0.5 points" in said
    assert any("n = 6 pairs a cell" in one and "95 % intervals" in one for one in said)


def test_where_width_does_not_vary_the_effect_stands_against_depth(tmp_path: Path) -> None:
    said = texts(table(depth=[1, 3, 5], batch_norm=[False, True]), tmp_path)
    assert "study: effect of convolution bias against depth" in said
    assert {"1", "3", "5", "depth (convolutions)"} <= set(said)


def test_where_neither_varies_every_cell_is_a_point_with_its_settings(tmp_path: Path) -> None:
    said = texts(table(steps=[100, 900]), tmp_path)
    assert {"steps 100", "steps 900"} <= set(said)
    assert not any("Bars" in one for one in said)


def test_a_single_cell_is_drawn(tmp_path: Path) -> None:
    assert "all pairs" in texts(table(), tmp_path)


def test_other_settings_have_panels_and_those_left_out_are_counted(tmp_path: Path) -> None:
    said = texts(table(width=[1, 4], steps=list(range(100, 900, 100))), tmp_path)
    assert [one for one in said if one.startswith("steps")] == [f"steps {n}00" for n in range(1, 7)]
    assert "Drawn are the first 6 of 8 panels." in said


def test_many_depths_move_to_panels_of_their_own(tmp_path: Path) -> None:
    said = texts(table(width=[1, 4], depth=[1, 2, 3, 4], batch_norm=[False, True]), tmp_path)
    assert {"depth 1", "depth 4", "without batch norm"} <= set(said)


def test_cells_without_interval_or_pair_leave_gaps_and_are_counted(tmp_path: Path) -> None:
    rows = table(width=[1, 2, 4, 8])
    rows = rows[~((rows["width"] == 2) & (rows["seed"] > 0)) & ~((rows["width"] == 4) & rows["bias"])]
    said = texts(rows, tmp_path)
    assert "4" in said
    assert any("n = 0 to 6 pairs" in one for one in said)
    assert "Without a pair: 1 cells." in said


def test_levels_too_close_for_their_labels_leave_some_out(tmp_path: Path) -> None:
    said = texts(table(width=list(range(1, 65))), tmp_path)
    labels = [int(one) for one in said if one.isdigit() and one != "0"]
    assert labels[:3] == [1, 2, 3]
    assert 8 < len(labels) < 20


def test_effects_far_beyond_the_margin_and_inside_it_are_both_readable(tmp_path: Path) -> None:
    said = texts(table(width=[1, 512]), tmp_path)
    assert {"+0.5", "0", "-0.5", "+5"} <= set(said)


@pytest.mark.parametrize("name", ["a$b$_c", "x" * 200])
def test_any_name_can_stand_in_the_title(tmp_path: Path, name: str) -> None:
    assert any(name[:4] in one for one in texts(table(width=[1, 2]), tmp_path, margin=0, name=name))


def test_the_same_cells_draw_the_same_picture(tmp_path: Path) -> None:
    pictures = []
    for part in ("a", "b"):
        folder = tmp_path / part
        folder.mkdir()
        texts(table(width=[1, 2]), folder)
        pictures.append([(folder / f"effect_by_width.{kind}").read_bytes() for kind in ("png", "svg")])
    assert pictures[0] == pictures[1]


def test_the_analysis_needs_neither_torch_nor_ray_nor_a_display() -> None:
    code = "import sys, analysis; print(*({'torch', 'ray', 'matplotlib.pyplot'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
