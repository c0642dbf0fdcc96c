"""Help that fits a screen and a pipe, completion, and a Ctrl-C that comes early."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from sweep import cli
from sweep.common.errors import Terminated
from sweep.kubernetes import OVERLAYS

COMMANDS: dict[str, Any] = getattr(typer.main.get_command(cli.app), "commands", {})
CALLS = ([], *([name] for name in COMMANDS))

AS_SWEEP = "import sys; sys.argv[0] = 'sweep'; from sweep.__main__ import main; main()"


def help_of(call: list[str], columns: int, **environment: str) -> str:
    done = CliRunner().invoke(cli.app, [*call, "--help"], env={"COLUMNS": str(columns), **environment})
    assert done.exit_code == 0, done.output
    return done.stdout


def words(text: str) -> str:
    """Text in one line, without the frames of panels."""
    return " ".join(re.sub(r"[^\x00-\x7f…]", " ", text).split())


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("call", CALLS, ids=lambda call: " ".join(call) or "sweep")
def test_help_fits_the_screen_and_nothing_of_it_is_cut(call: list[str], columns: int) -> None:
    shown = help_of(call, columns)
    assert max(map(len, shown.splitlines())) <= columns
    assert "…" not in shown and "\x1b" not in shown
    command = COMMANDS[call[0]] if call else typer.main.get_command(cli.app)
    for parameter in command.params:
        assert f" {parameter.opts[0]} " in shown or parameter.param_type_name == "argument"
        assert (parameter.help or "") in words(shown), parameter.name
        if isinstance(parameter.envvar, str) and parameter.show_envvar:
            assert f"[env var: {parameter.envvar}]" in words(shown)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_line_of_a_command_s_help_is_a_sentence_and_every_option_stands_in_a_panel(name: str) -> None:
    command = COMMANDS[name]
    assert command.rich_help_panel and all(text.endswith(".") for text in command.help.split("\n\n"))
    for parameter in command.params:
        assert re.fullmatch(r"[A-Z].*\.", parameter.help), parameter.name
        assert not re.match(r"Of |As ", parameter.help), parameter.name
        assert parameter.name == "debug" or parameter.param_type_name == "argument" or parameter.rich_help_panel


def test_the_options_of_a_launch_are_grouped() -> None:
    panels = re.findall(r"─ (\w+) ─", help_of(["launch"], 100))
    assert panels == ["Arguments", "Options", "Where", "Faults", "Output"]


@pytest.mark.integration
@pytest.mark.parametrize("call", CALLS, ids=lambda call: " ".join(call) or "sweep")
def test_help_is_shown_in_plain_ascii_too(call: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sweep", *call, "--help"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "100"},
    )
    assert done.returncode == 0 and b"?" not in done.stdout.replace(b"size on?", b"")
    assert done.stdout.isascii() and b"--debug" in done.stdout


def complete(line: str, cursor: int) -> subprocess.CompletedProcess[str]:
    """What a shell is told that asks how to go on, and what of ours was imported for it."""
    heavy = {"ray", "torch", "pandas", "numpy", "scipy", "pyarrow"}
    program = (
        f"import sys\ntry:\n    {AS_SWEEP}\nfinally:\n    print(sorted({heavy} & set(sys.modules)), file=sys.stderr)"
    )
    asked = {"_SWEEP_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(cursor)}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | asked)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("line", "cursor", "answers"),
    [
        ("sweep la", 1, {"launch"}),
        ("sweep launch --ret", 2, {"--retries"}),
        ("sweep kubernetes --overlay ", 3, set(OVERLAYS)),
        ("sweep kubernetes --overlay gp", 3, {"gpu", "gpu-spot"}),
    ],
)
def test_completion_answers_and_imports_nothing_heavy(line: str, cursor: int, answers: set[str]) -> None:
    done = complete(line, cursor)
    assert set(done.stdout.split()) == answers
    assert done.stderr == "[]\n"


@pytest.mark.integration
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_shown_and_installed_for_the_shell_in_use(shell: str, tmp_path: Path) -> None:
    detected = f"import shellingham; shellingham.detect_shell = lambda *_: ({shell!r}, '/bin/{shell}')\n"
    for option in ("--show-completion", "--install-completion"):
        done = subprocess.run(
            [sys.executable, "-c", detected + AS_SWEEP, option],
            capture_output=True,
            text=True,
            env=os.environ | {"HOME": str(tmp_path)},
        )
        assert done.returncode == 0, done.stderr
        assert ("_SWEEP_COMPLETE" in done.stdout) == (option == "--show-completion")
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert any("_SWEEP_COMPLETE" in text for text in written)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, Terminated])
def test_an_interrupted_command_is_one_line(
    interruption: type[KeyboardInterrupt], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*_: object) -> None:
        raise interruption

    monkeypatch.setattr("sweep.commands.status.status", interrupted)
    done = CliRunner().invoke(cli.app, ["status", "--store", str(tmp_path)])
    assert (done.exit_code, done.output) == (130 if interruption is KeyboardInterrupt else 143, "Interrupted.\n")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("module", "number"),
    [
        *((module, signal.SIGINT) for module in ("typer", "sweep.cluster.address", "pandas", "pyarrow", "torch")),
        *(("sweep.plan", number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)),
        ("typer", signal.SIGTERM),
    ],
)
def test_a_signal_while_modules_are_imported_is_one_line(module: str, number: signal.Signals, tmp_path: Path) -> None:
    program = f"""
import importlib.abc, os, signal, sys

class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {int(number)})

sys.meta_path.insert(0, Interrupting())
signal.signal(signal.SIGINT, signal.default_int_handler)
from sweep.__main__ import main
main()
"""
    space = tmp_path / "small.yaml"
    space.write_text("{settings: {steps: 1, dataset: digits}, axes: {seed: 2}}")
    done = subprocess.run(
        [sys.executable, "-c", program, "plan", str(space), "--store", str(tmp_path / "results")],
        capture_output=True,
        text=True,
    )
    # Python ends itself by SIGINT if it came within an exec().
    assert done.returncode in (128 + number, *([-number] if number == signal.SIGINT else []))
    assert (done.stdout, done.stderr) == ("", "Interrupted.\n")
