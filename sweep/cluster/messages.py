"""Messages from a worker to its launch about the array that it trains: one class per kind, sent as Tune reports."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

KEY: Final = "message"
"""The key of a message in a report, to which Tune adds other keys."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """The array is in training; `share` of its steps are done, 0 … 1."""

    share: float


@dataclasses.dataclass(frozen=True)
class Note:
    """Something that the user should read once, whichever array reports it."""

    text: str


@dataclasses.dataclass(frozen=True)
class PutOff:
    """Another launch is training the array."""


@dataclasses.dataclass(frozen=True)
class TrainedElsewhere:
    """Another launch has trained the array."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """The array's rows are in the store; `diverged` of its runs diverged."""

    diverged: int


@dataclasses.dataclass(frozen=True)
class Failed:
    """The array cannot be trained, and would fail again."""

    error: str


Message = Progress | Note | PutOff | TrainedElsewhere | Trained | Failed
"""Progress and notes come while an array is in training; any other message is its last."""

KINDS: Final[dict[str, type[Message]]] = {
    kind.__name__: kind for kind in (Progress, Note, PutOff, TrainedElsewhere, Trained, Failed)
}


def to_report(message: Message) -> dict[str, Any]:
    """A message as a Tune report: plain values that every process can read."""
    return {KEY: {"kind": type(message).__name__, **dataclasses.asdict(message)}}


def from_report(report: Mapping[str, Any]) -> Message:
    """The message in a report made by `to_report`, ignoring what Tune has added."""
    fields = dict(report[KEY])
    return KINDS[fields.pop("kind")](**fields)
