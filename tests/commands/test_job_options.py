"""A launch that runs as a job is given every option as here, but those that mean this machine."""

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from sweep import cli, options

LAUNCH: Any = getattr(typer.main.get_command(cli.app), "commands", {})["launch"]
OPTIONS: list[Any] = [parameter for parameter in LAUNCH.params if parameter.param_type_name == "option"]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_debug", False)  # --debug sets it
    for option in OPTIONS:
        monkeypatch.delenv(str(option.envvar), raising=False)


def parsed(*arguments: str) -> Any:
    return LAUNCH.make_context("launch", ["space.yaml", *arguments])


def spelt(option: Any) -> list[list[str]]:
    """The ways in which an option can be given: a flag by its names, any other with a value."""
    flags = [[name] for name in (*option.opts, *option.secondary_opts)]
    number = "1.5" if isinstance(option.default, float) or option.name == "gpus_per_array" else "1"
    return flags if option.is_flag else [[f"{option.opts[0]}={number}"]]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_of_launch_reaches_a_job_or_is_marked_as_of_this_machine(option: Any) -> None:
    for given in spelt(option):
        assert options.given(parsed(*given)) == ([] if option.name in options.OF_THIS_MACHINE else given)


def test_what_is_marked_are_options_of_launch() -> None:
    assert {option.name for option in OPTIONS} >= options.OF_THIS_MACHINE == {"address", "install", "debug"}


def test_the_job_parses_what_was_given_here() -> None:
    here = parsed(*(word for option in OPTIONS for word in spelt(option)[0]))
    there = parsed(*options.given(here))
    differing = {name for name in here.params if here.params[name] != there.params[name]}
    assert differing == options.OF_THIS_MACHINE - {"debug"}  # which is no value of a launch


def test_what_was_not_given_is_left_to_the_cluster_and_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert options.given(parsed()) == []
    assert options.given(parsed("--retries=2")) == ["--retries=2"]  # as by default, but it was said
    monkeypatch.setenv("SWEEP_CHECKPOINT_SECONDS", "7")
    assert options.given(parsed()) == ["--checkpoint-seconds=7.0"]


def test_a_launch_sends_its_options_to_the_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    class Cluster:
        def launch(self, *arguments: Any) -> tuple[int, None]:
            sent.extend(arguments)
            return 3, None

    monkeypatch.setattr(cli, "_cluster", lambda where: Cluster())
    space = tmp_path / "small.yaml"
    space.write_text("{settings: {steps: 3}, axes: {seed: 2}}")
    said = ["--store=s3://bucket/prefix", "--gpus-per-array=0.5", "--no-report", "--json"]
    done = CliRunner().invoke(cli.app, ["launch", str(space), "--address", "http://there", "--no-install", *said])
    assert done.exit_code == 3, done.output
    files, [loaded], store, given, where, _ = sent
    assert (files, loaded.name, store, given) == ([space], "small", "s3://bucket/prefix", said)
    assert where.address == "http://there" and where.install is False
