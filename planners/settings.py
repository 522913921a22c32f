"""Fields of a plan replaced by dotted path, their reasons kept true, and what of that can be judged before any data are known."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
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
    """The plan with fields replaced, checked as a whole. With another spacing comes the `median_shape` in proportion, and nothing else.

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
    return _shapes_follow(plan, Plan.from_json(json.dumps(document), source=f"after --set {' '.join(settings)}"))


def _shapes_follow(before: Plan, plan: Plan) -> Plan:
    changed = {}
    for name, spec in plan.configurations.items():
        old = before.configurations.get(name)
        if old and old.spacing != spec.spacing and old.median_shape == spec.median_shape and old.dimension == spec.dimension:
            sizes = zip(old.median_shape, old.spacing, spec.spacing, strict=True)
            changed[name] = spec.model_copy(update={"median_shape": tuple(float(max(1, round(n * was / now))) for n, was, now in sizes)})
    return plan.model_copy(update={"configurations": {**plan.configurations, **changed}}) if changed else plan


def plan_as_asked(make: Callable[[Mapping[str, tuple[float, ...]]], Plan], settings: Mapping[str, Any]) -> Plan:
    """The plan with fields replaced, and with reasons that say which; where a spacing is, what follows from it is planned for that one.

    Args:
        make: spacing by configuration, in place of what the rules find -> the plan with them.
        settings: as `override` takes them.

    Raises:
        PlanInvalid: as `override`, and as `make` raises it.
    """
    planned = make({})
    spacings: dict[str, tuple[float, ...]] = {}
    grids = {path: value for path, value in settings.items() if _is_spacing(path)}
    for _ in range(2 if grids else 0):  # one that is asked for may call for configurations that the rules alone do not
        known = {path: value for path, value in grids.items() if _configuration_of(path) in {None, *planned.configurations}}
        asked = override(planned, known).configurations
        spacings |= {name: spec.spacing for name, spec in asked.items() if spec.spacing != planned.configuration(name).spacing}
        planned = make(spacings)
    rest = {path: value for path, value in settings.items() if path not in grids}
    return with_reasons(override(planned, settings), planned, rest)


def _is_spacing(path: str) -> bool:
    keys = path.split(".")
    return (keys[2:] if keys[0] == "configurations" else keys)[:1] == ["spacing"]


def _configuration_of(path: str) -> str | None:
    """The configuration that a path names; None where it goes for all."""
    keys = path.split(".")
    return keys[1] if keys[0] == "configurations" and len(keys) > 1 else None


def with_reasons(plan: Plan, planned: Plan, settings: Mapping[str, Any], configuration: str | None = None) -> Plan:
    """The plan with reasons that say which values were asked for, in place of those that planning gave for other values.

    Args:
        plan: `override` of `planned` by `settings`, and `configuration` where that was given.
    """
    before, after = (each.model_dump(mode="json", by_alias=True) for each in (planned, plan))
    reasons = dict(plan.reasons)
    for path, _ in _in_order(settings):
        for place in _places(after, path, configuration):
            keys = place[1:] if place[0] == "configurations" else place
            name = ".".join(keys)
            reasons = {key: why for key, why in reasons.items() if key != name and not key.startswith(f"{name}.")}
            reasons[name] = _asked_for(_found(after, place), _found(before, place))
            for length in range(2, len(keys) if keys[0] in plan.configurations else 0):
                _add_exception(reasons, ".".join(keys[:length]), ".".join(keys[length:]))
    for name, shape in _shapes(plan).items():
        if shape != _shapes(planned).get(name, shape):
            why = f"{_short(shape)}, in proportion to the spacing; planned was {_short(_shapes(planned)[name])}"
            reasons.setdefault(f"{name}.median_shape", why)
    for index in range(len(plan.channels)):
        if all({f"{name}.normalisation", f"{name}.normalisation.{index}"} & reasons.keys() for name in plan.configurations):
            reasons.pop(f"normalisation.{index}", None)
    return plan.model_copy(update={"reasons": reasons})


def _asked_for(value: Any, planned: Any) -> str:
    return f"{_short(value)}, as asked for" + (" and as planned" if value == planned else f"; planned was {_short(planned)}")


def _add_exception(reasons: dict[str, str], name: str, part: str) -> None:
    """What a reason says of all of a value does not hold for a part that was asked for by itself."""
    exception = f"; not so {part}, see there"
    if name in reasons and exception not in reasons[name]:
        reasons[name] += exception


def _shapes(plan: Plan) -> dict[str, list[float]]:
    return {name: list(spec.median_shape) for name, spec in plan.configurations.items()}


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
        if text := readable(error, document, without=MISFIT):
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
