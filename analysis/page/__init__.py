"""The report as one HTML file that needs no network: sentences, interactive charts, a table of all cells.

Text is escaped here; what the charts and tables need travels as one JSON object, and `page.js` draws it.
"""

import html
import json
from importlib.resources import files
from typing import Any, Final

import pandas as pd
from plotly.offline import get_plotlyjs

from analysis.page.data import page_data
from analysis.record import Record
from analysis.wording import sentences
from analysis.wording.phrases import percent

__all__ = ["render"]

MOST_SHOWN: Final = 8
_HERE: Final = files("analysis.page")


def render(verdict: Record, pairs: pd.DataFrame, curves: pd.DataFrame | None = None) -> tuple[str, str | None]:
    """The page, and what was aggregated for it (None where every cell is shown).

    `verdict` is what `analyse` returns, `pairs` the table of `effects.pairs`, `curves` that of `arm_means.curves`.
    """
    data, said = page_data(verdict, pairs, curves)
    parts = {
        "title": html.escape(sentences.title(verdict)),
        "warnings": "".join(f'<p class="warning">{html.escape(one)}</p>' for one in sentences.warnings(verdict)),
        "answers": _answers(sentences.answers(verdict)),
        "summary": html.escape(sentences.summary(verdict)),
        "tuned": _answers(sentences.tuned(verdict)),
        "aggregated": f"<p>{html.escape(said)}</p>" if said else "",
        "margin": f"{verdict['margin']:g}",
        "confidence": percent(data["confidence"] / 100),
        "conditions": _items(sentences.conditions(verdict)),
        "origin": "".join(
            f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in sentences.origin(verdict)
        ),
        "citation": html.escape(sentences.citation(verdict)),
        "style": _asset("page.css"),
        "script": _asset("page.js"),
        "data": _json(data),
        "plotly": _script(get_plotlyjs()),
    }
    # One pass over the template: what is filled in is not searched for marks.
    pieces = _asset("page.html").split("%%")
    return "".join(parts[one] if n % 2 else one for n, one in enumerate(pieces)), said or None


def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _answers(lines: list[str]) -> str:
    """A list, folded after its first `MOST_SHOWN` lines."""
    shown, more = lines[:MOST_SHOWN], lines[MOST_SHOWN:]
    folded = f"<details><summary>{len(more)} more</summary><ul>{_items(more)}</ul></details>" if more else ""
    return f"<ul>{_items(shown)}</ul>{folded}"


def _items(lines: list[str]) -> str:
    return "".join(f"<li>{html.escape(line)}</li>" for line in lines)


def _json(data: Any) -> str:
    """JSON that stays inside its script element, whatever a name holds."""
    return json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _script(code: str) -> str:
    """Code that can stand in a script element: nothing in it may end or open one."""
    return code.replace("</script", "<\\/script").replace("<!--", "\\x3c!--")
