"""What the kit has found so far: one JSON file that is whole at any moment."""

import dataclasses
import json
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from sweep.common.atomic_files import replacing

NAME: Final = "results.json"

Record = dict[str, Any]
"""One number: `what`, `value`, `unit`, its labels (`width`, `method`, …), and `error` where `value` is None."""


@dataclasses.dataclass
class SectionResult:
    """What became of a section: `status` is ok, failed or timeout, and running until it has ended."""

    status: str = "running"
    seconds: float | None = None
    limit_seconds: float | None = None
    error: str | None = None
    results: list[Record] = dataclasses.field(default_factory=list)

    @property
    def missing(self) -> int:
        """Numbers that did not come out."""
        return sum(record["value"] is None for record in self.results)


class Results:
    """The results of one call of the kit, written to `folder` whenever something is added.

    `about` says on what device, with which versions, when, and of which commit.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / NAME
        self.about = about
        self.sections: dict[str, SectionResult] = {}
        self.write()

    def begin(self, name: str, limit_seconds: float) -> SectionResult:
        """A section that begins now."""
        self.sections[name] = SectionResult(limit_seconds=limit_seconds)
        self.write()
        return self.sections[name]

    def add(self, name: str, lines: Iterable[dict[str, Any]]) -> None:
        """Adds what a section has said: its records, and facts of the device."""
        for line in lines:
            if "facts" in line:
                self.about |= line["facts"]
            else:
                self.sections[name].results.append(line["record"])
        self.write()

    def end(self, name: str, status: str, seconds: float, error: str | None) -> None:
        """A section has ended; one that found nothing at all has failed, however it ended."""
        section = self.sections[name]
        section.status, section.seconds, section.error = status, seconds, error
        if status == "ok" and section.missing == len(section.results):
            section.status = "failed"
            section.error = next((record["error"] for record in section.results), "it found nothing")
        self.write()

    @property
    def ok(self) -> bool:
        """Whether every section ended well."""
        return all(section.status == "ok" for section in self.sections.values())

    def write(self) -> None:
        """Writes the file, whole or not at all."""
        found = {name: dataclasses.asdict(section) for name, section in self.sections.items()}
        text = json.dumps({**self.about, "sections": found}, indent=1, allow_nan=False)
        with replacing(self.path) as temporary:
            temporary.write_text(text + "\n")


def commit(checkout: Path) -> str | None:
    """The commit of a checkout, with a "+" where files were changed since; None where there is no git."""
    git = ["git", "-C", str(checkout)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if head.returncode:
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def about(kind: str, checkout: Path) -> dict[str, Any]:
    """What is known before a section has run; the facts of the device come from the sections."""
    return {"kind": kind, "date": time.strftime("%Y-%m-%d"), "commit": commit(checkout)}
