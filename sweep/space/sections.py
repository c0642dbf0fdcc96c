"""The sections beside the grid: the claim, the declared analysis, experiment trackers, and pinned pictures."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from sweep.common import addresses
from sweep.common.errors import InputError
from sweep.space.schema import problem

STRICT: Final = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _one_line(given: Any) -> Any:
    return " ".join(given.split()) if isinstance(given, str) else given


Words = Annotated[str, BeforeValidator(_one_line), Field(min_length=1)]
"""Text on one line, however the file breaks it."""


class Claim(BaseModel):
    """What the sweep tests, in words written down before its runs; no part of any run's identity."""

    model_config = STRICT

    says: Annotated[Words, Field(description="what is claimed, in quotation marks where somebody else said it")]
    note: Annotated[Words | None, Field(description="what else to know: what it is tested on, how to read it")] = None
    refuted_if: Annotated[Words, Field(description="which results would refute it")]


class Pinned(BaseModel):
    """Which pictures a sweep was launched with, where the data set's name alone does not say."""

    model_config = STRICT

    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{16}$", description="of the pixels and labels")]
    picture: Annotated[
        list[Annotated[int, Field(ge=1)]],
        Field(min_length=3, max_length=3, description="channels, height and width"),
    ]
    classes: Annotated[int, Field(ge=2)]
    train: Annotated[int, Field(ge=1, description="training pictures of a split")]


class Analysis(BaseModel):
    """What was declared before looking at the results."""

    model_config = STRICT

    margin: Annotated[
        float,
        Field(ge=0, le=100, allow_inf_nan=False, description="smallest effect that matters, in percentage points"),
    ] = 0.5
    confidence: Annotated[float, Field(gt=0.5, lt=1, description="level of the confidence intervals")] = 0.95
    looks: Annotated[
        int,
        Field(ge=1, le=100, description="planned looks at the results; each spends its share of 1 - confidence"),
    ] = 1
    tune: Annotated[
        list[Literal["learning_rate"]] | None,
        Field(
            min_length=1,
            max_length=1,
            description="axes on which each arm is also compared at its own best level, chosen by validation accuracy",
        ),
    ] = None

    @property
    def declared(self) -> dict[str, Any]:
        """What was given rather than taken from the defaults, by name."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}


def _tracker_address(given: str | None, info: ValidationInfo) -> str | None:
    """An absolute path for a folder, other addresses unchanged; a password in one is refused."""
    context = info.context or {}
    if given is None or context.get("launched"):  # what was once launched stays readable, whatever the rules are now
        return given
    try:
        return addresses.tracker(given, str(info.field_name), context.get("folder", Path()))
    except InputError as error:
        raise problem(str(error)) from None


class Tracking(BaseModel):
    """Experiment trackers and their addresses; no part of any run's identity."""

    model_config = STRICT

    mlflow: Annotated[
        str | None,
        Field(min_length=1, description="an MLflow tracking server (http://HOST:5000), database or folder"),
        AfterValidator(_tracker_address),
    ] = None
    wandb: Annotated[
        str | None, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$", description="a Weights & Biases project")
    ] = None
    tensorboard: Annotated[
        str | None,
        Field(min_length=1, description="a folder for TensorBoard logs"),
        AfterValidator(_tracker_address),
    ] = None

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise problem("names no tracker; expected mlflow, wandb or tensorboard")
        return self
