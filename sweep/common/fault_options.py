"""What a launch does against loss, as its user chooses."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Care:
    """Further tries of an array that a fault has hit, and seconds of training between two of its checkpoints."""

    retries: int = 2
    checkpoint_seconds: float = 60.0
