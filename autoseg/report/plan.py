"""The page of a plan: what was decided and why, and how the centres compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from autoseg.report import html
from autoseg.report.centres import draw_spreads
from planners.centres import Comparison
from planners.fingerprint import Fingerprint
from planners.plan import Configuration, Plan

USE = "What autoseg_plan decided. For research use only; not a medical device."


def plan_page(plan: Plan, fingerprint: Fingerprint, comparison: Comparison, notes: Sequence[str] = ()) -> str:
    """The page as HTML, readable by itself.

    Args:
        plan: as written.
        fingerprint: what it was made from.
        comparison: of the centres in it.
        notes: what planning noticed about the dataset.
    """
    return html.page(f"Plan {plan.name!r}", USE, _parts(plan, fingerprint, comparison, notes), f"preset {plan.preset}; {plan.schema_}")


def _parts(plan: Plan, fingerprint: Fingerprint, comparison: Comparison, notes: Sequence[str]) -> Iterator[str]:
    labels = ", ".join(plan.label_scheme.foreground)
    yield html.paragraph(f"{len(fingerprint.cases)} cases, channels {', '.join(plan.channels)}, labels {labels}.")
    if notes:
        yield html.first_lines(notes, warning=True)
    yield html.heading("Configurations")
    yield html.table(
        ("name", "spacing, mm", "patch, voxels", "batch", "stages", "features"), map(_configuration, plan.configurations.items())
    )
    yield html.heading("Centres and augmentation")
    yield html.first_lines([f"Augmentation: {plan.reasons.get('augmentation', 'the reasons say nothing of it')}."], warning=False)
    yield from _widened(plan)
    yield html.table(("centre", "cases", "spacing, mm (median)", "field of view, mm (median)"), _centres(fingerprint), numbers=(1,))
    if comparison.spreads:
        yield from _figures(comparison)
    else:
        yield html.paragraph(f"There is nothing to compare: {comparison.why_not}.")
    yield html.heading("Every value and its reason")
    yield html.table(("value", "reason"), plan.reasons.items())


def _figures(comparison: Comparison) -> Iterator[str]:
    yield html.paragraph(
        "Each dot is a case, each red line a centre's value, drawn towards the middle where it has few cases. The yellow band, where the "
        "centres lie apart by more than chance, is where a further centre may lie (two standard deviations between centres): what "
        "--augmentation centres prepares a network for. SD is the standard deviation among the cases of one centre. Field of view and the "
        "labelled median are shown for comparison: no transform answers them."
    )
    shared = [spread for spread in comparison.spreads if spread.channel is None]
    yield html.heading("Grid and anatomy", 3)
    yield html.figure(draw_spreads(shared), "Spacing, field of view and the size of what is labelled, by centre.")
    for index, channel in enumerate(comparison.channels):
        own = [spread for spread in comparison.spreads if spread.channel == index]
        if own:
            yield html.heading(f"Channel {channel}", 3)
            yield html.figure(
                draw_spreads(own), f"Noise, blur and the intensities under the labels of {channel}, on the scale that the network sees."
            )


def _widened(plan: Plan) -> Iterator[str]:
    rows = [
        (name, key.removeprefix(f"{name}.augmentation."), why)
        for name in plan.configurations
        for key, why in plan.reasons.items()
        if key.startswith(f"{name}.augmentation.") and "(published" in why
    ]
    if rows:
        yield html.table(("configuration", "transform", "range, and what it comes from"), rows)


def _configuration(item: tuple[str, Configuration]) -> tuple[object, ...]:
    name, spec = item
    features = spec.network.features
    return (
        name,
        " x ".join(f"{mm:.4g}" for mm in spec.spacing),
        " x ".join(map(str, spec.patch_size)),
        spec.batch_size,
        len(features),
        f"{features[0]} to {features[-1]}",
    )


def _centres(fingerprint: Fingerprint) -> Iterator[tuple[object, ...]]:
    for name, centre in fingerprint.centres.items():
        views = np.median([case.field_of_view for case in fingerprint.cases if case.centre == name], axis=0)
        yield name or "(none)", centre.cases, " x ".join(f"{mm:.3g}" for mm in centre.spacing), " x ".join(f"{mm:.0f}" for mm in views)
