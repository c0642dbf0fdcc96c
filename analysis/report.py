"""The answer, written down: `verdict.json`, `report.html`, `report.md`, `effects.parquet`, the figures."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import effects
from analysis.effects import Record
from analysis.run_table import checked, load_table
from analysis.study import analyse
from analysis.wording.markdown import markdown
from sweep.common.atomic_files import replacing
from sweep.common.errors import InputError

__all__ = ["analyse", "load_table", "markdown", "write"]


def write(
    rows: pd.DataFrame, out: Path | str, *, name: str, curves: pd.DataFrame | None = None, **options: Any
) -> Record:
    """Writes the report into the folder `out`, made if missing, and returns what `verdict.json` holds.

    `curves` (`run_id`, `step`, `validation_accuracy`) are the learning curves of rows with a `run_id`; `options` are
    those of `analyse`.
    """
    from analysis import figures, page  # here alone: they load matplotlib and plotly

    out, rows = Path(out), checked(rows)
    verdict = analyse(rows, name=name, **options)
    pairs, bands = effects.pairs(rows), figures.band_table(curves, rows, verdict)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: the report's folder cannot be made: {error.strerror}") from error
    html, verdict["aggregated"] = page.render(verdict, pairs, bands)
    answer = json.dumps(verdict, allow_nan=False, indent=2) + "\n"
    with replacing(out / "effects.parquet") as path:
        pairs.to_parquet(path, index=False)
    drawn = figures.draw(verdict, pairs, bands, out)
    for file, text in {
        "report.md": markdown(verdict, drawn),
        "report.html": html,
        # Last: whoever finds the verdict finds the rest.
        "verdict.json": answer,
    }.items():
        with replacing(out / file) as path:
            path.write_text(text, encoding="utf-8")
    return verdict
