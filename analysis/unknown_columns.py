"""Columns of a table that no setting bears: which name may be meant, and over which of them pairs would be pooled."""

import difflib
import re
from collections.abc import Collection, Iterable
from typing import Final

import pandas as pd

from sweep.common.errors import InputError
from sweep.space.runs import CELL, SETTINGS

NEAR: Final = 0.8
"""From which likeness on (of `difflib`) one name is taken for another that is misspelt."""

MOST_LEVELS: Final = 3

_OTHER_NAMES: Final = {
    "width": ("channels", "filters", "hidden_channels"),
    "depth": ("layers", "num_layers", "n_layers"),
    "bias": ("use_bias", "with_bias", "has_bias"),
    "batch_norm": ("bn", "norm", "use_batch_norm"),
    "learning_rate": ("lr",),
    "batch_size": ("batch", "bs"),
    "weight_decay": ("wd",),
    "steps": ("iterations", "iters", "train_steps", "updates"),
    "kernel_size": ("kernel",),
    "activation": ("act", "nonlinearity"),
    "hidden": ("hidden_size", "hidden_units", "hidden_dim"),
    "dataset": ("data",),
    "seed": ("random_seed", "random_state"),
    "test_accuracy": ("accuracy", "acc", "test_acc"),
}
"""What others call our settings."""


def meant(name: str, among: Iterable[str]) -> str | None:
    """The one of these settings that a column's name comes near, by its letters or as others call it."""
    known = {_letters(word): own for own in among for word in (*_OTHER_NAMES.get(own, ()), own)}
    for word in (name, re.split(r"[./]", name)[-1]):  # trackers write `params.width`
        if close := difflib.get_close_matches(_letters(word), known, 1, NEAR):
            return known[close[0]]
    return None


def hint(columns: Iterable[object], lacking: Collection[str]) -> str:
    """Which of the columns may be meant by what is lacking, as the end of a sentence; empty where none may."""
    found = [(str(name), own) for name in columns if (own := meant(str(name), lacking)) is not None]
    asked = "? Is ".join(f"{own} column {name!r}" for name, own in found)
    return f"; is {asked}?" if found else ""


def ask(rows: pd.DataFrame, unknown: list[str]) -> None:
    """Raises InputError where one of the `unknown` columns, which vary, may be a setting that the rows lack."""
    for name in unknown:
        own = meant(name, [one for one in CELL if one not in rows])
        if own is not None:
            raise InputError(
                f"column {name!r} varies and is no setting; did you mean {own}? "
                f"Rename it, or leave it out of account with --ignore {_quoted(name)}"
            )


def refuse_pooled(rows: pd.DataFrame, table: pd.DataFrame, unknown: list[str]) -> None:
    """Raises InputError where pairs of one cell differ in `unknown` columns, and so would be pooled over them.

    `table` is what `effects.matched` makes of the rows.
    """
    paired = table[table["effect"].notna()]
    pooled = {name: levels for name in unknown if (levels := _pooled(rows[name], paired))}
    if not pooled:
        return
    told = " and ".join(f"column {name!r} ({', '.join(levels)})" for name, levels in pooled.items())
    ignoring = " ".join(f"--ignore {_quoted(name)}" for name in pooled)
    raise InputError(
        f"pairs that differ in {told} would be pooled: what is no setting divides no cells. "
        f"Rename what stands for one, or pool them with {ignoring}"
    )


def _pooled(column: pd.Series, paired: pd.DataFrame) -> list[str]:
    """Some of the column's levels over which the pairs of a cell would be pooled; none where they would not.

    A column that sets the arms of a pair apart divides no pairs: it is a result, or one arm's own.
    """
    levels, texts = pd.factorize(column.map(str).astype(object), use_na_sentinel=False)
    level, other = (levels[paired[f"row_{arm}"].to_numpy()] for arm in ("bias", "no_bias"))
    same = level == other
    seen = pd.DataFrame({"cell": paired["cell"].to_numpy()[same], "level": level[same]}).drop_duplicates()
    cells = seen["cell"][seen["cell"].duplicated()]
    if cells.empty:
        return []
    found = [str(texts[one]) for one in seen.loc[seen["cell"] == cells.iloc[0], "level"]]
    return found[:MOST_LEVELS] + ["…"] * (len(found) > MOST_LEVELS)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[\w.-]+", name) else repr(name)


def check_ignored(rows: pd.DataFrame, ignore: Collection[str]) -> None:
    """Raises InputError where one of the columns to ignore is not there, or is a setting."""
    for name in ignore:
        if name not in rows:
            raise InputError(f"--ignore {_quoted(name)}: there is no such column ({', '.join(map(str, rows.columns))})")
        if name in SETTINGS or name in ("test_accuracy", "status"):
            raise InputError(f"--ignore {name}: what divides or makes pairs cannot be ignored")
