import json
import sys
from pathlib import Path

import pytest

from sweep import cli


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of the command line, in this process."""
    monkeypatch.setattr(sys, "argv", ["sweep", *map(str, arguments)])
    monkeypatch.setattr(cli, "_debug", False)
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


BAD_SPACES = {
    "misspelt": ("axes: {widht: [1, 2]}", "did you mean 'width'"),
    "unknown data": ("settings: {dataset: mnist50}", "did you mean 'mnist5k'"),
    "impossible": ("axes: {width: [0]}", "axes.width"),
    "twice": ("axes: {width: [1]}\naxes: {width: [2]}", "axes"),
    "unparsable": ("axes: {width: [1, 2", "1"),
    "list": ("- width", "mapping"),
    "path in the name": ("name: ../../etc/passwd", "name"),
}


@pytest.mark.parametrize("command", ["launch", "plan"])
@pytest.mark.parametrize("text, said", BAD_SPACES.values(), ids=BAD_SPACES)
def test_a_bad_search_space_is_one_message_status_2_and_leaves_no_store(
    command: str,
    text: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(text)
    assert run(monkeypatch, command, space, "--store", tmp_path / "results") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {space}")
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "results").exists()


BAD_CALLS = {
    "a search space that is not there": (["launch", "none.yaml"], "none.yaml"),
    "a sweep that is not in the store": (["status", "none"], "no sweep 'none'"),
    "a report of nothing": (["report", "none"], "no sweep 'none'"),
    "a report of a file that is not there": (["report", "none.csv"], "none.csv"),
    "an export of nothing": (["export", "none", "--to", "rows.csv"], "no sweep 'none'"),
    "an export to an unknown format": (["export", "none", "--to", "rows.xlsx"], ".parquet or .csv"),
    "no command": (["frobnicate"], "frobnicate"),
    "no such option": (["plan", "none.yaml", "--width", "3"], "--width"),
}


@pytest.mark.parametrize("arguments, said", BAD_CALLS.values(), ids=BAD_CALLS)
def test_a_bad_call_is_one_message_and_status_2(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results").write_text("")
    assert run(monkeypatch, "status", "--store", tmp_path / "results") == 2
    assert "is a file" in capsys.readouterr().err


def test_tracebacks_are_shown_with_debug_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags, shown in ([], False), (["--debug"], True):
        assert run(monkeypatch, "status", "none", "--store", tmp_path, *flags) == 2
        assert ("Traceback" in capsys.readouterr().err) == shown


def test_an_error_of_our_own_is_status_1_and_still_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("not the user's fault")

    monkeypatch.setattr("sweep.commands.status", broken)
    assert run(monkeypatch, "status", "--store", tmp_path) == 1
    assert capsys.readouterr().err == "error: RuntimeError: not the user's fault (--debug shows more)\n"


def test_an_empty_store_has_no_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SWEEP_STORE", str(tmp_path / "elsewhere"))
    assert run(monkeypatch, "status", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []
    assert run(monkeypatch, "status") == 0
    assert "elsewhere" in capsys.readouterr().out


def test_a_table_from_elsewhere_is_reported_with_the_margin_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["bias,seed,width,test_accuracy"]
    lines += [
        f"{bias},{seed},{width},{0.8 + 0.02 * (bias == 'true') * (width == 1) + 0.0001 * (seed % 3)}"
        for width in (1, 8)
        for seed in range(8)
        for bias in ("true", "false")
    ]
    table = tmp_path / "mine.csv"
    table.write_text("\n".join(lines))
    assert run(monkeypatch, "report", table, "--margin", "0.5", "--json", "--store", tmp_path / "none") == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict == json.loads((tmp_path / "mine-report" / "verdict.json").read_text())
    assert [cell["verdict"] for cell in verdict["cells"]] == ["matters", "equivalent"]
    assert [(t["matters_up_to"], t["equivalent_from"]) for t in verdict["thresholds"]] == [(1, 8)]
    assert run(monkeypatch, "report", table, "--out", tmp_path / "out", "--store", tmp_path / "none") == 0
    assert "default, not declared" in (tmp_path / "out" / "report.md").read_text()
    assert not (tmp_path / "none").exists()


def test_the_version_is_the_package_s(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.strip() == version("sweep")
