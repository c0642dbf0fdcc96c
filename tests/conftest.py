"""What the tests share."""

import os
from collections.abc import Iterator

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported, which parts of PyTorch do


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small train faster on one thread; afterwards threads and subnormal numbers are as they were."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
