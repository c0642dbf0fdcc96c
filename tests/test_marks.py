"""A test that starts a process is no unit test, whatever it starts it with."""

import multiprocessing
import os
import subprocess
from collections.abc import Callable

import pytest
from support import unit_guard

STARTS: dict[str, Callable[[], object]] = {
    "run": lambda: subprocess.run(["true"]),
    "in a shell": lambda: subprocess.getoutput("true"),
    "system": lambda: os.system("true"),
    "fork": os.fork,
    "posix_spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "multiprocessing, spawned": lambda: multiprocessing.get_context("spawn").Process(target=print).start(),
    "multiprocessing, forked": lambda: multiprocessing.get_context("fork").Process(target=print).start(),
}


@pytest.mark.skipif(not unit_guard.WORKS, reason="Triton starts compilers here")
@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_a_unit_test_that_starts_a_process_fails(start: Callable[[], object]) -> None:
    with pytest.raises(pytest.fail.Exception, match="mark it integration"):
        start()


@pytest.mark.integration
@pytest.mark.parametrize("start", ["run", "in a shell", "system"])
def test_an_integration_test_may_start_one(start: str) -> None:
    assert STARTS[start]() is not None


def test_programs_that_say_something_about_the_machine_may_be_asked() -> None:
    assert subprocess.run(["uname"], capture_output=True, check=True).stdout
