"""Fields of a plan replaced by dotted path, their reasons kept true, and what of that can be judged before any data are known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from planners.fingerprint import CaseFingerprint, merge
from planners.intensity import sketch
from planners.labels import Values
from planners.plan import Plan, PlanInvalid, Region, readable
from planners.planner import plan as make_plan
from planners.planner import second_stage
from planners.schema.base import MISFIT
from planners.schema.training import KINDS, as_kind

CONFIGURATIONS = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")
"""All that a plan may have; which of them it has follows from the data."""


def override(plan: Plan, settings: Mapping[str, Any], configuration: str | None = None) -> Plan:
    """The plan with fields replaced, checked as a whole.

    Args:
        plan: left as it is.
        settings: dotted path -> JSON value. A path starts at the plan ("orientation", "configurations.2d.batch_size") or at a
            configuration ("training.epochs"), which then goes for `configuration`, or for all of them where that is None. A loss's,
            optimiser's or schedule's `kind` goes before its other fields, see `as_kind`.

    Raises:
        PlanInvalid: a path that the plan does not have, or a value that does not fit.
    """
    if configuration is not None:
        plan.configuration(configuration)
    document = plan.model_dump(mode="json", by_alias=True)
    for path, value in _in_order(settings):
        for place in _places(document, path, configuration):
            _assign(document, place, value, path)
    return Plan.from_json(json.dumps(document), source=f"after --set {' '.join(settings)}")


def with_reasons(plan: Plan, planned: Plan, settings: Mapping[str, Any]) -> Plan:
    """The plan with reasons that say which values were asked for, in place of those that planning gave for other values.

    Args:
        plan: `override` of `planned` by `settings`.
    """
    before, after = (each.model_dump(mode="json", by_alias=True) for each in (planned, plan))
    reasons = dict(plan.reasons)
    for path, _ in _in_order(settings):
        for place in _places(after, path, None):
            key = ".".join(place[1:] if place[0] == "configurations" else place)
            reasons = {name: why for name, why in reasons.items() if name != key and not name.startswith(f"{key}.")}
            reasons[key] = f"{_short(_found(after, place))}, as asked for; planned was {_short(_found(before, place))}"
    shared = {f"normalisation.{channel}" for channel in range(len(plan.channels))}
    for name in shared & reasons.keys():
        if all(f"{configuration}.{name}" in reasons for configuration in plan.configurations):
            del reasons[name]
    return plan.model_copy(update={"reasons": reasons})


def check_settings(
    settings: Mapping[str, Any],
    *,
    preset: str,
    channels: Sequence[str],
    labels: Mapping[str, Values],
    region_order: Sequence[int] = (),
    region_of_interest: Region | None = None,
) -> None:
    """Refuses what no data could make right: a field that there is not, a value of the wrong kind or out of its bounds.

    Judged on a plan for one invented case that has all configurations. What depends on what planning finds (sizes, stages, whether there is
    a low resolution) is left to `override`.

    Args:
        settings: as `override` takes them, for a plan that is to be made.
        preset: of the plan.
        channels, labels, region_order: the dataset's.
        region_of_interest: the plan's.

    Raises:
        PlanInvalid: all such settings are named.
    """
    document = _stand_in(preset, channels, labels, region_order, region_of_interest).model_dump(mode="json", by_alias=True)
    problems = []
    for path, value in _in_order(settings):
        try:
            for place in _places(document, path, None):
                _assign(document, place, value, path)
        except PlanInvalid as error:
            if not any(key.isdigit() for key in path.split(".")):  # how long a list is may follow from the data
                problems.append(str(error))
    try:
        Plan.model_validate(document)
    except ValidationError as error:
        if text := readable(error, without=MISFIT):
            problems.append(f"after --set {' '.join(settings)}: {text}")
    if problems:
        raise PlanInvalid("; ".join(problems))


def _stand_in(
    preset: str, channels: Sequence[str], labels: Mapping[str, Values], region_order: Sequence[int], region_of_interest: Region | None
) -> Plan:
    values, shape = (sketch([0.0, 1.0]),) * len(channels), (128, 128, 128)
    case = CaseFingerprint("case", "case", "", (1.0, 1.0, 1.0), shape, shape, 1.0, "LPS", values, values, {1: 1}, {1: (1.0,)})
    made = make_plan(
        merge(channels, labels, [case]), preset=preset, region_order=tuple(region_order), region_of_interest=region_of_interest
    )
    full = made.configurations["3d_fullres"]
    return made.model_copy(
        update={
            "configurations": {
                **made.configurations,
                "3d_lowres": full,
                "3d_cascade_fullres": second_stage(full, "3d_lowres"),
            }
        }
    )


def _in_order(settings: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(settings.items(), key=lambda item: not item[0].endswith(".kind"))


def _places(document: Mapping[str, Any], path: str, configuration: str | None) -> list[list[str]]:
    """The path from the document's top, once for each configuration that is meant."""
    keys = path.split(".")
    if keys[0] in document:
        return [keys]
    names = [configuration] if configuration else list(document["configurations"])
    return [["configurations", name, *keys] for name in names]


def _found(document: Any, keys: Sequence[str]) -> Any:
    """What stands at a path; None where a document has no such place."""
    for key in keys:
        if isinstance(document, list):
            document = document[int(key)] if int(key) < len(document) else None
        else:
            document = document.get(key) if isinstance(document, dict) else None
    return document


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _assign(target: Any, keys: list[str], value: Any, path: str) -> None:
    for key in keys[:-1]:
        target = _step(target, key, path)
    last: Any = int(keys[-1]) if isinstance(target, list) and keys[-1].isdigit() else keys[-1]
    _step(target, keys[-1], path)
    part = keys[-2] if len(keys) > 1 else ""
    if last == "kind" and value in KINDS.get(part, ()):
        target.update(kind := as_kind(part, target, value))
        for field in target.keys() - kind.keys():
            del target[field]
    else:
        target[last] = value


def _step(target: Any, key: str, path: str) -> Any:
    if isinstance(target, list) and key.isdigit() and int(key) < len(target):
        return target[int(key)]
    if isinstance(target, dict) and key in target:
        return target[key]
    known = ", ".join(target) if isinstance(target, dict) else f"0 to {len(target) - 1}" if isinstance(target, list) else "nothing"
    raise PlanInvalid(f"--set {path}: there is no field {key!r} here; known: {known}")
