"""What the kit has found, as tables of text. A number that is missing is a dash."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from gpu_kit.results import Record

DASH: Final = "\u2013"
"""Stands for a number that is missing."""

KERNELS: Final = 8
"""Kernels that are shown of each width: those that take longest. All of them are in the results."""

NAME_CHARACTERS: Final = 48
"""Of a kernel's name."""

LINES: Final = 6
"""Of what a section that failed has said."""


def of(found: dict[str, Any]) -> str:
    """All tables of a results file."""
    parts = [_heading(found), _sections(found)]
    for name, show in SHOWN.items():
        records = found["sections"].get(name, {}).get("results", [])
        if records:
            parts.append(f"{name}\n{show(records)}")
    return "\n\n".join(parts)


def table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows of cells as lines of text; numbers are shortened, None becomes a dash."""
    lines = [titles, ["---"] * len(titles), *([shown(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(cell: Any) -> str:
    """One cell: a large number without, a small one with three digits that count."""
    match cell:
        case None:
            return DASH
        case bool():
            return "yes" if cell else "no"
        case float():
            return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
        case int():
            return f"{cell:,}"
    return str(cell)


def _heading(found: dict[str, Any]) -> str:
    versions = found.get("versions", {})
    named = ", ".join(f"{name} {version or DASH}" for name, version in versions.items())
    driver = f", driver {found['driver']}" if found.get("driver") else ""
    device = f"{found.get('device', found['kind'])}{driver}, {found.get('cores', DASH)} cores"
    return f"{device}, {named}, {found['date']}, commit {found['commit'] or DASH}"


def _sections(found: dict[str, Any]) -> str:
    rows, errors = [], []
    for name, section in found["sections"].items():
        missing = [record for record in section["results"] if record["value"] is None]
        seconds, limit = section["seconds"], section["limit_seconds"]
        rows.append((name, section["status"], seconds, limit, len(section["results"]), len(missing)))
        if section["error"]:
            errors += [f"{name}: {line}" for line in section["error"].splitlines()[-LINES:]]
        reasons = dict.fromkeys((record["error"] or "").splitlines()[0] for record in missing if record["error"])
        errors += [f"{name}: missing: {reason}" for reason in list(reasons)[:LINES]]
    titles = ("section", "status", "seconds", "limit, s", "numbers", "missing")
    return "\n".join([table(titles, rows), *errors])


def _select(records: list[Record], what: str) -> list[Record]:
    return [record for record in records if record["what"] == what]


def _widths(records: list[Record]) -> list[int]:
    return sorted({record["width"] for record in records if "width" in record})


def _value(records: list[Record], what: str, **labels: Any) -> Any:
    """The number of that name and with these labels; None where there is none."""
    for record in _select(records, what):
        if all(record.get(name) == label for name, label in labels.items()) and record["value"] is not None:
            return record["value"]
    return None


def _compile(records: list[Record]) -> str:
    rows = []
    for width in _widths(records):
        here = [record for record in records if record["width"] == width]
        built, spills = _select(here, "compiling"), [each["value"] for each in _select(here, "spills")]
        seconds = [each["value"] for each in built if each["value"] is not None]
        registers = [each["value"] for each in _select(here, "registers")]
        failed = len(built) - len(seconds)
        largest = max(registers, default=None), sum(bytes > 0 for bytes in spills), max(spills, default=None)
        rows.append((width, len(built), failed, *largest, sum(seconds) if seconds else None))
    titles = ("width", "kernels", "failed", "most registers", "that spill", "most bytes spilled", "seconds together")
    return table(titles, rows)


def _tests(records: list[Record]) -> str:
    outcomes = ("passed", "failed", "skipped")
    lines = [table(outcomes, [[sum(each["outcome"] == outcome for each in records) for outcome in outcomes]])]
    for record in records:
        if record["outcome"] == "failed":
            lines += [f"failed: {record['test']}", *(f"    {line}" for line in record["lines"][-LINES:])]
    return "\n".join(lines)


def _kernels(records: list[Record]) -> str:
    steps, parts = [], []
    for width in _widths(records):
        here = [record for record in records if record["width"] == width]
        runs, time = here[0]["runs"], _value(here, "step")
        rate = 1e6 * runs / time if time else None
        steps.append((width, here[0]["method"], runs, time, rate, _value(here, "nodes")))
        kernels = [each for each in _select(here, "kernel") if each["value"] is not None]
        whole = sum(each["value"] for each in kernels)
        for each in sorted(kernels, key=lambda each: -each["value"])[:KERNELS]:
            share = each["value"] / whole if whole else None
            parts.append((width, each["kernel"][:NAME_CHARACTERS], each["launches"], each["value"], share))
    titles = ("width", "method", "runs", "step, µs", "model-steps/s", "nodes")
    return "\n\n".join(
        [table(titles, steps), table(("width", "kernel", "launches per step", "µs per step", "share"), parts)]
    )


def _agreement(records: list[Record]) -> str:
    columns = {
        "accuracy on the device": "device, %",
        "accuracy on CPUs": "CPUs, %",
        "difference": "difference, points",
        "difference, low": "from",
        "difference, high": "to",
        "p": "p",
        "equivalent": "equivalent",
    }
    rows = []
    for width in _widths(records):
        runs = next((record["runs"] for record in records if record["width"] == width and "runs" in record), None)
        rows.append((width, runs, *(_value(records, what, width=width) for what in columns)))
    return table(("width", "runs", *columns.values()), rows)


def _sizes(records: list[Record]) -> str:
    sizes = sorted({record["runs"] for record in records})
    ways = sorted({(record["width"], record["method"]) for record in records})
    rows = []
    for width, method in ways:
        rates = [_value(records, "fused", width=width, method=method, runs=size) for size in sizes]
        rows.append((width, method, *rates))
    return f"model-steps/s by runs per array\n{table(('width', 'method', *map(str, sizes)), rows)}"


def _trainer(records: list[Record]) -> str:
    rates = ("fused", "alone", "graph", "shared")
    ratios = ("fused / alone", "fused / shared")
    ceilings = ("arithmetic allows", "memory allows")
    rows, settings = [], []
    for width in _widths(records):
        here = [record for record in records if record.get("width") == width]
        fused = next(iter(_select(here, "fused")), {})
        numbers = [_value(here, what) for what in rates]
        bounds = [_beside_bound(here, what) for what in ratios]
        allowed = [_value(here, what) for what in ceilings]
        rows.append((width, fused.get("method"), fused.get("runs"), *numbers, *bounds, *allowed))
        for each in _select(here, "setting"):
            plain = numbers[0]
            share = each["value"] / plain if each["value"] is not None and plain else None
            settings.append((width, each["setting"], each["value"], share))
    processes = next((record["processes"] for record in _select(records, "shared")), None)
    titles = (
        "width",
        "method",
        "runs",
        "fused",
        "alone",
        "CUDA graph",
        f"{shown(processes)} processes",
        *ratios,
        *ceilings,
    )
    peaks = (
        f"arithmetic: {shown(_tera(records, 'arithmetic'))} TFLOP/s, copying: {shown(_tera(records, 'copying'))} TB/s"
    )
    parts = [f"model-steps/s; {peaks}\n{table(titles, rows)}"]
    if settings:
        parts.append(table(("width", "setting", "model-steps/s", "of the plain recipe's"), settings))
    return "\n\n".join(parts)


def _tera(records: list[Record], what: str) -> float | None:
    value = _value(records, what)
    return None if value is None else value / 1e12


def _launch(records: list[Record]) -> str:
    rows = [(each["what"], each.get("runs"), each["value"], each["unit"]) for each in records]
    rows = [row for row in rows if row[0] != RATIO]
    whole = all(each.get("whole", True) for each in records)
    ended = "" if whole else "\nthe launch was ended when its time was over: its runs are those that it had trained"
    return f"{table(('', 'runs', 'value', 'unit'), rows)}{ended}\n{RATIO}: {_beside_bound(records, RATIO)}"


RATIO: Final = "plain Tune / launch"


def _beside_bound(records: list[Record], what: str) -> str:
    """A ratio, and whether it meets its bound where it has one."""
    for record in _select(records, what):
        if record.get("bound") is None:
            return shown(record["value"])
        return f"{shown(record['value'])} ({'met' if record['met'] else 'missed'}: {shown(record['bound'])})"
    return shown(None)


SHOWN: Final[dict[str, Callable[[list[Record]], str]]] = {
    "compile": _compile,
    "tests": _tests,
    "kernels": _kernels,
    "agreement": _agreement,
    "sizes": _sizes,
    "trainer": _trainer,
    "launch": _launch,
}
