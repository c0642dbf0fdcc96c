"""What the tests share, and their marks: `unit` is what is neither `integration` nor `slow`."""

import gc
import os
import signal
from collections.abc import Iterator

import pytest
import torch
from support import unit_guard

import sweep.cluster.ray_environment  # noqa: F401  (Ray reads it while it is imported, by whichever test is first)
from sweep.networks.conv.native import build, location

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported, which parts of PyTorch do

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the cores have a process of tests each

# What a shell runs in the background ignores Ctrl-C and Ctrl-\, what nohup runs a lost terminal, and so does all that
# it starts: tests send these to what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGQUIT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)


def pytest_configure() -> None:
    """Compiles the native kernels, if there is a compiler, once: unit tests may not."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    try:
        build.build(build.HERE, build.variants())
    except build.NotBuilt as error:
        if location.to_be_compiled():
            raise pytest.UsageError(f"native kernels: {error}") from error


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Before tests are chosen by their marks."""
    for item in items:
        if not any(item.iter_markers("integration")) and not any(item.iter_markers("slow")):
            item.add_marker("unit")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What was loaded to collect the tests stays: no collection of garbage need look through it again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Fixtures included."""
    if item.get_closest_marker("unit") is None:
        return (yield)
    with unit_guard.unit_test():
        return (yield)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small train faster on one thread; afterwards threads and subnormal numbers are as they were."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
