"""Divides a search space into arrays, and says which runs are missing. Pure Python: imports neither torch nor ray.

A fixed rule partitions the whole grid, before the store is read: blocks of absolute seed numbers within a cell; where
such a block would leave a device half empty, cells whose runs share a program are joined. Adding seeds or levels adds
arrays and leaves the others as they are.
"""

import dataclasses
import functools
import itertools
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from sweep.common.errors import InputError
from sweep.networks.conv.native import costs
from sweep.networks.conv.shape import MethodName, Shape, training_flops
from sweep.space.catalogue import Facts
from sweep.space.runs import Identities, Program, Run, array_id, program
from sweep.space.search_space import SearchSpace

DeviceKind = Literal["cpu", "native", "cuda"]
"""What arrays are planned for; `native` is a CPU where the native kernels are at hand."""
Members = tuple[tuple[bool, int], ...]
"""(bias, seed) of each run."""
Pictures = tuple[str, int, int | None]
"""Data set, split and image size."""


class Saturation(NamedTuple):
    """One row of the table: up to this width, this many runs fill the device when computed by this method."""

    width: int
    method: MethodName
    runs: int


TABLE: Final = Path(__file__).with_name("saturation.json")
"""Methods and array sizes by device and width, measured and rewritten by `tests/benchmarks/trainer.py --write`.

The part for GPUs may also come from the results of `tests/benchmarks/gpu.py`.

It is a table and not a timing at run time because the planning machine may have no GPU, and because the same run on the
same machine has to give the same row.
"""

SATURATION: Final[dict[DeviceKind, tuple[Saturation, ...]]] = {
    kind: tuple(Saturation(**row) for row in part["rows"]) for kind, part in json.loads(TABLE.read_text()).items()
}

OVERHEAD: Final = 10_000_000
"""Cost of a run's step besides its multiplications, in floating-point operations; fitted on a CPU, widths 1 to 64."""

MEMORY: Final[dict[DeviceKind, int]] = {"cpu": 2**30, "native": 2**30, "cuda": 24 * 2**30}
"""Most bytes of an array, counted as in `Array.bytes`: a worker stays under 2 GB, and a GPU of 40 GB is not filled."""

LONGEST: Final[dict[DeviceKind, int]] = {"cpu": 6 * 10**12, "native": 6 * 10**12, "cuda": 6 * 10**14}
"""Most work of an array of several pairs, counted as in `Array.work`: about two minutes on a core, one on a GPU.

It bounds how long devices stand idle at the end of a sweep, and how much a lost worker costs.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Array:
    """Runs that train together, by cell: what the runs of a cell share, and each member's (bias, seed).

    `shape` is the shape of their networks, and `method` how they are computed.
    """

    array_id: str
    parts: tuple[tuple[Run, Members], ...]
    run_ids: tuple[str, ...]
    shape: Shape
    method: MethodName

    def __len__(self) -> int:
        return len(self.run_ids)

    def runs(self) -> list[Run]:
        """The members as records, in the order of `run_ids`."""
        return [
            dataclasses.replace(cell, bias=bias, seed=seed) for cell, members in self.parts for bias, seed in members
        ]

    @property
    def cell(self) -> Run:
        """The settings that all runs share; those that may differ are the first cell's."""
        return self.parts[0][0]

    @property
    def pictures(self) -> Pictures:
        """What its runs are trained on."""
        return self.cell.dataset, self.cell.split, self.cell.image_size

    @property
    def work(self) -> int:
        """How long it takes compared to others, in floating-point operations of PyTorch: orders and weighs arrays."""
        return len(self) * _work(self.cell, self.shape, self.method)

    @property
    def bytes(self) -> int:
        """Memory that it needs on its device, in bytes; an estimate on the high side."""
        if self.method == "native":
            return costs.array_bytes(self.cell, self.shape, len(self))
        return len(self) * array_bytes(self.cell, self.shape)

    def parameter_count(self) -> int:
        """Trainable parameters of all its runs."""
        counts = {bias: self.shape.parameter_count(bias) for bias in (True, False)}
        return sum(counts[bias] for _, members in self.parts for bias, _ in members)

    def without(self, done: Collection[str]) -> "Array | None":
        """This array without the runs in `done`; None when nothing is left.

        Runs that share weights are trained together or not at all, so such a pair stays or goes as a whole.
        """
        if not any(run_id in done for run_id in self.run_ids):
            return self
        ids, parts, left = iter(self.run_ids), [], []
        for cell, members in self.parts:
            known = dict(zip(members, ids, strict=False))
            wanted = {member for member, run_id in known.items() if run_id not in done}
            if cell.protocol == "shared_weights":
                wanted |= {(not bias, seed) for bias, seed in wanted}
            kept = tuple(member for member in members if member in wanted)
            if kept:
                parts.append((cell, kept))
                left += [known[member] for member in kept]
        return Array(array_id(left), tuple(parts), tuple(left), self.shape, self.method) if left else None


def arrays(space: SearchSpace, device: DeviceKind) -> Iterator[Array]:
    """The arrays of the whole grid: first those of a single cell, in the grid's order, then those of several cells.

    The facts of all its data sets have to be known.
    """
    evaluate_every = space.fixed["evaluate_every"]
    blocks = functools.lru_cache(maxsize=64)(_blocks)
    sizes: dict[Program, tuple[Shape, int, MethodName]] = {}
    small: dict[tuple[Program, int], list[_Part]] = defaultdict(list)
    for levels, members in space.grid():
        levels["evaluate_every"] = evaluate_every
        cell = Run(**levels)
        facts, shared = _facts(space, cell), program(cell)
        identities = Identities(cell, facts.identity)
        if shared not in sizes:
            shape = Shape.of(cell, facts.picture, facts.classes)
            kind = _kind(cell, shape, device)
            sizes[shared] = shape, array_size(cell, shape, kind), method(cell, kind)
        shape, size, way = sizes[shared]
        for block, chosen in blocks(members, size // 2):
            run_ids = tuple([identities.run_id(bias, seed) for bias, seed in chosen])
            if 2 * len(chosen) <= size:
                small[shared, block].append(_Part(identities.key, cell, chosen, run_ids))
            else:
                yield Array(array_id(run_ids), ((cell, chosen),), run_ids, shape, way)
    for (shared, _), parts in small.items():
        yield from _joined(parts, *sizes[shared])


def arrays_of_all(spaces: Sequence[SearchSpace], device: DeviceKind) -> list[Array]:
    """The arrays of several search spaces; a run that several have belongs to the first of them."""
    found: list[Array] = []
    earlier: set[str] = set()
    for space in spaces:
        new = missing(list(arrays(space, device)), earlier)
        if len(spaces) > 1:
            earlier.update(run_id for array in new for run_id in array.run_ids)
        found += new
    return found


def run_ids(space: SearchSpace, every: int = 1) -> list[str]:
    """The ids of the runs of the whole grid, in its order; with `every` n, of each nth cell only."""
    found = []
    for levels, members in itertools.islice(space.grid(), 0, None, every):
        cell = Run(**levels)
        identities = Identities(cell, _facts(space, cell).identity)
        found += [identities.run_id(bias, seed) for bias, seed in members]
    return found


def run_ids_of_all(spaces: Sequence[SearchSpace]) -> list[str]:
    """The ids of the runs of several search spaces, in their order, without repeats."""
    if len(spaces) == 1:
        return run_ids(spaces[0])
    return list(dict.fromkeys(itertools.chain.from_iterable(map(run_ids, spaces))))


def cell_count(spaces: Sequence[SearchSpace]) -> int:
    """The number of distinct cells of several search spaces. The facts of all data sets have to be known."""
    if len(spaces) == 1:
        return spaces[0].cell_count()
    cells = (Run(**levels) for space in spaces for levels, _ in space.grid())
    return len({dataclasses.replace(cell, evaluate_every=None) for cell in cells})


def missing(planned: list[Array], done: Collection[str]) -> list[Array]:
    """What remains to be trained: finished arrays are left out, partly finished ones reduced."""
    left = (array.without(done) for array in planned)
    return [array for array in left if array is not None]


def method(cell: Run, device: DeviceKind) -> MethodName:
    """How arrays of this cell's program are computed on a device of this kind."""
    return _saturation(cell, device).method


def array_size(cell: Run, shape: Shape, device: DeviceKind) -> int:
    """How many runs of this cell's program fill a device of this kind, within memory and time; an even number."""
    device = _kind(cell, shape, device)
    if device == "native":
        by_memory = costs.most_runs(cell, shape, MEMORY[device])
    else:
        by_memory = MEMORY[device] // array_bytes(cell, shape)
    by_time = LONGEST[device] // _work(cell, shape, method(cell, device))
    return max(2, min(_saturation(cell, device).runs, by_memory, by_time) // 2 * 2)


def array_bytes(cell: Run, shape: Shape) -> int:
    """Memory that one run of an array needs in PyTorch, in bytes; an estimate on the high side.

    It counts weights, gradients, a temporary of the update and the optimizer's moments; activations, their gradients,
    and further copies for batch normalization, dropout and activations other than ReLU.
    """
    moments = 2 if cell.optimizer == "adamw" else 1 if cell.momentum > 0 else 0
    copies = 3 + 2 * shape.batch_norm + (shape.activation != "relu") + 2 * shape.dropout
    numbers = shape.parameter_count(True) * (3 + moments) + cell.batch_size * shape.activations() * copies
    return 4 * numbers


class _Part(NamedTuple):
    """Members of a cell that are too few to fill a device."""

    key: int
    cell: Run
    members: Members
    run_ids: tuple[str, ...]


def _joined(parts: list[_Part], shape: Shape, size: int, way: MethodName, bit: int = 63) -> Iterator[Array]:
    """Cells that share a program, joined into arrays of at most `size` runs.

    Extendible hashing: what does not fit one array is split by the next bit of the cells' keys, so that one more cell
    changes at most one array.
    """
    runs = sum(len(part.members) for part in parts)
    if runs <= size or len(parts) == 1 or bit < 0:
        ordered = sorted(parts, key=lambda part: part.key)
        ids = tuple(run_id for part in ordered for run_id in part.run_ids)
        yield Array(array_id(ids), tuple((part.cell, part.members) for part in ordered), ids, shape, way)
        return
    for half in (0, 1):
        mine = [part for part in parts if part.key >> bit & 1 == half]
        if mine:
            yield from _joined(mine, shape, size, way, bit - 1)


def _saturation(cell: Run, device: DeviceKind) -> Saturation:
    row = next((row for row in SATURATION[device] if cell.width <= row.width), None)
    if device == "native" and (row is None or not costs.knows(cell)):
        return _saturation(cell, "cpu")
    assert row, "the table ends with the widest networks"
    return row


def _kind(cell: Run, shape: Shape, device: DeviceKind) -> DeviceKind:
    """What arrays of this cell's program are planned for: as on any CPU, where native kernels cannot take it."""
    if device == "native" and not (method(cell, device) == "native" and costs.most_runs(cell, shape, MEMORY[device])):
        return "cpu"
    return device


def _facts(space: SearchSpace, cell: Run) -> Facts:
    facts = space.facts(cell.dataset)
    if facts is None:
        raise InputError(
            f"{space.name}: the pictures of {cell.dataset} are unknown: there is no {cell.dataset} under data"
        )
    return facts


def _work(cell: Run, shape: Shape, way: MethodName) -> int:
    return costs.work(cell, shape) if way == "native" else training_flops(cell, shape) + OVERHEAD * cell.steps


def _blocks(members: Members, seeds: int) -> list[tuple[int, Members]]:
    """Members in blocks of `seeds` absolute seed numbers, in order; the arms of a pair stand side by side."""
    ordered = sorted(members, key=lambda member: (member[1], not member[0]))
    return [(number, tuple(block)) for number, block in itertools.groupby(ordered, key=lambda m: m[1] // seeds)]
