"""Compiles every kernel that training launches, for a GPU of compute capability 9.0 (an H100), with or without one.

    python tests/gpu/kernel_builds.py [--widths 1 4 16 64 256] [--json]

The launches are those of a real training step and a real evaluation, with all their sizes: where there is no GPU they
are compiled and not run. For each kernel stand the registers of a thread, the bytes of shared memory of a program, and
the bytes that a thread spills to memory. Exits with 1 where a kernel does not compile.
"""

import argparse
import dataclasses
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from sweep.data import splits as data_sets
from sweep.space.runs import Run
from sweep.training.device import exact_arithmetic
from sweep.training.trainer import Trainer

TARGET = GPUTarget("cuda", 90, 32)

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tf32": {"precision": "tf32"},
    "bfloat16": {"precision": "bfloat16"},
    "all": {"batch_norm": True, "dropout": 0.5, "optimizer": "adamw", "learning_rate": 0.001, "weight_decay": 0.1},
    "momentum": {"momentum": 0.9, "pooling": "max", "activation": "tanh"},
}


@dataclasses.dataclass(frozen=True)
class Build:
    """One kernel as it was compiled; `registers` of a thread, `shared` of a program and `spills` of a thread in bytes.

    Of a kernel that did not compile, `error` says why and the numbers are None.
    """

    kernel: str
    width: int
    settings: str
    registers: int | None
    shared: int | None
    spills: int | None
    seconds: float
    error: str | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--json", action="store_true", help="a list of objects instead of a table")
    given = parser.parse_args()
    reason = why_not()
    if reason:
        sys.exit(f"kernels cannot be compiled here: {reason}")
    found = [build for width in given.widths for build in builds(width)]
    if given.json:
        print(json.dumps([dataclasses.asdict(build) for build in found], indent=1))
    else:
        print(table(found))
    sys.exit(any(build.error for build in found))


def why_not() -> str | None:
    """Why nothing can be compiled in this process, or None."""
    if triton.knobs.runtime.interpret:
        return "TRITON_INTERPRET is set"
    try:
        assembler()
    except Exception as error:  # Triton raises RuntimeError or its own kind, by its version
        return f"no ptxas ({error})"
    return None


def assembler() -> str:
    """Path of the ptxas that Triton compiles with."""
    from triton.backends.nvidia.compiler import get_ptxas

    return str(get_ptxas(TARGET.arch).path)


def builds(width: int) -> Iterator[Build]:
    """Every kernel that arrays of this width launch, in all variants; those that several variants share come once."""
    done: set[str] = set()
    for name, settings in VARIANTS.items():
        run = Run(width=width, steps=2, **settings)
        yield from (Build(width=width, settings=name, **found) for found in _compiled(run, done))


def _compiled(run: Run, done: set[str]) -> list[dict[str, Any]]:
    """What the steps of a pair of such runs launch, less the programs in `done`, which grows by them."""
    found: list[dict[str, Any]] = []
    launch = JITFunction.run

    def compiled(kernel: JITFunction, *arguments: Any, grid: Any, warmup: bool, **constants: Any) -> Any:
        started = time.perf_counter()
        try:
            result = launch(kernel, *arguments, grid=grid, warmup=warmup or not torch.cuda.is_available(), **constants)
        except Exception as error:
            key = f"{kernel.__name__} {sorted((name, repr(value)) for name, value in constants.items())}"
            if key not in done:
                done.add(key)
                lines = str(error).strip().splitlines() or [type(error).__name__]
                numbers = {"registers": None, "shared": None, "spills": None}
                seconds = time.perf_counter() - started
                found.append({"kernel": kernel.__name__, **numbers, "seconds": seconds, "error": lines[-1]})
            return None
        if result.hash not in done:
            done.add(result.hash)
            found.append({"kernel": kernel.__name__, **resources(result), "seconds": time.perf_counter() - started})
        return result

    if not torch.cuda.is_available():
        triton.runtime.driver.set_active(
            SimpleNamespace(
                get_current_device=lambda: 0,
                get_current_stream=lambda device: 0,
                get_current_target=lambda: TARGET,
            )
        )
    JITFunction.run = compiled
    try:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with exact_arithmetic(run.precision):
            pair = [dataclasses.replace(run, bias=bias) for bias in (True, False)]
            trainer = Trainer(pair, data_sets.load(run.dataset), device=device, method="triton")
            trainer.array_step.take()
            trainer.evaluator.evaluate(*(part[:16] for part in trainer.data.test))
    finally:
        JITFunction.run = launch
    return found


def resources(kernel: Any) -> dict[str, int | None]:
    """Registers, shared memory and spills of a compiled kernel, as ptxas says them of its PTX."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(kernel.asm["ptx"])
        arch = re.search(r"^\.target (\w+)", source.read_text(), re.MULTILINE)
        assert arch is not None
        command = [assembler(), "-v", f"--gpu-name={arch[1]}", str(source), "-o", f"{folder}/kernel.cubin"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = re.search(r"Used (\d+) registers", said)
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
    return {
        "registers": int(registers[1]) if registers else None,
        "shared": kernel.metadata.shared,
        "spills": int(spilled[1]) + int(spilled[2]) if spilled else None,
    }


def table(found: list[Build]) -> str:
    """The builds as lines of text."""
    rows = [("kernel", "width", "settings", "registers", "shared", "spills", "seconds")]
    for build in found:
        numbers = ("-" if each is None else f"{each:,}" for each in (build.registers, build.shared, build.spills))
        row = (build.kernel, str(build.width), build.settings, *numbers, f"{build.seconds:.1f}")
        rows.append((*row, build.error) if build.error else row)  # type: ignore[arg-type]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    main()
