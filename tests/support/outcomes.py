"""Made-up outcomes of runs, for tests of what is done with them."""

import dataclasses
from typing import Any, Final

from sweep.store.outcomes import Outcome, Point
from sweep.store.rows import Provenance

BY: Final = Provenance(
    device="cpu (test)", dataset_fingerprint="f" * 16, torch_version="2.6", curve_examples=43, method="grouped"
)


def outcome(number: int = 500, **changed: Any) -> Outcome:
    """An outcome identified by its number, with a learning curve of two points."""
    result = Outcome(
        status="ok",
        test_accuracy=number / 1000,
        test_loss=None,
        train_loss=1.5,
        validation_accuracy=0.25,
        test_correct=bytes([number % 256]),
        parameters=10,
        train_seconds=0.5,
        array_size=2,
        curve=(Point(5, None, number / 1000), Point(10, 0.5, 0.25)),
    )
    return dataclasses.replace(result, **changed)
