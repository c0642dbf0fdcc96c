"""What the README shows works as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sweep import search_space
from sweep.runs import SETTINGS

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


def test_every_command_shown_is_one_that_there_is() -> None:
    commands = {line.split()[1] for block in blocks("sh") for line in block.splitlines() if line.startswith("sweep ")}
    done = subprocess.run([sys.executable, "-m", "sweep", "--help"], capture_output=True, text=True, check=True)
    assert commands and all(command in done.stdout for command in commands)


def test_every_file_that_is_linked_is_there() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links and all((ROOT / link).exists() for link in links)
