"""First-order statistics of the voxel values in a region, by the conventions of the IBSI manual."""

from __future__ import annotations

import numpy as np

from prognosis.features.feature import Feature

STATISTICS = {
    "mean": ("Q4LE", "mean"),
    "variance": ("ECT3", "variance, divided by the number of voxels"),
    "skewness": ("KE2A", "third standardised moment; 0 where all values are equal"),
    "kurtosis": ("IPH6", "excess kurtosis: fourth standardised moment less 3; 0 where all values are equal"),
    "median": ("Y12H", "median"),
    "minimum": ("1GSF", "smallest value"),
    "p10": ("QG58", "10th percentile, linear between values"),
    "p90": ("8DWT", "90th percentile, linear between values"),
    "maximum": ("84IY", "largest value"),
    "interquartile_range": ("SALO", "75th less 25th percentile"),
    "range": ("2OJQ", "largest less smallest value"),
    "mean_absolute_deviation": ("4FUA", "mean distance from the mean"),
    "robust_mean_absolute_deviation": ("1128", "mean distance from their mean, of the values from the 10th to the 90th percentile"),
    "median_absolute_deviation": ("N72L", "mean distance from the median"),
    "coefficient_of_variation": ("7TET", "standard deviation / mean"),
    "quartile_coefficient_of_dispersion": ("9S40", "(p75 - p25) / (p75 + p25)"),
    "energy": ("N8CA", "sum of squares"),
    "root_mean_square": ("5ZWQ", "square root of the mean square"),
}
"""Name -> IBSI code and definition, in the manual's order."""

NEED_A_ZERO = ("coefficient_of_variation", "quartile_coefficient_of_dispersion", "root_mean_square")
"""Means nothing for HU, whose zero is water."""

NOT_TAKEN = ("energy",)
"""Adds up with the number of voxels: volume and grid once more under another name."""

_UNITS = {"variance": "{0}^2", "skewness": "1", "kurtosis": "1", "coefficient_of_variation": "1", "quartile_coefficient_of_dispersion": "1"}


def _features(channel: str, unit: str, left_out: tuple[str, ...]) -> tuple[Feature, ...]:
    return tuple(
        Feature(
            f"first_order_{channel.lower()}_{name}_gtvp",
            _UNITS.get(name, "{0}").format(unit),
            "image",
            "first_order",
            f"{channel} in the primary tumour: {definition}",
            code,
            channel,
        )
        for name, (code, definition) in STATISTICS.items()
        if name not in left_out
    )


FEATURES = (
    *_features("CT", "HU", (*NEED_A_ZERO, *NOT_TAKEN)),
    # SUVmean and SUVmax of the primary are the mean and the maximum.
    *_features("PET", "SUV", ("mean", "maximum", *NOT_TAKEN)),
)
"""No intensity is re-segmented, discretised or interpolated before."""


def first_order(values: np.ndarray) -> dict[str, float]:
    """The statistics of some values, by the names in `STATISTICS`; all nan where there is none.

    Args:
        values: one a voxel of the region, in any order and shape.

    Source: Zwanenburg et al., "The image biomarker standardization initiative", Radiology 2020, and its reference manual, section 3.3.
    """
    x = np.asarray(values, np.float64).ravel()
    if x.size == 0:
        return dict.fromkeys(STATISTICS, float("nan"))
    mean, variance = float(x.mean()), float(x.var())
    low, p10, p25, median, p75, p90, high = (float(q) for q in np.percentile(x, (0, 10, 25, 50, 75, 90, 100)))
    centred = x - mean
    # Rounding may give equal values a variance above 0, and tiny ones a variance of 0.
    standard = centred / variance**0.5 if high > low and variance > 0 else None
    robust = x[(x >= p10) & (x <= p90)]
    return {
        "mean": mean,
        "variance": variance,
        "skewness": 0.0 if standard is None else float((standard**3).mean()),
        "kurtosis": 0.0 if standard is None else float((standard**4).mean()) - 3.0,
        "median": median,
        "minimum": low,
        "p10": p10,
        "p90": p90,
        "maximum": high,
        "interquartile_range": p75 - p25,
        "range": high - low,
        "mean_absolute_deviation": float(np.abs(centred).mean()),
        "robust_mean_absolute_deviation": float(np.abs(robust - robust.mean()).mean()) if robust.size else 0.0,
        "median_absolute_deviation": float(np.abs(x - median).mean()),
        "coefficient_of_variation": _ratio(variance**0.5, mean),
        "quartile_coefficient_of_dispersion": _ratio(p75 - p25, p75 + p25),
        "energy": float((x**2).sum()),
        "root_mean_square": float((x**2).mean() ** 0.5),
    }


def _ratio(above: float, below: float) -> float:
    return above / below if below else float("nan")
