"""What the tests share."""

import os
import signal
from collections.abc import Iterator

import pytest
import torch

import sweep.cluster.ray_environment  # noqa: F401  (Ray reads it while it is imported, by whichever test is first)

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported, which parts of PyTorch do

# A shell has what it runs in the background ignore Ctrl-C, and all that this starts: tests send it to what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small train faster on one thread; afterwards threads and subnormal numbers are as they were."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
