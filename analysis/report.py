"""The answer, written down: `verdict.json`, `report.html`, `report.md`, `effects.parquet`, the figures.

Each is written by itself: one that fails costs no other.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pandas as pd

from analysis import arm_means, effects
from analysis.record import Record
from analysis.run_table import checked, load_table
from analysis.study import analyse
from analysis.wording.captions import CAPTIONS
from analysis.wording.markdown import markdown
from sweep.common.atomic_files import replacing
from sweep.common.errors import InputError

__all__ = ["PartlyWritten", "analyse", "load_table", "markdown", "write"]

TEXTS: Final = ("effects.parquet", "report.html", "report.md", "verdict.json")


class PartlyWritten(Exception):
    """Parts of a report could not be written; the others were.

    `verdict` is what `write` would have returned, `failed` says why by part (a file's name, or a figure's without its
    suffix), and `written` names the parts that there are. What an earlier report left of those that failed is gone.
    """

    def __init__(self, verdict: Record, failed: dict[str, str], written: list[str]) -> None:
        reasons: dict[str, list[str]] = {}
        for part, reason in failed.items():
            reasons.setdefault(reason, []).append(part)
        super().__init__("; ".join(f"{', '.join(parts)}: {reason}" for reason, parts in reasons.items()))
        self.verdict, self.failed, self.written = verdict, failed, written


def write(
    rows: pd.DataFrame, out: Path | str, *, name: str, curves: pd.DataFrame | None = None, **options: Any
) -> Record:
    """Writes the report into the folder `out`, made if missing, and returns what `verdict.json` holds.

    `curves` (`run_id`, `step`, `validation_accuracy`) are the learning curves of rows with a `run_id`; `options` are
    those of `analyse`. Raises PartlyWritten, in the end, where a part could not be made or written.
    """
    out, rows = Path(out), checked(rows)
    verdict = analyse(rows, name=name, **options)
    pairs = effects.pairs(rows.drop(columns=list(options.get("ignore", ()))))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: the report's folder cannot be made: {error.strerror}; --out names another") from error
    parts = _Parts(out)
    bands = None
    with parts.part("curves"):
        bands = arm_means.band_table(curves, rows, verdict)
    with parts.part("effects.parquet"), replacing(out / "effects.parquet") as path:
        pairs.to_parquet(path, index=False)
    for figure in CAPTIONS:
        with parts.part(figure):
            from analysis import figures  # here alone: it loads matplotlib

            parts.figures += figures.draw(verdict, pairs, bands, out, [figure])
    with parts.part("report.html"):
        from analysis import page  # here alone: it loads plotly

        html, verdict["aggregated"] = page.render(verdict, pairs, bands)
        parts.text("report.html", html)
    with parts.part("report.md"):
        parts.text("report.md", markdown(verdict, parts.figures))
    # Last: whoever finds the verdict finds the rest.
    with parts.part("verdict.json"):
        parts.text("verdict.json", json.dumps(verdict, allow_nan=False, indent=2) + "\n")
    if parts.failed:
        raise PartlyWritten(verdict, parts.failed, parts.left())
    return verdict


class _Parts:
    """The parts of one report: the figures that were drawn, and why others failed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.figures: list[str] = []
        self.failed: dict[str, str] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What goes wrong inside, whatever it is, is remembered, and costs this part alone."""
        try:
            yield
        except Exception as error:
            words = error.strerror if isinstance(error, OSError) else None
            said = words or ": ".join(filter(None, [type(error).__name__, str(error).strip()]))
            self.failed.setdefault(name, said.splitlines()[0])

    def text(self, name: str, text: str) -> None:
        with replacing(self.folder / name) as path:
            path.write_text(text, encoding="utf-8")

    def left(self) -> list[str]:
        """The parts that were written. Where there are any, what an earlier report left of the others is removed."""
        written = [*self.figures, *(text for text in TEXTS if text not in self.failed)]
        stale = [f"{part}{kind}" for part in self.failed if written for kind in ("", ".svg", ".png")]
        for name in stale:
            with contextlib.suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)
        return written
