"""What all parts of a plan share: strictness and the types of their fields."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Triple = tuple[int, ...]


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"must be a range, the lower end first, found {list(bounds)}")
    return bounds


def _not_negative(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] < 0:
        raise ValueError(f"must not be negative, found {list(bounds)}")
    return bounds


def _positive(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] <= 0:
        raise ValueError(f"must be above 0, found {list(bounds)}")
    return bounds


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
PositiveRange = Annotated[Range, AfterValidator(_positive)]
NotNegativeRange = Annotated[Range, AfterValidator(_not_negative)]
Probability = Annotated[float, Field(ge=0, le=1)]


class PlanInvalid(ValueError):  # noqa: N818
    """A plan document breaks the schema; the message names each field and what it must be."""


class Strict(BaseModel):
    """Base of all plan parts: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


MISFIT = "sizes_that_do_not_fit"


def misfit(text: str) -> PydanticCustomError:
    """The error of values that do not fit each other, of which some come from the data: before the data are known nothing is wrong."""
    return PydanticCustomError(MISFIT, "{text}", {"text": text})
