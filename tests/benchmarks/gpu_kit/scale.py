"""How much is measured on a device of each kind: on a GPU all that is wanted, on a CPU as little as tests the kit."""

import dataclasses
from collections.abc import Mapping
from typing import Final

from sweep.plan import DeviceKind


@dataclasses.dataclass(frozen=True)
class Scale:
    """Sizes of every section. Widths come in the order of their weight: what time does not suffice for is the last.

    `limits` are seconds by section, in the order in which these run.
    """

    kind: DeviceKind
    limits: Mapping[str, float]
    build_widths: tuple[int, ...]
    tests: str
    """What is run of the tests, by pytest's `-k`; empty: all."""

    test_processes: int
    kernel_widths: tuple[int, ...]
    profiled_steps: int
    pairs: int
    agreement_widths: tuple[int, ...]
    agreement_steps: int
    size_widths: tuple[int, ...]
    sizes: tuple[int, ...]
    replays: int
    """Steps that are timed for each array size."""

    trainer_widths: tuple[int, ...]
    setting_width: int
    """Width at which variants and precisions are measured."""

    trainer_seconds: float
    """Of each measurement of the trainer's table."""

    launch_runs: int
    launch_width: int
    launch_steps: int
    plain_sample: int
    """Trials of plain Ray Tune."""

    trials_per_device: int
    """Trials of plain Ray Tune that share a GPU; on a CPU each has a core."""


SCALES: Final[dict[DeviceKind, Scale]] = {
    "cuda": Scale(
        kind="cuda",
        limits={
            "compile": 30,
            "tests": 65,
            "kernels": 40,
            "agreement": 25,
            "sizes": 110,
            "trainer": 85,
            "launch": 120,
        },
        build_widths=(1, 4, 16, 64, 256),
        tests="",
        test_processes=14,
        kernel_widths=(16, 4, 64, 1, 256),
        profiled_steps=5,
        pairs=64,
        agreement_widths=(4, 16),
        agreement_steps=300,
        size_widths=(16, 4, 64, 1, 256, 32, 8, 2, 128),
        sizes=(2048, 1024, 512, 256, 128, 64, 32, 8, 2),
        replays=7,
        trainer_widths=(4, 16, 64, 1, 256),
        setting_width=16,
        trainer_seconds=0.6,
        launch_runs=16_384,
        launch_width=16,
        launch_steps=1001,
        plain_sample=16,
        trials_per_device=16,
    ),
    "cpu": Scale(
        kind="cpu",
        limits={
            "compile": 120,
            "tests": 120,
            "kernels": 60,
            "agreement": 60,
            "sizes": 60,
            "trainer": 120,
            "launch": 240,
        },
        build_widths=(4,),
        tests="refuses or bfloat16_rounds",
        test_processes=1,
        kernel_widths=(4, 1),
        profiled_steps=2,
        pairs=4,
        agreement_widths=(4,),
        agreement_steps=60,
        size_widths=(4, 1),
        sizes=(8, 4, 2),
        replays=3,
        trainer_widths=(4,),
        setting_width=4,
        trainer_seconds=0.15,
        launch_runs=8,
        launch_width=4,
        launch_steps=101,
        plain_sample=2,
        trials_per_device=1,
    ),
}
