"""What commands print for people: tables, verdicts, listings. With `--json`, they print one JSON object instead."""

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from sweep.common.progress import console

if TYPE_CHECKING:
    from sweep.cluster.driver import Summary
    from sweep.cluster.jobs import Job  # imports Ray
    from sweep.commands.datasets import Look
    from sweep.commands.status import Status
    from sweep.data.library import Listing, Verified


def as_json(value: Any) -> None:
    """One line of JSON."""
    print(json.dumps(value, allow_nan=False))


def utf8(text: str) -> None:
    """Text for another program, which is UTF-8 whatever standard output is set to."""
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        out.flush()
        out.buffer.write(text.encode())
        out.flush()
    else:
        out.write(text)


def table(*heads: str) -> Table:
    """A table without lines, whose columns fold on a narrow terminal: no name is cut."""
    made = Table(box=None, pad_edge=False)
    for head in heads:
        made.add_column(head, overflow="fold")
    return made


def statuses(found: Sequence["Status"]) -> None:
    """How far sweeps have come, a line each."""
    shown = table(*vars(found[0]))
    for each in found:
        shown.add_row(*(value if isinstance(value, str) else f"{value:,}" for value in vars(each).values()))
    console().print(shown)


def jobs(found: Sequence["Job"]) -> None:
    """The launches on a cluster, a line each."""
    shown = table("id", "sweep", "status", "started", "message")
    for job in found:
        shown.add_row(*(escape(value or "") for value in (job.id, job.sweep, job.status, job.started, job.message)))
    console().print(shown)


def summary(done: "Summary") -> None:
    """What a launch trained."""
    if not done.trained and not done.failed:
        print(f"Nothing to train: all {done.runs:,} runs of {done.name} are in the store.")
    else:
        speed = done.trained / done.seconds
        print(f"{done.trained:,} runs trained in {done.seconds:.1f} s ({speed:.1f} per second), ", end="")
        print(f"{done.already:,} already there, {done.failed:,} failed, {done.diverged:,} diverged.")


def verdict(found: dict[str, Any], folder: str) -> None:
    """The verdicts of a report, what speaks against them, and where the report is."""
    from analysis.wording import sentences

    if found["missing_runs"]:
        print(f"Incomplete: {found['missing_runs']:,} runs of this sweep are not in the store yet.")
    if found["unplanned_look"]:
        taken, declared = found["looks"]["taken"], found["looks"]["declared"]
        print(f"Look {taken} at the results, of {declared} declared: the verdicts no longer keep their error rate.")
    if other := sentences.other_looks(found):
        print(other)
    for alarm in found["alarms"]:
        print(f"Alarm: {alarm}")
    for line in [*sentences.answers(found), sentences.summary(found)]:
        print(line)
    drawn = {"width": "effect_by_width", "depth": "effect_by_depth"}
    picture = next((name for axis, name in drawn.items() if axis in found["factors"]), "effects")
    for what, file in {"picture": f"{picture}.png", "page": "report.html", "report": "report.md"}.items():
        if "://" in folder or Path(folder, file).exists():  # what could not be made has been said
            print(f"{what + ':':8} {folder}/{file}")


def listing(found: Sequence["Listing"]) -> None:
    """The data sets that have a name, a line each."""
    shown = table("name", "pictures", "classes", "train/validation/test", "here", "licence; source")
    for column in shown.columns[:-1]:
        column.no_wrap = True
    for each in found:
        shape = f"{each.channels}x{each.height}x{each.width}"
        sizes = "/".join("?" if size is None else f"{size:,}" for size in (each.train, each.validation, each.test))
        here = "yes" if each.here else "no"
        shown.add_row(each.name, shape, str(each.classes), sizes, here, f"{each.licence}; {each.source}")
    console().print(shown)
    print("Your own: folder:PATH (pictures, one subfolder per class) or npz:PATH (arrays images and labels).")


def verified(found: "Verified") -> None:
    """Whether what was kept of a data set's files was up to date."""
    kept = "nothing was kept of it" if found.kept is None else f"what was kept of it was stale ({found.kept})"
    same = found.kept == found.fingerprint
    print(f"{found.name}: fingerprint {found.fingerprint}; {'as it was kept' if same else kept}")


def look(found: "Look") -> None:
    """The pictures of a data set by class and part, and where its contact sheet is."""
    shown = table("class", "train", "validation", "test")
    for name, counts in found.counts.items():
        shown.add_row(escape(name), *(f"{count:,}" for count in counts.values()))
    console().print(shown)
    for note in found.notes:
        print(note)
    print(f"fingerprint: {found.fingerprint}")
    print(f"picture: {found.file}")
