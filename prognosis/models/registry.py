"""Every model that is evaluated, and which columns it may see. The controls are models like the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

CENTRE_COLUMN = "(centre)"
"""The centre as a column: no predictor, and seen by the centre control alone."""

RUNGS = ("centre", "random")
"""How patients are held out: whole centres (is it true at another hospital?), or at random (what most papers report)."""

ESTABLISHED = ("clinical", "volume")
"""Groups of columns that are expected to matter: the ridge shrinks them less than the many further image features."""


@dataclass(frozen=True)
class Model:
    """A model's name, what it is in words, its columns among a cohort's (by their group), and the rungs on which it says something."""

    name: str
    title: str
    columns: Callable[[Mapping[str, str]], tuple[str, ...]]
    rungs: tuple[str, ...] = RUNGS


def _group(*names: str) -> Callable[[Mapping[str, str]], tuple[str, ...]]:
    return lambda groups: tuple(column for column, group in groups.items() if group in names)


HEADLINE = "ridge"

MODELS: Mapping[str, Model] = {
    model.name: model
    for model in (
        Model("null", "the same for everybody", lambda groups: ()),
        Model("volume", "tumour volumes only", _group("volume")),
        Model("clinical", "clinical columns only", _group("clinical")),
        Model("centre", "the centre alone (a control)", lambda groups: (CENTRE_COLUMN,), rungs=("random",)),
        Model(HEADLINE, "all predictors", _group("clinical", "volume", "image", "flag")),
    )
}
