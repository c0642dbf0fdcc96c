"""What the README shows works as it stands."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from sweep import cli
from sweep.space import search_space
from sweep.space.runs import SETTINGS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The README's code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_search_space_shown_is_one(text: str) -> None:
    assert search_space.parse(text.encode(), Path("shown.yaml")).run_count() > 0


@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_lines_run_on_a_table_of_rows(code: str, tmp_path: Path) -> None:
    rows = (
        "import numpy as np, pandas as pd; r = np.random.default_rng(0)\n"
        "pd.DataFrame([{'width': w, 'bias': b, 'seed': s, 'test_accuracy': r.uniform(0.8, 0.9)}"
        " for w in (1, 4) for b in (True, False) for s in range(8)]).to_parquet('width.parquet')\n"
    )
    done = subprocess.run([sys.executable, "-c", rows + code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "my-report" / "report.md").exists()


def test_every_setting_stands_in_the_table_of_settings() -> None:
    settings = README[README.index("| setting | levels") : README.index("A mistake is answered")]
    assert set(SETTINGS) <= set(re.findall(r"`(\w+)`", settings))


def commands() -> list[str]:
    """Every call of sweep that the README shows, in a block or in the running text."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL))
    found = [re.sub(r"\s+#.*", "", each) for each in [*lines, *inline]]
    return sorted({each for each in found if re.match(r"sweep [a-z]+ ", each) and "DIR" not in each})


@pytest.mark.parametrize("call", commands())
def test_every_command_shown_parses_and_names_files_that_are_there(call: str) -> None:
    name, *arguments = shlex.split(call)[1:]
    known = getattr(typer.main.get_command(cli.app), "commands", {})
    assert name in known
    expanded = [str(path) for each in arguments for path in (sorted(ROOT.glob(each)) if "*" in each else [each])]
    given = known[name].make_context(name, expanded).params
    assert all((ROOT / path).exists() for path in given.get("spaces", ()) if str(path) != "SPACE")


def test_every_file_that_is_linked_is_there() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links and all((ROOT / link).exists() for link in links)
