"""What `analysis.report` promises: the files it leaves, and tables read or refused."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import report
from sweep.common.errors import InputError

OPTIONS: dict[str, Any] = {"name": "study", "declared": {"margin": 0.5, "confidence": 0.95}}


@pytest.fixture
def rows() -> pd.DataFrame:
    """Eight pairs at three widths, effects 4, 0.6 and 0 points with a spread of 0.3."""
    generator = np.random.default_rng(2)
    parts = []
    for width, effect in ((1, 4.0), (4, 0.6), (16, 0.0)):
        without = generator.uniform(0.7, 0.8, 8)
        with_bias = without + (effect + 0.3 * generator.standard_normal(8)) / 100
        for bias, accuracy in ((True, with_bias), (False, without)):
            part = {"width": width, "seed": range(8), "bias": bias, "test_accuracy": accuracy, "status": "ok"}
            parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def test_writing_leaves_files_whose_verdict_is_the_one_returned(rows: pd.DataFrame, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report"
    verdict = report.write(rows, out, **OPTIONS)
    figures = [f"{name}.{kind}" for name in ("effect_by_width", "accuracies", "pairs", "variance", "margins")
               for kind in ("png", "svg")]  # fmt: skip
    texts = ["effects.parquet", "report.html", "report.md", "verdict.json"]
    assert sorted(path.name for path in out.iterdir()) == sorted([*figures, *texts])
    assert json.loads((out / "verdict.json").read_text(encoding="utf-8")) == verdict
    pairs = pd.read_parquet(out / "effects.parquet")
    assert len(pairs) == verdict["pairs"] == 24
    assert pairs.groupby("width")["effect"].mean().tolist() == pytest.approx(
        [cell["effect"] for cell in verdict["cells"]]
    )


def test_writing_again_replaces_the_report(rows: pd.DataFrame, tmp_path: Path) -> None:
    report.write(rows, tmp_path, **OPTIONS)
    before = len(list(tmp_path.iterdir()))
    report.write(rows[rows["width"] < 16], tmp_path, **OPTIONS)
    assert len(json.loads((tmp_path / "verdict.json").read_text(encoding="utf-8"))["cells"]) == 2
    assert len(list(tmp_path.iterdir())) == before


def test_a_report_that_cannot_be_made_leaves_no_file(rows: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        report.write(rows[rows["bias"]], tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out").exists()
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="taken"):
        report.write(rows, tmp_path / "taken", **OPTIONS)


def test_parts_that_fail_are_told_when_the_others_are_written(
    rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("analysis.page.render", fails)
    monkeypatch.setattr("analysis.figures.dots.draw", fails)
    with pytest.raises(report.PartlyWritten, match=r"^pairs, report.html: MemoryError$") as caught:
        report.write(rows, tmp_path, **OPTIONS)
    assert caught.value.failed == {"pairs": "MemoryError", "report.html": "MemoryError"}
    assert json.loads((tmp_path / "verdict.json").read_text(encoding="utf-8")) == caught.value.verdict
    assert {path.stem for path in tmp_path.iterdir()} == {*caught.value.written, "effects", "report", "verdict"} - {
        *("effects.parquet", "report.md", "verdict.json")
    }


def test_the_report_answers_first_and_says_what_the_answer_rests_on(rows: pd.DataFrame) -> None:
    text = report.markdown(report.analyse(rows.iloc[1:], name="study", missing_runs=3))
    lines = text.splitlines()
    assert lines[2].startswith("**Incomplete: 3 runs of this sweep have no row yet")
    first = lines[4]
    assert first.startswith("- Bias matters (helps) up to width 1 and is equivalent from width 16 on")
    assert "0.5 percentage points (default, not declared); confidence: 95 % (default, not declared)." in text
    assert "one fixed split" in text
    assert "1 runs have no partner" in text
    assert "up to 38 %" in text  # three of the eight pairs of the equivalent cell
    assert len(re.findall(r"^\| (1|4|16) \|", text, re.MULTILINE)) == 3
    assert "not declared" not in report.markdown(report.analyse(rows, **OPTIONS))
    assert "Incomplete" not in report.markdown(report.analyse(rows, **OPTIONS))
    assert "nothing can be equivalent" in report.markdown(report.analyse(rows, **OPTIONS, margin=0.0))


def test_a_margin_given_for_the_report_is_told_from_the_declared_one(rows: pd.DataFrame) -> None:
    verdict = report.analyse(rows, **OPTIONS, margin=2)
    assert (verdict["margin"], verdict["margin_declared"], verdict["margin_given"]) == (2, 0.5, True)
    assert (verdict["confidence"], verdict["confidence_declared"], verdict["confidence_given"]) == (0.95, 0.95, False)
    assert "2 percentage points (given for this report; declared was 0.5); confidence: 95 %." in report.markdown(
        verdict
    )
    undeclared = report.markdown(report.analyse(rows, name="study", confidence=0.9))
    assert "confidence: 90 % (given for this report; nothing was declared)" in undeclared


def test_without_an_ordered_axis_the_report_answers_cell_by_cell(rows: pd.DataFrame) -> None:
    text = report.markdown(report.analyse(rows[rows["width"] == 1], **OPTIONS))
    assert re.search(r"^- Bias helps by more than the margin \(\+\d\.\d\d points, .* 8 pairs\)", text, re.MULTILINE)


@pytest.mark.parametrize("written", ["bool", "text", "digits"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_read_back_gives_the_same_verdict(rows: pd.DataFrame, tmp_path: Path, kind: str, written: str) -> None:
    spelled = {"bool": rows["bias"], "text": rows["bias"].map({True: "True", False: "false"})}
    table = rows.assign(bias=spelled.get(written, rows["bias"].astype(int)))
    path = tmp_path / f"table.{kind}"
    if kind == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    assert report.analyse(report.load_table(path), **OPTIONS) == report.analyse(rows, **OPTIONS)


def test_columns_that_vary_but_are_no_setting_are_named_as_ignored(rows: pd.DataFrame) -> None:
    rows = rows.assign(operator=["a", "b"] * 24, place="here", train_seconds=range(48))
    verdict = report.analyse(rows, **OPTIONS, ignore=["operator"])
    assert verdict["ignored_columns"] == ["operator"]
    assert "ignored: operator" in report.markdown(verdict)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "bias,seed\n1,0\n", r"no column test_accuracy; .*its columns: bias, seed"),
        ("t.csv", "bias,seed,test_accuracy\nmaybe,0,0.9\n", "column bias, row 1: maybe; must be"),
        ("t.csv", "bias,seed,test_accuracy\n1,0,93\n0,0,92\n", "0-100 instead of 0-1"),
        ("t.csv", "bias,seed,test_accuracy\n", "no rows"),
        ("t.csv", "", "cannot be read"),
        ("t.csv", "a,b\n1,2,3\n4\n1,2,3,4,5\n", "cannot be read"),
        ("t.csv", "run_id,bias,seed,test_accuracy\nx,1,0,0.9\nx,0,0,0.9\n", "run_id x appears twice"),
        ("t.parquet", "no parquet at all", "cannot be read"),
        ("t.xlsx", "", r"\.parquet or a \.csv"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_its_path(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        report.load_table(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(InputError, match="no such file"):
            report.load_table(tmp_path / name)
