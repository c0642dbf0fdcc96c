"""The claims: each has its search spaces and its kept results, and the READMEs say what these say."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from analysis import answers
from analysis.answers import EVIDENCE, HOLDS, OPEN, REFUTED
from sweep.space import search_space
from sweep.space.search_space import SearchSpace

ROOT = Path(__file__).parents[2]
SPACES = ROOT / "search_spaces"
RESULTS = ROOT / "analysis" / "results"
READMES = {part: ROOT / "README.md" for part in ("answer", "verdicts")}
READMES |= {part: ROOT / "analysis" / "README.md" for part in ("summary", "claims")}
SAID = ("width", "width-quick", "training_length-quick", "bias_init-quick", "batch_norm-quick", "original-quick")
TWO_SIZES = (
    *("original", "width", "depth", "batch_norm", "first_layer", "regularization", "bias_init", "training_length"),
    *("initialization", "learning_rate", "overparameterized"),
)


def read(path: str) -> SearchSpace:
    return search_space.load(SPACES / path)


@pytest.mark.parametrize("name", TWO_SIZES)
def test_every_claim_has_a_search_space_in_two_sizes(name: str) -> None:
    full, quick = read(f"{name}.yaml"), read(f"quick/{name}.yaml")
    assert (full.name, quick.name) == (name, f"{name}-quick")
    assert quick.run_count() < full.run_count() or name == "width"
    assert full.levels["bias"] == quick.levels["bias"] == (True, False)
    # What the small one varies, the large one varies too, over at least the same levels.
    for axis in set(quick.levels) - {"seed"}:
        assert set(quick.levels[axis]) <= set(full.levels[axis]), axis
    assert full.analysis == quick.analysis


def test_there_is_no_search_space_of_a_claim_that_no_test_knows() -> None:
    quick = {path.stem for path in (SPACES / "quick").glob("*.yaml")}
    assert quick == set(TWO_SIZES)
    assert {path.stem for path in SPACES.glob("*.yaml")} == quick | {"quickstart", "original_letters"}


@pytest.mark.parametrize("path", sorted(SPACES.rglob("*.yaml")), ids=lambda path: str(path.relative_to(SPACES)))
def test_a_search_space_knows_its_schema_and_says_what_would_refute_its_claim(path: Path) -> None:
    first, second, *_ = path.read_text(encoding="utf-8").splitlines()
    assert (path.parent / first.removeprefix("# yaml-language-server: $schema=")).resolve() == SPACES / "schema.json"
    assert second.startswith("# ")
    claim = search_space.load(path).claim
    assert (claim is None) == (path.stem in ("quickstart", "large"))
    assert claim is None or re.search(r"\b(judged|contradicted)\b", claim.refuted_if)


@pytest.mark.parametrize("name", TWO_SIZES)
def test_both_sizes_of_a_claim_have_the_same_words(name: str) -> None:
    full, quick = read(f"{name}.yaml").claim, read(f"quick/{name}.yaml").claim
    assert full and quick and (full.says, full.refuted_if) == (quick.says, quick.refuted_if)


@pytest.mark.parametrize("sweep", EVIDENCE)
def test_the_words_of_a_claim_are_those_of_its_search_space(sweep: str) -> None:
    claim = search_space.load(ROOT / answers.space_of(sweep)).claim
    assert claim and f"| {claim.says} |" in answers.verdicts()
    assert f"| {claim.says} ({claim.note}) |" in answers.table() or not claim.note


def test_the_large_one_is_planned_for_a_cluster_alone() -> None:
    large = read("cluster/large.yaml")
    assert {"depth", "width", "batch_norm", "learning_rate", "seed"} < set(large.levels)
    assert (min(large.levels["depth"]), max(large.levels["depth"])) == (1, 16)
    assert (min(large.levels["width"]), max(large.levels["width"])) == (1, 256)
    assert large.run_count() == 5 * 9 * 2 * 5 * 2 * 64


def cell(verdict: str, direction: str | None = None, **more: Any) -> dict[str, Any]:
    numbers = {"effect": 1.25, "low": 0.5, "high": 2.0, "pairs": 40, "accuracy_bias": 0.9, "sensitive": False}
    return {**numbers, "verdict": verdict, "direction": direction, **more}


def test_a_cell_bears_a_claim_out_refutes_it_or_leaves_it_open() -> None:
    verdict = {
        "factors": ["width"],
        "cells": [cell("equivalent", width=1), cell("matters", "hurts", width=2), cell("undecided", width=4)],
    }
    equal, less, open_ = answers.cells()(verdict)
    assert [each.answer for each in (equal, less, open_)] == [HOLDS, REFUTED, OPEN]
    assert less.numbers == "+1.25 (+0.50 to +2.00) points, matters, hurts"
    assert (less.part, less.size) == ("width 2", "40 pairs")
    [torn] = answers.cells()({"factors": ["width"], "cells": [cell("equivalent", width=1, sensitive=True)]})
    assert torn.numbers == "+1.25 (+0.50 to +2.00) points, equivalent, but not by the bootstrap" and torn.answer == OPEN
    hurts = answers.cells("matters hurts", ("equivalent", "matters helps"))
    assert [each.answer for each in hurts(verdict)] == [REFUTED, HOLDS, OPEN]
    helps = {"factors": ["width"], "cells": [cell("matters", "helps", width=1)]}
    assert [each.answer for each in hurts(helps)] == [REFUTED]
    assert [each.part for each in answers.cells(width=4)(verdict)] == ["width 4"]


def test_one_cell_that_matters_refutes_that_none_does() -> None:
    cells = [cell("equivalent", norm=True), cell("undecided", norm=True), cell("matters", "helps", norm=False)]
    [found] = answers.none_matters(norm=True)({"cells": cells})
    assert found == ("2 cells with norm true", HOLDS, "1 equivalent, 1 undecided, 0 matters", "40 pairs each")
    [found] = answers.none_matters(norm=False)({"cells": cells})
    assert found.answer == REFUTED


def test_a_hypothesis_answers_in_the_claim_s_words() -> None:
    record = {"name": "width", "contrast": "slope", "estimate": -0.5, "low": -0.75, "high": -0.25, "unit": "points"}
    verdict = {"hypotheses": [{**record, "seeds": 64, "verdict": "supported"}]}
    [found] = answers.hypothesis("width")(verdict)
    assert found == ("slope", HOLDS, "-0.50 (-0.75 to -0.25) points", "64 seeds")
    verdict["hypotheses"][0] |= {"verdict": "contradicted"}
    assert answers.hypothesis("width")(verdict)[0].answer == REFUTED
    verdict["hypotheses"][0] |= {"estimate": None, "low": None, "high": None, "verdict": "undecided"}
    assert answers.hypothesis("width")(verdict)[0][1:3] == (OPEN, "not measured")


def test_wide_enough_looks_at_two_to_four_times_the_width_that_does() -> None:
    accuracies = {1: 0.8, 2: 0.895, 4: 0.9, 8: 0.901, 16: 0.9}
    members = [
        cell("equivalent" if width != 8 else "matters", width=width, train_examples=100, accuracy_bias=accuracy)
        for width, accuracy in accuracies.items()
    ]
    found = answers.wide_enough()({"cells": members})
    assert [(each.part.rpartition(" ")[2], each.answer) for each in found] == [("4", HOLDS), ("8", REFUTED)]
    [narrow] = answers.wide_enough()({"cells": members[:1]})
    assert narrow.answer == OPEN and "none wider" in narrow.part


def test_one_refutation_refutes_and_everything_has_to_bear_a_claim_out() -> None:
    def found(*answered: str) -> list[answers.Finding]:
        return [answers.Finding("", each, "", "") for each in answered]

    assert answers.answer(found(HOLDS, HOLDS)) == HOLDS
    assert answers.answer(found(HOLDS, OPEN)) == OPEN
    assert answers.answer(found(HOLDS, OPEN, REFUTED)) == REFUTED


KEPT = [sweep for sweep in EVIDENCE if (RESULTS / sweep).exists()]


@pytest.mark.parametrize("sweep", KEPT)
def test_the_kept_results_of_a_claim_are_those_of_its_search_space(sweep: str) -> None:
    folder = RESULTS / sweep
    verdict = json.loads((folder / "verdict.json").read_text())
    space = search_space.load(ROOT / answers.space_of(sweep))
    assert verdict["name"] == space.name == sweep
    assert (verdict["runs"], verdict["missing_runs"]) == (space.run_count(), 0)
    assert (verdict["margin"], verdict["confidence"]) == (space.analysis.margin, space.analysis.confidence)
    assert not verdict["unplanned_look"]
    assert set(verdict["factors"]) == {name for name, levels in space.levels.items() if len(levels) > 1} - {
        "bias",
        "seed",
    }
    about = json.loads((folder / "about.json").read_text())
    assert about["command"] == f"sweep launch {answers.space_of(sweep)}"
    assert about["devices"] and about["versions"]["torch"] and about["trained"][0] < about["trained"][1]
    assert EVIDENCE[sweep](verdict)
    text = (folder / "report.md").read_text(encoding="utf-8")
    figures = re.findall(r"\]\(([^)#:]+)\)", text)
    assert figures and all((folder / name).exists() for name in figures)


def marks(part: str) -> tuple[str, str]:
    begin, end = (mark.format(part) for mark in answers.MARKS)
    return begin, end


def shown(part: str) -> str:
    begin, end = marks(part)
    return READMES[part].read_text(encoding="utf-8").partition(begin + "\n")[2].partition(end)[0]


def test_the_table_of_all_evidence_is_what_the_kept_results_say() -> None:
    assert shown("claims") == answers.table(RESULTS)
    assert shown("claims").count("\n") == 2 + len(EVIDENCE)
    assert shown("claims").count("not run yet") == len(EVIDENCE) - len(KEPT)


def test_the_readme_s_verdicts_are_those_of_the_table_one_line_each() -> None:
    assert shown("verdicts") == answers.verdicts(RESULTS)
    short, full = ([line.split(" | ") for line in shown(part).splitlines()] for part in ("verdicts", "claims"))
    assert len(short) == len(full) == 2 + len(EVIDENCE)
    for (words, verdict, evidence, *_), (all_words, whole, all_evidence, *_) in zip(short[2:], full[2:], strict=True):
        assert all_words.startswith(words) and verdict.replace("(analysis/", "(") == whole
        assert evidence in all_evidence


def test_the_evidence_in_one_line_is_the_first_that_answers_as_the_claim_does(tmp_path: Path) -> None:
    folder = tmp_path / "original-quick"
    folder.mkdir()
    cells = [cell("equivalent", width=1), cell("undecided", width=2), cell("matters", "hurts", width=4)]
    for count, decides in ((1, "width 1"), (2, "width 2"), (3, "width 4")):
        (folder / "verdict.json").write_text(json.dumps({"factors": ["width"], "cells": cells[:count]}))
        assert f" | {decides}: " in answers.verdicts(tmp_path).splitlines()[2]


def test_the_words_of_the_answer_are_what_the_kept_results_say() -> None:
    assert shown("summary") == answers.summary(RESULTS)
    assert shown("answer") == answers.points(RESULTS)
    assert shown("answer").count("\n- ") == 3
    kept = {name: json.loads((RESULTS / name / "verdict.json").read_text()) for name in SAID}

    def cells(sweep: str, **levels: Any) -> list[dict[str, Any]]:
        return [one for one in kept[sweep]["cells"] if all(one[name] == level for name, level in levels.items())]

    # What the words around the numbers say of verdicts, margins and ends.
    assert all(verdict["margin"] == 0.5 and verdict["confidence"] == 0.95 for verdict in kept.values())
    [axis] = kept["width-quick"]["thresholds"]
    assert max(cell["width"] for cell in kept["width-quick"]["cells"]) == 16
    wide = [cell for cell in kept["width-quick"]["cells"] if cell["width"] >= axis["equivalent_from"]]
    assert len(wide) > 1 and all(cell["verdict"] == "equivalent" for cell in wide)
    norm = cells("width", batch_norm=True)
    assert max(cell["width"] for cell in norm) == 64 and all(cell["verdict"] == "equivalent" for cell in norm)
    early, later, last = (cells("training_length-quick", width=1, steps=steps)[0] for steps in (300, 1001, 3000))
    assert early["direction"] == "helps" and early["effect"] > later["effect"] > last["effect"] > 0
    ones, zeros = (cells("bias_init-quick", width=16, bias_init=start)[0] for start in ("original", "zeros"))
    assert (ones["verdict"], ones["direction"], zeros["verdict"]) == ("matters", "hurts", "equivalent")
    # What the four points say without a number.
    [plain] = [axis for axis in kept["width"]["thresholds"] if not axis["batch_norm"]]
    without = cells("width", batch_norm=False)
    assert max(cell["width"] for cell in without) == 64
    assert {cell["verdict"] for cell in without if cell["width"] >= plain["equivalent_from"]} == {"equivalent"}
    open_ = [cell["width"] for cell in cells("batch_norm-quick", batch_norm=True) if cell["verdict"] != "equivalent"]
    assert open_ == [2] and cells("batch_norm-quick", width=2)[0]["pairs"] > norm[0]["pairs"]
    assert cells("original-quick", protocol="shared_weights")[0]["verdict"] == "equivalent"
    assert answers.answer(answers.findings("original-letters") or []) == OPEN


def test_reports_are_kept_from_a_store_when_they_are_complete(tmp_path: Path) -> None:
    results, store = RESULTS, tmp_path / "results"
    for sweep, missing in ((KEPT[0], 0), (KEPT[1], 3)):
        report = store / "reports" / sweep
        report.mkdir(parents=True)
        verdict = json.loads((results / sweep / "verdict.json").read_text())
        (report / "verdict.json").write_text(json.dumps(verdict | {"missing_runs": missing}))
        (report / "report.md").write_text("# A\n\n![one](one.png)\n\n![two](two.png)\n\nthe end\n")
        (report / "one.png").write_bytes(b"1")
    kept = tmp_path / "kept"
    assert answers.keep(store, kept) == [KEPT[0]]
    assert {path.name for path in (kept / KEPT[0]).iterdir()} == {
        *("verdict.json", "report.md", "one.png", "about.json")
    }
    assert (kept / KEPT[0] / "report.md").read_text() == "# A\n\n![one](one.png)\n\nthe end\n"
    line, other, *_ = answers.table(kept).splitlines()[2:]
    assert f"`sweep launch {answers.space_of(KEPT[0])}`" in line and "(" in line.split("|")[3]
    assert "not run yet" in other


def test_what_is_made_stands_between_its_marks() -> None:
    begin, end = marks("claims")
    before = f"a\n{begin}\nold\n{end}\nb\n"
    assert answers.written_into(before, claims="new\n") == f"a\n{begin}\nnew\n{end}\nb\n"
    with pytest.raises(SystemExit, match="summary"):
        answers.written_into(before, summary="new\n")


def test_each_file_gets_the_parts_that_it_has_marks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin, end = marks("verdicts")
    one, other, bare = (tmp_path / name for name in ("one.md", "other.md", "bare.md"))
    one.write_text(f"a\n{begin}\n{end}\n")
    other.write_text("".join(f"{mark}\n" for name in ("summary", "claims") for mark in marks(name)))
    bare.write_text("nothing\n")
    monkeypatch.setattr("sys.argv", ["answers", "--readme", str(one), str(other)])
    answers.main()
    assert one.read_text() == f"a\n{begin}\n{answers.verdicts()}{end}\n"
    assert answers.summary() in other.read_text() and answers.table() in other.read_text()
    monkeypatch.setattr("sys.argv", ["answers", "--readme", str(bare)])
    with pytest.raises(SystemExit, match="no marks"):
        answers.main()
