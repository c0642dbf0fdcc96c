"""What `analysis.page` promises: one file that needs no network, stays small, and shows what a name holds as text."""

import html
import json
import re
from typing import Any

import pandas as pd
import pytest
from support.simulated import grid, study

from analysis import effects, page
from analysis.page.aggregate import aggregate
from analysis.study import analyse
from analysis.wording import sentences

LARGEST = 6_000_000
WILD = "<img src=x onerror=alert(1)></script><script>alert(2)</script>%%data%% & 'x' \"y\""


def rendered(rows: pd.DataFrame, **options: Any) -> tuple[str, str | None]:
    return page.render(analyse(rows, **{"name": "study", **options}), effects.pairs(rows))


def data_of(text: str) -> dict[str, Any]:
    """The object that the page draws from."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return study(grid(width=[1, 4, 16], batch_norm=[False, True]), 8, lambda cell: 4 / cell["width"] ** 2)


def test_the_page_is_one_file_that_loads_nothing(rows: pd.DataFrame) -> None:
    text, said = rendered(rows)
    own = text.replace(page.get_plotlyjs(), "")
    assert len(text.encode()) < LARGEST and len(text) - len(own) > 3_000_000  # the bundle stands in it as it is, once
    assert "default-src 'none'" in own and said is None
    assert not re.findall(r'(?:src|href)=(?!"data:)|@import|url\(|https?://', own)
    assert "%%" not in own


def test_the_answer_stands_before_everything_else(rows: pd.DataFrame) -> None:
    verdict = analyse(rows, name="study", missing_runs=3, looks_taken=2)
    text, _ = page.render(verdict, effects.pairs(rows))
    body = text[text.index("<body>") :]
    marks = ["Unplanned look", "Incomplete: 3 runs", verdict["thresholds"][0]["statement"][:40], "<h2>"]
    places = [body.index(mark) for mark in marks]
    assert places == sorted(places)
    for line in [*sentences.conditions(verdict), sentences.citation(verdict)]:
        assert line.replace("'", "&#x27;") in body


def test_alarms_hypotheses_and_every_cell_are_in_the_page(rows: pd.DataFrame) -> None:
    text, _ = rendered(rows.assign(bias_layers="conv", bias_init="zeros"))
    assert "Alarm: " in text  # the simulated bias acts under batch norm, too
    data = data_of(text)
    assert len(data["cells"]["rows"]) == 6 and len(data["pairs"]) == 6
    assert all(len(seeds) == 8 for seeds, *_ in data["pairs"])
    assert [one[0][:4] for one in data["hypotheses"]][:1] == ["wide"]
    assert {"effect", "low", "high", "pairs", "verdict", "accuracy_bias", "rho"} <= set(data["cells"]["columns"])


def test_the_numbers_of_a_cell_are_those_of_its_record(rows: pd.DataFrame) -> None:
    verdict = analyse(rows, name="study")
    table = data_of(page.render(verdict, effects.pairs(rows))[0])["cells"]
    for row, cell in zip(table["rows"], verdict["cells"], strict=True):
        shown = dict(zip([*table["factors"], *table["columns"]], row, strict=True))
        assert shown["effect"] == pytest.approx(cell["effect"], abs=6e-4)
        assert shown["accuracy_bias"] == pytest.approx(100 * cell["accuracy_bias"], abs=6e-4)
        assert table["levels"][0][shown["width"]] == cell["width"]


def test_a_name_and_a_setting_are_text_whatever_they_hold(rows: pd.DataFrame) -> None:
    other = rows.assign(dataset=WILD)
    text, _ = rendered(pd.concat([rows.assign(dataset="mnist5k"), other]), name=WILD)
    assert "<img" not in text.replace(page.get_plotlyjs(), "")
    assert text.count("<script") - page.get_plotlyjs().count("<script") == 3
    assert data_of(text)["cells"]["levels"][-1] == [WILD, "mnist5k"]


def test_missing_effects_and_columns_with_gaps_reach_the_page(rows: pd.DataFrame) -> None:
    table = pd.concat([rows.assign(train_examples=None), rows.assign(train_examples=100)])
    table = table[~((table["width"] == 4) & table["bias"])]
    data = data_of(rendered(table)[0])
    assert sorted(len(seeds) for seeds, *_ in data["pairs"]) == [0] * 4 + [8] * 8


def test_a_sweep_of_ten_thousand_cells_is_aggregated_and_the_page_says_so() -> None:
    cells = grid(width=[1, 2, 4, 8], depth=[1, 2, 3, 4, 5], batch_norm=[False, True], steps=range(100, 25_100, 100))
    arms = pd.DataFrame({"seed": [0, 0, 1, 1], "bias": [True, False] * 2, "test_accuracy": [0.8, 0.79, 0.81, 0.8]})
    rows = pd.DataFrame(cells).merge(arms, how="cross")
    text, said = rendered(rows)
    assert said is not None and "10,000 cells" in said and "40 groups" in said and "steps" in said
    assert html.escape(said) in text and len(text.encode()) < LARGEST
    data = data_of(text)
    assert len(data["cells"]["rows"]) == 40 and data["aggregated"] and data["pairs"] is None
    row = dict(zip([*data["cells"]["factors"], *data["cells"]["columns"]], data["cells"]["rows"][0], strict=True))
    assert (row["cells"], row["pairs"]) == (250, 500)


def test_an_axis_of_many_levels_is_joined_level_by_level() -> None:
    cell = {"pairs": 6, "direction": None, "accuracy_bias": 0.9, "accuracy_no_bias": 0.9}
    cells = [
        {"width": n, "effect": float(n), "verdict": "matters" if n < 3 else "equivalent"} | cell for n in range(1, 8)
    ]
    groups, factors, said = aggregate(cells, ["width"], most=4)
    assert factors == ["width"] and "joined, 2 at a time" in said
    assert [(one["width"], one["cells"], one["effect"], one["low"], one["high"]) for one in groups] == [
        (1, 2, 1.5, 1.0, 2.0), (3, 2, 3.5, 3.0, 4.0), (5, 2, 5.5, 5.0, 6.0), (7, 1, 7.0, 7.0, 7.0)
    ]  # fmt: skip
    assert [one["verdict"] for one in groups] == ["matters", "equivalent", "equivalent", "equivalent"]


def test_groups_whose_cells_differ_are_mixed_and_few_cells_stay_themselves() -> None:
    cell = {"pairs": 6, "effect": 1.0, "direction": None, "accuracy_bias": 0.9, "accuracy_no_bias": None}
    cells = [{"width": 1, "steps": n, "verdict": one} | cell for n, one in enumerate(("matters", "undecided"))]
    (group,), factors, _ = aggregate(cells, ["width", "steps"], most=1)
    assert factors == ["width"] and group["verdict"] == "mixed" and group["accuracy_no_bias"] is None
    assert (group["cells_matters"], group["cells_equivalent"], group["cells_undecided"]) == (1, 0, 1)
    assert aggregate(cells, ["width", "steps"], most=2) == (cells, ["width", "steps"], "")


def test_pairs_too_many_for_dots_are_left_out_and_the_page_says_where_they_are() -> None:
    text, said = rendered(study([{"width": 1}, {"width": 2}], 3_001))
    assert said is not None and "6,002 pairs" in said and said in text
    assert data_of(text)["pairs"] is None and not data_of(text)["aggregated"]
