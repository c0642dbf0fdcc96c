"""What `analysis.figures` promises: one for every axis that varies, saying what it shows and what it leaves out."""

import itertools
import re
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis import effects, figures
from analysis.figures import style
from analysis.study import analyse

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


def drawn(
    rows: pd.DataFrame, folder: Path, curves: pd.DataFrame | None = None, *, name: str = "study", margin: float = 0.5,
    names: Collection[str] = tuple(figures.CAPTIONS),
) -> list[str]:  # fmt: skip
    """The names of the figures made; each as a picture and as SVG, and nothing beside them."""
    verdict = analyse(rows, name=name, margin=margin)
    made = figures.draw(verdict, effects.pairs(rows), figures.band_table(curves, rows, verdict), folder, names)
    files = sorted(path.name for path in folder.iterdir() if path.suffix != ".json")
    assert files == sorted(f"{one}.{kind}" for one in made for kind in ("png", "svg"))
    assert all((folder / f"{one}.png").read_bytes().startswith(PNG) for one in made)
    return made


def said(path: Path) -> list[str]:
    """All texts of a figure, in the order drawn; matplotlib leaves them as comments beside their outlines."""
    return re.findall(r"<!-- (.+?) -->", path.read_text(encoding="utf-8"), re.DOTALL)


def texts(rows: pd.DataFrame, folder: Path, figure: str = "effect_by_width", **options: Any) -> list[str]:
    assert drawn(rows, folder, names=[figure], **options) == [figure]
    return said(folder / f"{figure}.svg")


def curves_of(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows with run ids, and a learning curve of three points for each."""
    rows = rows.assign(run_id=[f"run{n}" for n in range(len(rows))])
    points = [
        {"run_id": run, "step": step, "train_loss": 1.0, "validation_accuracy": accuracy * step / 30}
        for run, accuracy in zip(rows["run_id"], rows["test_accuracy"], strict=True)
        for step in (10, 20, 30)
    ]
    return rows, pd.DataFrame(points)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], pd.DataFrame, pd.DataFrame]:
    """All figures of a grid: their folder and names, and the rows and learning curves that they were drawn from."""
    folder = tmp_path_factory.mktemp("whole")
    rows, curves = curves_of(table(width=[1, 4], depth=[2, 4]))
    return folder, drawn(rows, folder, curves), rows, curves


def test_a_grid_has_all_eight_figures(whole: tuple[Path, list[str], pd.DataFrame, pd.DataFrame]) -> None:
    folder, made, *_ = whole
    names = ["effect_by_width", "effect_by_depth", "heat_map", "accuracies", "pairs", "curves", "variance", "margins"]
    assert made == names
    for name in names:
        caption = " ".join(said(folder / f"{name}.svg"))
        assert "n = 6" in caption, name
        assert "95 %" in caption or "without an interval" in caption, name


def test_the_same_rows_draw_the_same_pictures(
    whole: tuple[Path, list[str], pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    folder, made, rows, curves = whole
    assert drawn(rows, tmp_path, curves) == made
    for path in folder.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_each_format_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, drawn_by = Figure.draw, []

    def counted(figure: Figure, renderer: Any) -> None:
        drawn_by.append(type(renderer).__name__)
        draw(figure, renderer)

    monkeypatch.setattr(Figure, "draw", counted)
    figure = style.blank(4, 3, "title", ["caption"])
    figure.subplots().set_ylabel("a label that takes room")
    style.save(figure, tmp_path / "figure")
    assert drawn_by == ["MixedModeRenderer", "RendererAgg"]
    assert {path.name for path in tmp_path.iterdir()} == {"figure.png", "figure.svg"}


def test_what_the_axes_do_not_vary_is_not_drawn_and_an_earlier_figure_of_it_is_gone(
    whole: tuple[Path, list[str], pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "verdict.json").write_text("{}")  # as a report leaves it
    made = drawn(table(depth=[2, 4]), tmp_path)
    assert "effect_by_depth" in made
    assert not {"effect_by_width", "heat_map", "effects", "curves"} & set(made)
    assert {"effects", "accuracies", "pairs"} <= set(drawn(table(steps=[100, 900]), tmp_path))


def test_a_picture_that_no_report_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "curves.png").write_text("mine")
    verdict = analyse(table(depth=[2, 4]), name="study")
    figures.draw(verdict, effects.pairs(table(depth=[2, 4])), None, tmp_path, ["curves"])
    assert (tmp_path / "curves.png").read_text() == "mine"


def test_the_figure_names_its_axis_lines_margin_pairs_and_confidence(tmp_path: Path) -> None:
    found = texts(table(width=[1, 4, 64], depth=[2, 4], batch_norm=[False, True]), tmp_path)
    assert {"1", "4", "64"} <= set(found)
    assert not {"2", "8", "16", "32"} & set(found)
    for line in ("without batch norm, depth 2", "with batch norm, depth 4"):
        assert found.count(line) == 2  # in the legend and beside its bracket
    assert "study: effect of convolution bias against width" in found
    assert "margin ±0.5 points" in found
    assert any("n = 6 pairs a cell" in one and "95 % intervals" in one for one in found)


def test_where_width_does_not_vary_the_effect_stands_against_depth(tmp_path: Path) -> None:
    found = texts(table(depth=[1, 3, 5], batch_norm=[False, True]), tmp_path, "effect_by_depth")
    assert "study: effect of convolution bias against depth" in found
    assert {"1", "3", "5", "depth (convolutions)"} <= set(found)


def test_where_neither_varies_every_cell_is_a_point_with_its_settings(tmp_path: Path) -> None:
    found = texts(table(steps=[100, 900]), tmp_path, "effects")
    assert {"steps 100", "steps 900"} <= set(found)
    assert not any("Bars" in one for one in found)


def test_many_cells_have_their_levels_below_and_below_all_which_settings_these_are(tmp_path: Path) -> None:
    rows = table(activation=["relu", "tanh"], steps=[100, 300, 900], batch_norm=[False, True])
    found = texts(rows, tmp_path, "effects")
    assert {"without batch norm, relu, 100", "with batch norm, tanh, 900"} <= {" ".join(one.split()) for one in found}
    assert "batch norm, activation, steps" in found


def test_a_single_cell_is_drawn(tmp_path: Path) -> None:
    assert "all pairs" in texts(table(), tmp_path, "effects")


def test_other_settings_have_panels_and_those_left_out_are_counted(tmp_path: Path) -> None:
    found = texts(table(width=[1, 4], steps=list(range(100, 2100, 100))), tmp_path)
    panels = [one for one in found if one.startswith("Steps")]
    assert len(panels) == 12 and (panels[0], panels[-1]) == ("Steps 100", "Steps 2000")
    assert any("Drawn are 12 of 20 panels." in one for one in found)


def test_many_depths_move_to_panels_of_their_own(tmp_path: Path) -> None:
    found = texts(table(width=[1, 4], depth=[1, 2, 3, 4], batch_norm=[False, True]), tmp_path)
    assert {"Depth 1", "Depth 4", "without batch norm"} <= set(found)


def test_cells_without_interval_or_pair_leave_gaps_and_are_counted(tmp_path: Path) -> None:
    rows = table(width=[1, 2, 4, 8])
    rows = rows[~((rows["width"] == 2) & (rows["seed"] > 0)) & ~((rows["width"] == 4) & rows["bias"])]
    found = texts(rows, tmp_path)
    assert "4" in found
    assert any("n = 0 to 6 pairs" in one for one in found)
    assert any("Without a pair: 1 cells." in one for one in found)


def test_levels_too_close_for_their_labels_leave_some_out(tmp_path: Path) -> None:
    found = texts(table(width=list(range(1, 65))), tmp_path)
    labels = [int(one) for one in found if one.isdigit() and one != "0"]
    assert labels[:3] == [1, 2, 3]
    assert 8 < len(labels) < 20


def test_effects_far_beyond_the_margin_and_inside_it_are_both_readable(tmp_path: Path) -> None:
    found = texts(table(width=[1, 512]), tmp_path)
    assert {"+0.5", "0", "-0.5", "+5"} <= set(found)


@pytest.mark.parametrize("name", ["a$b$_c", "x" * 200])
def test_any_name_can_stand_in_the_title(tmp_path: Path, name: str) -> None:
    assert any(name[:4] in one for one in texts(table(width=[1, 2]), tmp_path, margin=0, name=name))


def test_a_collapsed_run_stays_inside_the_picture_of_pairs_and_is_counted(tmp_path: Path) -> None:
    rows = table(width=[1, 2]).assign(status="ok")
    rows.loc[0, ["test_accuracy", "status"]] = 0.1, "diverged"
    found = texts(rows, tmp_path, "pairs")
    assert any("pairs with a diverged run (1)" in one for one in found)
    assert {"-50", "a run diverged"} <= set(found)


def test_the_heat_map_marks_verdicts_numbers_and_holes(tmp_path: Path) -> None:
    rows = table(width=[1, 4, 64], depth=[2, 4], batch_norm=[False, True])
    rows = rows[~((rows["width"] == 64) & (rows["depth"] == 4))]
    found = texts(rows, tmp_path, "heat_map")
    assert {"Without batch norm", "With batch norm", "not in the sweep", "matters: bias helps", "equivalent"} <= set(
        found
    )
    assert "+8.05" in found and found.count("+0.05") == 5


def test_learning_curves_are_drawn_of_the_cells_that_have_them(tmp_path: Path) -> None:
    rows, curves = curves_of(table(width=[1, 2, 4]))
    kept = set(rows.loc[rows["width"] < 4, "run_id"])
    found = texts(rows, tmp_path, "curves", curves=curves[curves["run_id"].isin(kept)])
    assert {"Width 1", "Width 2", "with bias", "without bias"} <= set(found)
    assert "Width 4" not in found and any("Drawn are 2 of 3 cells." in one for one in found)


def test_many_dots_are_a_picture_inside_the_svg(tmp_path: Path) -> None:
    drawn(table(pairs=2600, width=[1, 2]), tmp_path, names=["pairs"])
    svg = (tmp_path / "pairs.svg").read_text(encoding="utf-8")
    assert "<image" in svg and len(svg) < 1_000_000


@pytest.mark.integration
def test_the_analysis_needs_neither_torch_nor_ray_nor_a_display() -> None:
    code = "import sys, analysis; print(*({'torch', 'ray', 'matplotlib.pyplot'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
