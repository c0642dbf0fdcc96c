"""What the READMEs show works as it stands."""

import re
import shlex
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest
import typer
from support import settings_tables

from sweep import cli, plan
from sweep.commands import plan_text
from sweep.networks.conv.shape import training_flops
from sweep.space import search_space
from sweep.space.runs import SETTINGS

ROOT = Path(__file__).parent.parent
READMES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in ROOT.glob("README.md")}
READMES |= {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("[a-z]*/README.md"))
}
FRONT, SPACES = READMES["README.md"], READMES["search_spaces/README.md"]
INVENTED = {"SPACE", "mine.yaml"}
"""Search spaces that a reader has, or writes while reading."""


def blocks(language: str, readme: str) -> list[str]:
    """A README's code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", READMES[readme], re.DOTALL)


def all_blocks(language: str) -> list[object]:
    """The code in a language of all READMEs, each block under the name of its file."""
    found = [(readme, block) for readme in READMES for block in blocks(language, readme)]
    return [pytest.param(block, id=f"{readme}-{number}") for number, (readme, block) in enumerate(found)]


def test_all_readmes_are_held() -> None:
    rooms = {"", "analysis/", "k8s/", "search_spaces/", "sweep/", "tests/"}
    assert set(READMES) == {f"{room}README.md" for room in rooms}


def test_people_finish_the_front_page_which_leads_to_all_others() -> None:
    assert len(FRONT.splitlines()) <= 180
    assert all(f"]({readme})" in FRONT for readme in READMES if readme != "README.md")


@pytest.mark.parametrize("text", all_blocks("yaml"))
def test_every_search_space_shown_is_one(text: str) -> None:
    assert search_space.parse(text.encode(), Path("shown.yaml")).run_count() > 0


@pytest.mark.integration
@pytest.mark.parametrize("code", all_blocks("python"))
def test_the_python_lines_run_on_a_table_of_rows(code: str, tmp_path: Path) -> None:
    rows = (
        "import numpy as np, pandas as pd; r = np.random.default_rng(0)\n"
        "pd.DataFrame([{'width': w, 'bias': b, 'seed': s, 'test_accuracy': r.uniform(0.8, 0.9)}"
        " for w in (1, 4) for b in (True, False) for s in range(8)]).to_parquet('width.parquet')\n"
    )
    done = subprocess.run([sys.executable, "-c", rows + code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "my-report" / "report.md").exists()


def test_code_of_each_kind_is_found() -> None:
    assert all(all_blocks(language) for language in ("yaml", "python", "sh", "console"))


def test_the_plan_shown_is_that_of_the_search_space_shown() -> None:
    [text] = blocks("yaml", "README.md")
    space = search_space.parse(text.encode(), Path("mine.yaml"))
    [output] = [block for block in blocks("console", "README.md") if f"sweep plan {space.name}.yaml" in block]
    assert "\n".join([*plan_text.grid(space), "", f"In the store: none of {space.run_count()} runs."]) in output
    arrays = plan.arrays_of_all([space], "native")
    size = plan_text.flops(sum(len(array) * training_flops(array.cell, array.shape) for array in arrays))
    parameters = plan_text.number(sum(array.parameter_count() for array in arrays))
    runs, count = f"{space.run_count()} runs", f"{len(arrays)} arrays"
    assert f"To train: {runs} in {count}, {size}, {parameters} parameters in all.\n" in output
    assert f"{space.run_count()} of {runs} to train, in {count}\n" in output


@pytest.mark.parametrize("name", ["settings", "data_sets"])
def test_the_tables_of_settings_and_of_data_sets_are_what_the_code_says(name: str) -> None:
    table = {"settings": settings_tables.settings, "data_sets": settings_tables.data_sets}[name]()
    assert settings_tables.written_into(SPACES, **{name: table}) == SPACES, (
        "python tests/support/settings_tables.py remakes it"
    )
    assert table in SPACES


def test_every_setting_stands_in_the_table_of_settings() -> None:
    begin, end = (mark.format("settings") for mark in settings_tables.MARKS)
    settings = SPACES[SPACES.index(begin) : SPACES.index(end)]
    assert set(SETTINGS) <= set(re.findall(r"`(\w+)`", settings))


def commands() -> list[str]:
    """Every call of sweep that a README shows, in a block, with its output, or in the running text."""
    found = []
    for readme, text in READMES.items():
        lines = [line for block in blocks("sh", readme) for line in re.sub(r"\\\n", " ", block).splitlines()]
        shown = [line for block in blocks("console", readme) for line in block.splitlines()]
        inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        typed = [line.removeprefix("$ ") for line in shown if line.startswith("$ ")]
        found += [re.sub(r"\s+#.*", "", each) for each in [*lines, *typed, *inline]]
    unfinished = ("DIR", "…")
    return sorted(
        {each for each in found if re.match(r"sweep [a-z]+ ", each) and not any(word in each for word in unfinished)}
    )


@pytest.mark.parametrize("call", commands())
def test_every_command_shown_parses_and_names_files_that_are_there(call: str) -> None:
    name, *arguments = takewhile(lambda word: word not in ("|", ">"), shlex.split(call)[1:])
    known = getattr(typer.main.get_command(cli.app), "commands", {})
    assert name in known
    expanded = [str(path) for each in arguments for path in (sorted(ROOT.glob(each)) if "*" in each else [each])]
    given = known[name].make_context(name, expanded).params
    assert all((ROOT / path).exists() for path in given.get("spaces", ()) if str(path) not in INVENTED)


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("readme", READMES)
def test_every_file_and_heading_that_is_linked_is_there(readme: str) -> None:
    links = re.findall(r"\]\((?!http)([^)]+)\)", READMES[readme])
    assert links or readme.startswith("k8s")
    for link in links:
        path, _, anchor = link.partition("#")
        target = (ROOT / readme).parent / path if path else ROOT / readme
        assert target.exists(), link
        if anchor:
            prose = re.sub(r"```.*?```", "", target.read_text(encoding="utf-8"), flags=re.DOTALL)
            assert anchor in map(slug, re.findall(r"^#+ (.+)$", prose, re.MULTILINE)), link


@pytest.mark.parametrize("readme", READMES)
def test_every_path_of_the_project_that_is_named_is_there(readme: str) -> None:
    prose = re.sub(r"```(?!mermaid|sh).*?```", "", READMES[readme], flags=re.DOTALL)
    named = re.findall(r"(?<![\w/.-])(?:sweep|analysis|tests|search_spaces|k8s)/[\w./*-]*[\w/*]", prose)
    missing = {path for path in named if not any(ROOT.glob(path.rstrip("/")))}
    assert missing <= {"search_spaces/mine.yaml", "sweep/spot"}  # the second is a label of Kubernetes' nodes
