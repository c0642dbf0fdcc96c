"""The kit that proves and measures the GPU path: what it promises of itself, and, slow, all of it on the CPU."""

import json
import math
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.processes import alive

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import gpu
from gpu_kit import compiling, launching, profiling, saturation, sizing, supervise, tables, training
from gpu_kit.recorder import Recorder
from gpu_kit.results import NAME, Results
from gpu_kit.scale import SCALES
from gpu_kit.supervise import Finished, Section, Unfinished
from rates import RECIPE

from sweep import plan

TELL = """
import json, os, time

def tell(value, error=None):
    record = {"what": "number", "value": value, "unit": "s", "error": error}
    os.write(int(os.environ["GPU_KIT_PIPE"]), json.dumps({"record": record}).encode() + b"\\n")
"""


def section(name: str, code: str, seconds: float = 30.0) -> Section:
    """A section that runs Python without its site, which starts sooner; `tell` is at hand."""
    return Section(name, (sys.executable, "-I", "-S", "-c", TELL + code), seconds)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "out", {"kind": "cpu", "date": "2026-01-01", "commit": None})


def run(results: Results, *sections: Section) -> dict[str, Any]:
    """What stands in the file after these sections."""
    supervise.run(sections, results, os.environ, say=lambda text: None)
    found: dict[str, Any] = json.loads(results.path.read_text())
    return found


# Sections


@pytest.mark.integration
def test_a_section_that_hangs_or_dies_costs_itself_only(results: Results) -> None:
    found = run(
        results,
        section("hangs", "tell(1.5); time.sleep(60)", 0.5),
        section("dies", "tell(2.5); os.kill(os.getpid(), 11)"),
        section("fails", "tell(3.5); print('before'); raise ValueError('a reason')"),
        section("ends", "tell(4.5)"),
    )["sections"]
    assert {name: part["status"] for name, part in found.items()} == {
        "hangs": "timeout",
        "dies": "failed",
        "fails": "failed",
        "ends": "ok",
    }
    assert [part["results"][0]["value"] for part in found.values()] == [1.5, 2.5, 3.5, 4.5]
    assert 0.4 < found["hangs"]["seconds"] < 10 and found["ends"]["error"] is None
    assert "killed by SIGSEGV" in found["dies"]["error"]
    assert "before" in found["fails"]["error"] and "ValueError: a reason" in found["fails"]["error"]


@pytest.mark.integration
def test_what_a_section_began_ends_with_it_in_whatever_session(results: Results, tmp_path: Path) -> None:
    code = f"""
import subprocess, sys
sleep = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]
pids = [subprocess.Popen(sleep, start_new_session=own).pid for own in (True, False)]
open({str(tmp_path / "pids")!r}, "w").write(" ".join(map(str, pids)))
tell(1.0)
"""
    run(results, section("hangs", code + "time.sleep(60)", 1.0))
    first = (tmp_path / "pids").read_text().split()
    run(results, section("leaves", code.replace("(True, False)", "(False, False)")))
    for pid in [*first, *(tmp_path / "pids").read_text().split()]:
        assert not alive(int(pid))


@pytest.mark.integration
def test_every_number_is_in_the_file_as_soon_as_it_is_told(results: Results) -> None:
    code = """
tell(1.0)
while '"value": 1.0' not in open(os.environ["GPU_KIT_RESULTS"]).read():
    time.sleep(0.01)
tell(2.0)
os.kill(os.getpid(), 9)
"""
    [part] = run(results, section("dies", code))["sections"].values()
    assert [record["value"] for record in part["results"]] == [1.0, 2.0]


@pytest.mark.integration
def test_a_section_may_use_what_those_before_it_left_over(results: Results) -> None:
    parts = run(results, section("one", "tell(1.0)", 20.0), section("two", "tell(1.0)", 30.0))["sections"]
    assert 0 < parts["one"]["limit_seconds"] <= 20 < parts["two"]["limit_seconds"] < 50


@pytest.mark.integration
def test_a_section_that_found_nothing_has_failed(results: Results) -> None:
    parts = run(results, section("silent", ""), section("in vain", "tell(None, 'no luck')"))["sections"]
    assert [(part["status"], part["error"]) for part in parts.values()] == [
        ("failed", "it found nothing"),
        ("failed", "no luck"),
    ]
    assert not results.ok


@pytest.mark.integration
def test_a_program_that_takes_too_long_is_killed_and_one_that_fails_says_why() -> None:
    with pytest.raises(Unfinished, match="longer than 0 s"):
        supervise.output_of([sys.executable, "-S", "-c", "import time; time.sleep(60)"], 0.2)
    with pytest.raises(Unfinished, match=r"(?s)exit status 3.*a reason"):
        supervise.output_of([sys.executable, "-S", "-c", "import sys; print('a reason'); sys.exit(3)"], 20)


# Records


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    monkeypatch.setenv("GPU_KIT_DEADLINE", str(time.monotonic() + 60))
    return Recorder()


def records(said: str) -> list[dict[str, Any]]:
    return [json.loads(line)["record"] for line in said.splitlines()]


def test_what_cannot_be_measured_is_null_and_says_why(recorder: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    with recorder.guard("rate", "steps/s", width=4):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with recorder.guard("rate", "steps/s", width=8):
        recorder.need(1000)
    recorder.add("rate", math.inf, "steps/s", width=16)
    recorder.add("rate", 2.0, "steps/s", width=32)
    found = records(capsys.readouterr().out)
    assert [record["value"] for record in found] == [None, None, None, 2.0]
    assert [record["width"] for record in found] == [4, 8, 16, 32]
    errors = (
        "OutOfMemoryError: CUDA out of memory",
        "no time was left for it: it needs 1000 s",
        "it came out as inf",
        None,
    )
    assert tuple(record["error"] for record in found) == errors


def test_kernels_that_do_not_compile_are_told_beside_those_that_do(
    recorder: Recorder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {"kernel": "a", "width": 4, "settings": "plain", "registers": 32, "shared": 0, "spills": 0, "seconds": 0.5}
    bad = {**good, "kernel": "b", "registers": None, "shared": None, "spills": None, "error": "no such instruction"}
    done = Finished(1, json.dumps([good, bad]), "")
    monkeypatch.setattr(compiling, "finished", lambda *arguments: done)
    compiling._width(recorder, 4)
    found = records(capsys.readouterr().out)
    assert [(record["kernel"], record["what"], record["value"]) for record in found] == [
        ("a", "compiling", 0.5),
        ("a", "registers", 32),
        ("a", "shared", 0),
        ("a", "spills", 0),
        ("b", "compiling", None),
    ]
    assert found[-1]["error"] == "no such instruction"


def test_ways_three_times_slower_than_the_best_are_followed_no_further(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {
        "triton": {4096: None, 2048: 900.0, 1024: 1000.0, 512: 700.0, 256: 300.0},  # 4096: out of memory
        "grouped": {1024: 300.0},  # a third of the best where that is best
        "im2col": {1024: 400.0, 4096: 350.0, 2048: 320.0},
    }
    tried = []

    def rate(self: sizing._Width, method: str, size: int) -> float | None:
        tried.append((method, size))
        return rates[method][size]

    monkeypatch.setattr(sizing._Width, "_rate", rate)
    scale = replace(SCALES["cuda"], sizes=(4096, 2048, 1024, 512, 256, 128))
    sizing._Width(recorder, scale, 16).measure()
    ways = {method: [size for each, size in tried if each == method] for method in rates}
    assert ways == {"triton": [4096, 2048, 1024, 512, 256], "grouped": [1024], "im2col": [1024, 4096, 2048]}


@pytest.mark.slow
def test_what_time_does_not_suffice_for_is_told_and_not_begun(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPU_KIT_DEADLINE", str(time.monotonic()))
    scale = replace(SCALES["cuda"], kernel_widths=(4,), size_widths=(4,), trainer_widths=(4,))
    for module in (profiling, sizing, training):
        module.measure(Recorder(), scale)
        found = records(capsys.readouterr().out)
        assert found and all(record["value"] is None for record in found)
        assert all(record["error"].startswith("no time was left") for record in found)


def test_sizes_are_those_that_plans_may_make() -> None:
    sizes = {width: sizing.fitting(replace(RECIPE, width=width), SCALES["cuda"]) for width in (1, 64, 256)}
    assert {width: fitting[0] for width, fitting in sizes.items()} == {1: 2048, 64: 1024, 256: 64}
    assert all(fitting[-1] == 2 for fitting in sizes.values())


def test_a_launch_whose_time_is_over_counts_what_it_has_trained(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def output_of(command: list[str], seconds: float) -> str:
        if "--plain" in command:
            return "some words\n8.0\n"
        raise Unfinished("it took longer than that")

    monkeypatch.setattr(launching, "output_of", output_of)
    monkeypatch.setattr(
        launching, "Store", lambda folder: SimpleNamespace(statuses=lambda: dict.fromkeys("abcd", "ok"))
    )
    launching.measure(recorder, replace(SCALES["cpu"], plain_sample=4))
    said = capsys.readouterr().out
    found = {record["what"]: record for record in records("\n".join(re.findall("^{.*", said, re.MULTILINE)))}
    assert found["plain Tune, per run"]["value"] == 2.0
    assert found["launch"]["runs"] == 4 and found["launch"]["whole"] is False
    start = found["plain Tune, start"]["value"]
    assert found["plain Tune / launch"]["value"] == pytest.approx((start + 8.0) / found["launch"]["value"])


# The table of array sizes

TABLE = {
    "cpu": {"measured": "some CPU", "rows": [{"width": 1024, "method": "grouped", "runs": 2}]},
    "cuda": {
        "measured": "a guess",
        "rows": [
            {"width": 16, "method": "triton", "runs": 2048},
            {"width": 1024, "method": "grouped", "runs": 8},
        ],
    },
}


def measured(rates: dict[int, dict[tuple[int, str], float | None]], kind: str = "cuda") -> dict[str, Any]:
    """A results file with these rates by width, array size and method."""
    sizes = [
        {"what": "fused", "width": width, "method": method, "runs": runs, "value": rate, "unit": "model-steps/s"}
        for width, by_way in rates.items()
        for (runs, method), rate in by_way.items()
    ]
    about = {"kind": kind, "date": "2026-01-01", "device": "A GPU", "versions": {"torch": "2.11", "triton": "3.6"}}
    return {**about, "sections": {"sizes": {"results": sizes}}}


def test_the_table_is_made_of_the_rates_that_were_measured() -> None:
    some = {(2048, "triton"): 100.0, (1024, "triton"): 96.0, (512, "triton"): 80.0, (4096, "grouped"): None}
    found = measured({4: some, 8: {(2048, "grouped"): 7.0, (64, "triton"): 6.0}})
    made = saturation.remade(TABLE, found)
    assert made["cpu"] == TABLE["cpu"]
    assert made["cuda"] == {
        "measured": "a guess; width 4, 8: A GPU, torch 2.11, Triton 3.6, 2026-01-01",
        "rows": [
            {"width": 2, "method": "triton", "runs": 2048},
            {"width": 4, "method": "triton", "runs": 1024},
            {"width": 8, "method": "grouped", "runs": 2048},
            {"width": 16, "method": "triton", "runs": 2048},
            {"width": 1024, "method": "grouped", "runs": 8},
        ],
    }


def test_a_table_that_was_measured_at_all_widths_says_nothing_of_the_old_one() -> None:
    widths = {width: {(64, "triton"): 1.0} for width in (1, 2, 4, 8, 16, 32, 64, 128, 256)}
    assert saturation.remade(TABLE, measured(widths))["cuda"] == {
        "measured": "A GPU, torch 2.11, Triton 3.6, 2026-01-01",
        "rows": [{"width": 1024, "method": "triton", "runs": 64}],
    }


def test_writing_the_table_keeps_its_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, file = tmp_path / "saturation.json", tmp_path / NAME
    table.write_text(plan.TABLE.read_text())
    monkeypatch.setattr(plan, "TABLE", table)
    file.write_text(json.dumps(measured({16: {(512, "triton"): 3.0}})))
    assert gpu.main(["--write", str(file)]) == 0
    rows = [plan.Saturation(**row) for row in json.loads(table.read_text())["cuda"]["rows"]]
    assert plan.Saturation(16, "triton", 512) in rows and rows[-1].width == 1024
    assert table.read_text().count("\n") < 40  # a row a line


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (json.dumps(measured({4: {(2, "grouped"): 1.0}}, kind="cpu")), "measured on a CPU"),
        (json.dumps(measured({4: {(2, "grouped"): None}})), "no rates of array sizes"),
        ("half a fi", "Expecting value"),
    ],
)
def test_results_that_say_nothing_of_a_gpu_write_no_table(
    text: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / NAME).write_text(text)
    before = plan.TABLE.read_bytes()
    assert gpu.main(["--write", str(tmp_path / NAME)]) == 2
    assert plan.TABLE.read_bytes() == before
    said = capsys.readouterr().err
    assert reason in said and said.count("\n") == 1


def test_a_folder_that_has_results_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / NAME).write_text("{}")
    assert gpu.main(["--device", "cpu", "--out", str(tmp_path)]) == 2
    assert "has results already" in capsys.readouterr().err and (tmp_path / NAME).read_text() == "{}"


# Tables


@pytest.mark.integration
def test_tables_show_what_is_missing_as_missing(results: Results) -> None:
    found = run(results, section("trainer", "raise SystemExit('no device')"))
    found["sections"]["sizes"] = {
        **found["sections"]["trainer"],
        "results": measured({4: {(2, "grouped"): 1234.5, (8, "grouped"): None}})["sections"]["sizes"]["results"],
    }
    for record in found["sections"]["sizes"]["results"]:
        record["error"] = None if record["value"] else "out of memory"
    text = tables.of(found)
    assert "trainer: no device" in text and "| trainer | failed |" in text
    assert f"| 4 | grouped | 1,234 | {tables.DASH} |" in text
    assert "sizes: missing: out of memory" in text


def test_a_ratio_is_shown_beside_its_bound() -> None:
    ratio = {"what": "fused / alone", "value": 650.0, "bound": 700, "met": False}
    assert tables._beside_bound([ratio], "fused / alone") == "650 (missed: 700)"
    assert tables._beside_bound([{**ratio, "value": 712.0, "met": True}], "fused / alone") == "712 (met: 700)"
    assert tables._beside_bound([{**ratio, "bound": None}], "fused / alone") == "650"
    assert tables._beside_bound([], "fused / alone") == tables.DASH


# All of it


@pytest.mark.slow
def test_the_whole_kit_runs_on_the_cpu(tmp_path: Path) -> None:
    command = [sys.executable, str(gpu.BENCHMARKS / "gpu.py"), "--device", "cpu", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    found = json.loads((tmp_path / NAME).read_text())
    errors = {name: (part["status"], part["error"]) for name, part in found["sections"].items()}
    assert errors == dict.fromkeys(gpu.MODULES, ("ok", None)), done.stdout + done.stderr
    assert done.returncode == 0
    assert found["kind"] == "cpu" and found["device"].startswith("cpu") and found["cores"] > 0
    assert found["versions"]["torch"] and found["versions"]["ray"] and found["driver"] is None
    for name, part in found["sections"].items():
        assert part["results"] and part["seconds"] < part["limit_seconds"]
        for record in part["results"]:
            assert record["error"] is None, (name, record)
            if isinstance(record["value"], bool):
                assert record["unit"] is None
            else:
                assert isinstance(record["value"], int | float) and record["unit"], (name, record)
                assert math.isfinite(record["value"])
    assert_all_that_is_wanted(found["sections"])
    assert gpu.main(["--write", str(tmp_path / NAME)]) == 2
    shown = tables.of(found)
    assert shown in done.stdout and all(f"\n{name}\n" in shown for name in gpu.MODULES)


def assert_all_that_is_wanted(sections: dict[str, Any]) -> None:
    """Each section has the numbers that it is there for."""
    scale = SCALES["cpu"]
    names = {name: [record["what"] for record in part["results"]] for name, part in sections.items()}
    assert {"compiling", "registers", "shared", "spills"} <= set(names["compile"])
    assert {record["outcome"] for record in sections["tests"]["results"]} == {"passed"}
    assert names["kernels"].count("step") == names["kernels"].count("nodes") == len(scale.kernel_widths)
    assert "kernel" in names["kernels"]
    assert {"difference", "p", "equivalent"} <= set(names["agreement"])
    assert {record["width"] for record in sections["sizes"]["results"]} == set(scale.size_widths)
    wanted = {"fused", "alone", "shared", "setting", "arithmetic", "copying", "fused / alone", "fused / shared"}
    assert wanted <= set(names["trainer"])
    assert {"plain Tune, fit", "launch", "launch, per run", "plain Tune / launch"} <= set(names["launch"])
    rates = [record["value"] for record in sections["trainer"]["results"] if record["what"] == "fused"]
    assert rates and min(rates) > 0
