"""Where the patches of a batch that are forced onto the foreground are centred."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from planners.schema.base import Strict

Weight = Annotated[float, Field(ge=0)]


class Sampling(Strict):
    """Which class, and which of its voxels, a patch with forced foreground is centred on.

    `classes`: "present" draws a case, then one of the classes that it holds, all alike (nnU-Net's rule: a class is seen as often as its
    cases). Anything else draws the class first, then one of the training cases that hold it: "equal" all classes alike,
    "inverse_frequency" by one over the class' voxels in the training cases, a mapping by its weights, name -> weight (a class without one
    is never drawn).
    `lesion_exponent`: None draws among all voxels of the class, so that a lesion is seen in proportion to its volume. A number draws one
    of the case's lesions (26-connected components of the class) by volume ** exponent, then a voxel in it: 0 all lesions alike, whatever
    their size, 1 as None.
    """

    classes: Literal["present", "equal", "inverse_frequency"] | dict[str, Weight] = "present"
    lesion_exponent: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _some_class(self) -> Sampling:
        if isinstance(self.classes, dict) and not any(self.classes.values()):
            raise ValueError("classes: at least one class needs a weight above 0")
        return self

    @property
    def needs_lesions(self) -> bool:
        """Whether prepared cases must tell their lesions."""
        return self.lesion_exponent is not None or self.classes == "inverse_frequency"
