"""The process of a launch's own Ray: starts it, says where it is, and ends it when its launch does.

Its arguments are a folder for Ray's files, and the CPUs and GPUs that Ray is to have. One line of JSON on standard
output holds the `address`, or the `error`. Standard input is closed by the end of the launch, whatever ends it.
"""

import sweep.cluster.ray_environment  # noqa: F401  # isort: skip  (Ray reads it while it is imported)

import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Final

from sweep.cluster import ray_internals
from sweep.common.host import descendants, is_alive, kill_all

PRELOADED: Final = ("sweep.cluster.trial", "sweep.training.trainer", "sweep.training.checkpoint")
"""What workers import while nothing waits for them yet."""


def main() -> None:
    """The program."""
    folder, cpus, gpus = sys.argv[1:]
    watching = threading.Thread(target=_end_with_the_launch, daemon=True)
    watching.start()
    try:
        answer = {"address": _start(Path(folder), int(cpus), int(gpus))}
    except Exception as error:
        answer = {"error": str(error) or type(error).__name__}
    print(json.dumps(answer), flush=True)
    watching.join()


def _start(folder: Path, cpus: int, gpus: int) -> str:
    """A Ray with these resources, its files in `folder`; its address."""
    import ray

    with ray_internals.only_what_trains():
        ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=gpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            **ray_internals.files_in(folder),
            **ray_internals.preloading(PRELOADED),
        )
    return str(ray.get_runtime_context().gcs_address)


def _end_with_the_launch() -> None:
    os.read(0, 1)
    while left := set(filter(is_alive, descendants([os.getpid()]))):  # one may just be starting another
        kill_all(left)
    os._exit(0)
