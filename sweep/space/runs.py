"""What a run is: its settings, its identity, and the fields that make two runs a pair.

`Run` is the one place where settings are declared: the search space's model, its JSON schema, the store's columns and
a run's identity are all derived from its fields. Pure Python: imports neither torch nor ray.
"""

import dataclasses
import functools
import hashlib
import json
import operator
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, get_args, get_type_hints

from pydantic import AfterValidator, Field

from sweep.space.catalogue import CHOICES, PATTERN, kind

TRAINER_VERSION: Final = 1
"""Part of every identity; raised whenever the same settings would give results that differ by more than rounding."""

SEED_LIMIT: Final = 2**32


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError("must be odd")
    return size


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One network trained once. Every field but `evaluate_every` can change its result and shows in its identity."""

    bias: Annotated[
        bool,
        Field(description="false fixes the biases of the layers named by bias_layers at zero"),
    ] = True
    bias_layers: Annotated[
        Literal["conv", "first_conv", "later_conv", "all"],
        Field(description="the layers that `bias` touches; the others have a bias in both arms"),
    ] = "conv"
    depth: Annotated[int, Field(ge=1, le=16, description="convolution layers")] = 2
    width: Annotated[int, Field(ge=1, le=1024, description="channels of each convolution")] = 16
    kernel_size: Annotated[
        int, Field(ge=1, le=15, description="side of the kernels in pixels, odd"), AfterValidator(_odd)
    ] = 5
    batch_norm: Annotated[
        bool, Field(description="batch normalization after each convolution, before the activation")
    ] = False
    activation: Annotated[
        Literal["relu", "gelu", "tanh", "leaky_relu", "identity"],
        Field(description="after each convolution and after the hidden linear layer"),
    ] = "relu"
    pooling: Annotated[
        Literal["stride", "max", "average", "none"],
        Field(description="stride: the first two convolutions have stride 2; max, average: 2x2 after each of them"),
    ] = "stride"
    dropout: Annotated[float, Field(ge=0, lt=1, description="dropout probability, after each activation")] = 0.0
    hidden: Annotated[int, Field(ge=0, le=65536, description="units of the hidden linear layer; 0 leaves it out")] = 64
    weight_init: Annotated[
        Literal["he", "truncated_normal", "uniform"],
        Field(
            description="he: normal, variance 2 / fan-in; truncated_normal: sigma 0.1, redrawn outside 2 sigma; "
            "uniform: within 1 / sqrt(fan-in), PyTorch's default"
        ),
    ] = "he"
    bias_init: Annotated[
        Literal["zeros", "uniform", "original"],
        Field(
            description="uniform: within 1 / sqrt(fan-in), PyTorch's default; original: first convolution 0, others 1"
        ),
    ] = "zeros"
    input_scaling: Annotated[
        Literal["standardized", "centered", "unit"],
        Field(
            description="standardized: mean 0, standard deviation 1 over the training set; centered: -0.5 … 0.5; "
            "unit: 0 … 1"
        ),
    ] = "standardized"
    dataset: Annotated[
        str,
        Field(
            pattern=PATTERN,
            description="name of a data set; folder:PATH, with one subfolder of pictures per class; or npz:PATH, with "
            "arrays images and labels; paths are relative to the search space's folder",
            json_schema_extra={"examples": list(CHOICES)},
        ),
    ] = "mnist5k"
    image_size: Annotated[
        int | None,
        Field(ge=1, le=1024, description="side in pixels that pictures of folder:PATH are resized to; null: unchanged"),
    ] = None
    split: Annotated[
        int, Field(ge=0, lt=SEED_LIMIT, description="which stratified split into train, validation and test")
    ] = 0
    train_examples: Annotated[int | None, Field(ge=1, description="training pictures to use; null: all of them")] = None
    optimizer: Annotated[Literal["sgd", "adamw"], Field(description="the optimizer")] = "sgd"
    learning_rate: Annotated[
        float,
        Field(gt=0, le=1000, allow_inf_nan=False, description="step size of the optimizer, where the schedule starts"),
    ] = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1, description="momentum of SGD")] = 0.0
    weight_decay: Annotated[
        float, Field(ge=0, le=1000, description="decay of the weights; biases and norms have none")
    ] = 0.0
    schedule: Annotated[Literal["constant", "cosine"], Field(description="course of the learning rate")] = "constant"
    batch_size: Annotated[int, Field(ge=1, le=65536, description="pictures per step")] = 16
    steps: Annotated[int, Field(ge=1, le=10_000_000, description="updates of the weights")] = 1001
    precision: Annotated[
        Literal["float32", "tf32", "bfloat16"],
        Field(description="arithmetic of convolutions and matrix products"),
    ] = "float32"
    protocol: Annotated[
        Literal["paired", "shared_weights"],
        Field(description="paired: each run has its own weights; shared_weights: both arms take turns on one set"),
    ] = "paired"
    seed: Annotated[int, Field(ge=0, lt=SEED_LIMIT, description="seed of every random stream")] = 0
    evaluate_every: Annotated[
        int | None, Field(ge=1, description="steps between points of the learning curve; null: ten points")
    ] = None

    @property
    def curve_interval(self) -> int:
        """Steps between two points of the learning curve."""
        return self.evaluate_every or -(-self.steps // 10)


SETTINGS: Final = tuple(field.name for field in dataclasses.fields(Run))
DEFAULTS: Final[dict[str, Any]] = {field.name: field.default for field in dataclasses.fields(Run)}
TYPES: Final[dict[str, Any]] = get_type_hints(Run, include_extras=True)
IDENTITY: Final = tuple(name for name in SETTINGS if name not in ("evaluate_every", "image_size"))
"""The settings that make up a run's identity; `image_size` shows in the fingerprint of the pixels."""

CELL: Final = tuple(name for name in IDENTITY if name not in ("bias", "seed"))
"""The settings that the runs of one cell share."""

PER_RUN: Final = frozenset(
    {
        *("bias", "seed", "learning_rate", "momentum", "weight_decay", "dropout"),
        *("weight_init", "bias_init", "input_scaling"),
    }
)
"""Settings that each run of an array may have to itself: runs that differ in nothing else may share an array."""

_SORTED_CELL: Final = tuple(sorted(CELL))
_cell_levels: Final = operator.attrgetter(*_SORTED_CELL)
_program_levels: Final = operator.attrgetter(*(name for name in SETTINGS if name not in PER_RUN))
_FLOATS: Final = frozenset(name for name in SETTINGS if get_args(TYPES[name])[0] is float)


def settings_of(run: Run) -> dict[str, Any]:
    """The run's settings by name, in the order of their declaration."""
    return {name: getattr(run, name) for name in SETTINGS}


Program = tuple[Any, ...]


def program(run: Run) -> Program:
    """What the runs of one array share: every setting outside `PER_RUN`, and whether some of those are used at all.

    Runs without dropout, momentum or weight decay do not pay for those that have them.
    """
    return (*_program_levels(run), run.dropout > 0, run.momentum > 0, run.weight_decay > 0)


class Identities:
    """Run ids of the runs of one cell: 20 hexadecimal digits of SHA-256, the same on every machine.

    The hash covers `TRAINER_VERSION`, the data's identity and the settings in canonical form (JSON, sorted keys,
    defaults filled in, floats by `repr`). What the runs of a cell share is hashed once.
    """

    def __init__(self, run: Run, data_identity: str) -> None:
        settings = ",".join(map(_canonical, _SORTED_CELL, _cell_levels(run)))
        text = f'{{"data":{json.dumps(data_identity)},"settings":{{{settings}}},"trainer_version":{TRAINER_VERSION}}}'
        self._hash = hashlib.sha256(text.encode())

    @property
    def key(self) -> int:
        """64 bits that stand for the cell."""
        return int.from_bytes(self._hash.digest()[:8])

    def run_id(self, bias: bool, seed: int) -> str:
        digest = self._hash.copy()
        digest.update(b'{"bias":%s,"seed":%d}' % (b"true" if bias else b"false", seed))
        return digest.hexdigest()[:20]


def run_id(run: Run, data_identity: str) -> str:
    """The identity of `run`, trained on the data that `data_identity` names."""
    return Identities(run, data_identity).run_id(run.bias, run.seed)


def array_id(run_ids: Iterable[str]) -> str:
    """The identity of an array: a hash of its sorted run ids."""
    return hashlib.sha256("\n".join(sorted(run_ids)).encode()).hexdigest()[:20]


@functools.lru_cache(maxsize=65536, typed=True)  # a grid has few levels and many cells
def _canonical(name: str, level: Any) -> str:
    """`"name":level` as JSON; 1 and 1.0, 0.0 and -0.0, and two paths of one data set are the same level."""
    if name in _FLOATS:
        level = float(level) + 0.0
    elif name == "dataset":
        level = kind(level)
    return f'"{name}":{json.dumps(level, allow_nan=False)}'
