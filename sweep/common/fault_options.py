"""The user's choices of how a launch handles faults."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class FaultOptions:
    """How often an array is retried after a fault, and the seconds of training between two of its checkpoints."""

    retries: int = 2
    checkpoint_seconds: float = 60.0
