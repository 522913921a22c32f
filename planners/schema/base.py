"""What all parts of a plan share: strictness and the types of their fields."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Triple = tuple[int, ...]
Range = tuple[float, float]
Probability = Annotated[float, Field(ge=0, le=1)]


class PlanInvalid(ValueError):  # noqa: N818
    """A plan document breaks the schema; the message names each field and what it must be."""


class Strict(BaseModel):
    """Base of all plan parts: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)
