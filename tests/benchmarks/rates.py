"""What benchmarks of the trainer measure in their processes: rates of arrays and plain networks, the device's peaks."""

import dataclasses
import gc
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from typing import Any

import numpy as np
import torch

from sweep import plan
from sweep.common.host import cores
from sweep.data import splits as data_sets
from sweep.networks.conv.native.library import library
from sweep.networks.conv.shape import Shape, training_flops
from sweep.space.runs import Run
from sweep.training.batch_feed import ORDER_BLOCK
from sweep.training.device import exact_arithmetic, out_of_memory
from sweep.training.trainer import Trainer

Way = tuple[int, plan.MethodName]
"""Size of an array and method."""

RECIPE = Run(weight_init="truncated_normal", input_scaling="centered", steps=10_000_000)
STEPS = 1001
"""Of the sweeps that arrays are made for."""
SHARED = {"cpu": cores(), "native": cores(), "cuda": 16}
"""Processes with one network each that share the device."""
SLOWER = 3
"""Ways this many times slower than the best are not worth a second look on a GPU."""
BRIEF = 0.1
"""Share of a measurement's time that a look at a way takes there."""
FEW = 8
"""Steps between two waits for the device in such a look, and products or copies of the device's peaks."""
ROUNDS = 100_000
"""Of multiply-adds in one call, which is over in a fraction of a millisecond."""


def usual(run: Run, kind: plan.DeviceKind) -> tuple[int, plan.MethodName]:
    """Array size and method of a sweep of `STEPS`; the millions of steps here would make small arrays."""
    shape = Shape.of(run, (1, 28, 28), 10)
    return plan.array_size(dataclasses.replace(run, steps=STEPS), shape, kind), plan.method(run, kind)


def device_of(kind: plan.DeviceKind) -> str:
    """PyTorch's name of the device."""
    return "cuda" if kind == "cuda" else "cpu"


def needs(run: Run) -> tuple[float, float]:
    """Floating-point operations of a step of one network, and bytes that have to be moved at least.

    Every weight is read forward, backward and for its update, and written with its gradient; every activation and its
    gradient are written and read once.
    """
    shape = Shape.of(run, (1, 28, 28), 10)
    numbers = 5 * shape.parameter_count(True) + 4 * run.batch_size * shape.activations()
    return training_flops(run, shape) / run.steps, 4 * numbers


def together(measure: Callable[..., Any], processes: int, *arguments: Any) -> list[float]:
    """Sums of what `measure` gives in that many processes at once, each number by itself.

    Where one fails or dies, all are ended, since the others would wait for it for ever, and SystemExit says why.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    workers: dict[Any, Any] = {}
    try:
        for _ in range(processes):
            answers, answering = context.Pipe(duplex=False)
            workers[answers] = context.Process(target=_measured, args=(answering, barrier, measure, arguments))
            workers[answers].start()
            answering.close()  # with the worker's own, the last one: what ends with it says that it died
        found = list(_answers(workers))
    except BaseException:
        for worker in workers.values():
            worker.kill()
        raise
    finally:
        for worker in workers.values():
            worker.join()
    return [float(total) for total in np.sum(found, axis=0)]


def _answers(workers: dict[Any, Any]) -> Iterator[list[float]]:
    """What each worker sends, by its connection."""
    waiting = set(workers)
    while waiting:
        for answers in wait(list(waiting)):
            waiting.remove(answers)
            try:
                answer = answers.recv()
            except EOFError:
                workers[answers].join()
                sys.exit(f"a process that measured died with exit code {workers[answers].exitcode}")
            if isinstance(answer, str):
                sys.exit(answer)
            yield answer


def _measured(answering: Any, barrier: Any, measure: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        torch.set_num_threads(1)
        gc.disable()
        answering.send(measure(barrier, *arguments))
    except Exception as error:
        answering.send(f"{type(error).__name__}: {error}")


def steps_a_second(
    step: Callable[[], object], kind: str, barrier: Any, seconds: float, whole: int | None = None
) -> float:
    """The rate of the best of three parts, all processes at once; of fewer where one alone takes longer than `seconds`.

    A part is `whole` steps, or several times as many; on a GPU, which is waited for after them, a block of batches
    unless it is said.
    """
    finish = torch.cuda.synchronize if kind == "cuda" else lambda: None
    whole = whole or (ORDER_BLOCK if kind == "cuda" else 1)
    for _ in range(3):
        step()
    finish()
    barrier.wait()
    rates: list[float] = []
    begun = time.perf_counter()
    while len(rates) < 3 and (not rates or time.perf_counter() - begun < seconds):
        started, done = time.perf_counter(), 0
        while not done or time.perf_counter() - started < seconds / 3:
            for _ in range(whole):
                step()
            done += whole
            finish()
        rates.append(done / (time.perf_counter() - started))
    return max(rates)


def epoch_steps(trainer: Trainer) -> int:
    """Steps of so many whole blocks that an epoch's order is drawn in them, wherever they begin."""
    feed = trainer.batches.feed
    return -(-len(feed.places) // (feed.batch_size * ORDER_BLOCK)) * ORDER_BLOCK


def fused_trainer(kind: plan.DeviceKind, run: Run, size: int, method: plan.MethodName) -> Trainer:
    runs = [dataclasses.replace(run, seed=n // 2, bias=n % 2 == 0) for n in range(size)]
    return Trainer(runs, data_sets.load(run.dataset), device=device_of(kind), method=method)


def fused_rate(
    barrier: Any, kind: plan.DeviceKind, run: Run, size: int, method: plan.MethodName, seconds: float
) -> list[float]:
    """Model-steps a second of an array; no part is so short that it meets no new epoch."""
    with exact_arithmetic(run.precision):
        trainer = fused_trainer(kind, run, size, method)
        return [size * steps_a_second(trainer.step, kind, barrier, seconds, epoch_steps(trainer))]


def brief_rate(
    barrier: Any, kind: plan.DeviceKind, run: Run, size: int, method: plan.MethodName, seconds: float
) -> list[float]:
    """Model-steps a second of an array by a few of its steps, or of the drawing beside them where that is slower."""
    with exact_arithmetic(run.precision):
        trainer = fused_trainer(kind, run, size, method)
        steps = steps_a_second(trainer.step, kind, barrier, seconds, FEW)
        return [size * min(steps, drawn_steps_a_second(trainer))]


def drawn_steps_a_second(trainer: Trainer) -> float:
    """Steps that are drawn in a second where nothing else is done, over several epochs."""
    first = trainer.done // ORDER_BLOCK + 1
    blocks = range(first, first + 4 * epoch_steps(trainer) // ORDER_BLOCK)
    trainer.batches.feed.block(first * ORDER_BLOCK - ORDER_BLOCK)
    started = time.perf_counter()
    for block in blocks:
        trainer.batches.feed.block(block * ORDER_BLOCK)
    return len(blocks) * ORDER_BLOCK / (time.perf_counter() - started)


def fused_rates(barrier: Any, kind: plan.DeviceKind, run: Run, ways: list[Way], seconds: float) -> list[float]:
    """Rates by size and method, each measured twice with all others in between: machines speed up and slow down."""
    rounds = [[_fitting_rate(fused_rate, barrier, kind, run, way, seconds / 2) for way in ways] for _ in range(2)]
    return [max(rates) for rates in zip(*rounds, strict=True)]


def brief_rates(barrier: Any, kind: plan.DeviceKind, run: Run, ways: list[Way], seconds: float) -> list[float]:
    """Rates by size and method for a GPU, which has many ways, and slow ones that would take hours; 0 where none is.

    A method that is `SLOWER` than the best at one size is not tried at larger ones. Ways within that of the best of all
    are looked at twice.
    """
    rates: dict[Way, float] = {}
    left = {method for _, method in ways}
    for size in sorted({size for size, _ in ways}):
        here = [way for way in ways if way[0] == size and way[1] in left]
        rates |= {way: _fitting_rate(brief_rate, barrier, kind, run, way, seconds) for way in here}
        best = max((rates[way] for way in here), default=0.0)
        left -= {method for _, method in here if SLOWER * rates[size, method] <= best}
    best = max(rates.values())
    for way, rate in rates.items():
        if SLOWER * rate > best:
            rates[way] = max(rate, _fitting_rate(brief_rate, barrier, kind, run, way, seconds))
    return [rates.get(way, 0.0) for way in ways]


def _fitting_rate(
    measure: Callable[..., list[float]], barrier: Any, kind: plan.DeviceKind, run: Run, way: Way, seconds: float
) -> float:
    """What `measure` gives, or 0 where memory is short."""
    try:
        [rate] = measure(barrier, kind, run, *way, seconds)
    except (RuntimeError, MemoryError) as error:
        # Other processes would wait for this one, which alone has nothing to measure.
        if barrier.parties > 1 or not out_of_memory(error):
            raise
        error.__traceback__ = None  # it holds on to the array
        rate = 0.0
    gc.collect()  # which does not come by itself here
    if kind == "cuda":
        torch.cuda.empty_cache()
    return rate


def plain_rate(barrier: Any, kind: str, run: Run, seconds: float) -> list[float]:
    return [steps_a_second(plain_step(run, kind), kind, barrier, seconds)]


def graph_rate(barrier: Any, run: Run, seconds: float) -> list[float]:
    step = plain_step(run, "cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return [steps_a_second(graph.replay, "cuda", barrier, seconds)]


def plain_step(run: Run, kind: str) -> Callable[[], object]:
    """A step of one network as a user writes it, in float32, batches drawn on the device."""
    torch.backends.cudnn.allow_tf32 = False
    pictures, labels = data_sets.load(run.dataset).train
    x = (torch.tensor(pictures, device=kind).float() / 255 - 0.5).contiguous()
    y = torch.tensor(labels, device=kind)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, run.width, 5, stride=2, padding=2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(run.width, run.width, 5, stride=2, padding=2),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(49 * run.width, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 10),
    ).to(kind)
    optimizer = torch.optim.SGD(net.parameters(), lr=run.learning_rate)
    loss_of = torch.nn.CrossEntropyLoss()

    def step() -> None:
        chosen = torch.randint(len(y), (run.batch_size,), device=kind)
        optimizer.zero_grad()
        loss_of(net(x[chosen]), y[chosen]).backward()
        optimizer.step()

    return step


def peaks(barrier: Any, kind: str, seconds: float) -> list[float]:
    """Floating-point operations a second that the device does at most, and bytes a second of a large copy."""
    length = 2**28 if kind == "cuda" else 2**25
    arithmetic = _products(barrier, kind, seconds) if kind == "cuda" else _multiply_adds(barrier, seconds)
    source, target = torch.zeros(length, device=device_of(kind)), torch.zeros(length, device=device_of(kind))
    copies = steps_a_second(lambda: target.copy_(source), kind, barrier, seconds, FEW)
    return [arithmetic, 8.0 * length * copies]


def _multiply_adds(barrier: Any, seconds: float) -> float:
    """Those of multiply-adds in registers, or of a large matrix product where the native kernels are not there."""
    kernels = library()
    if kernels is None:
        return _products(barrier, "cpu", seconds)
    operations = kernels.multiply_adds(ROUNDS)
    return operations * steps_a_second(lambda: kernels.multiply_adds(ROUNDS), "cpu", barrier, seconds, FEW)


def _products(barrier: Any, kind: str, seconds: float) -> float:
    """Those of a large matrix product.

    On tensor cores a product as accurate as float32 takes three of TF32: the faster way counts.
    """
    side = 8192 if kind == "cuda" else 1536
    a, b = torch.randn(side, side, device=kind), torch.randn(side, side, device=kind)
    products = steps_a_second(lambda: torch.mm(a, b), kind, barrier, seconds, FEW)
    if kind == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        products = max(products, steps_a_second(lambda: torch.mm(a, b), kind, barrier, seconds, FEW) / 3)
    return 2.0 * side**3 * products


def print_row(cells: list[Any]) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)
