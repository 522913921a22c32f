"""What goes before and after a model's networks, written out so that the whole prediction can be rebuilt without autoseg.

One list of steps, each with its rule in words and its numbers, is both the JSON document and the Markdown page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autoseg.inference.model_card import versions
from autoseg.inference.model_documents import ModelDataset
from autoseg.inference.model_metadata import INTENDED_USE, output_names
from autoseg.inference.onnx_graph import BATCH, INPUT, OPSET, OUTPUT
from autoseg.preprocessing.axes import SPLINE_MARGIN
from autoseg.preprocessing.normalise import EPSILON, QUANTILES_OF
from autoseg.preprocessing.region import ABOVE_MM
from planners.plan import Configuration, Plan

SCHEMA = "autoseg-onnx-contract/1"
SCHEMA_WITH_REGION = "autoseg-onnx-contract/2"
"""Of contracts with the step "region", which readers of the first must not pass over."""

_READ = """\
One file a channel, in the order of `channels`. Arrays are (z, y, x): the last axis is the file's first (NIfTI's i, ITK's x). Spacing \
(mm), origin and direction are ITK's, in LPS. Values are those that the file means (slope and intercept applied). All channels of a \
case share one grid: no corner of one lies further than `grid_tolerance` voxels from the other's; refuse the case otherwise, and where \
a voxel is NaN or infinite. Where every channel holds one constant value, the mask is 0 everywhere and the case is done. A 2-D image \
is one slice, z = 1."""
_CANONICAL = """\
Bring the axes z, y, x to run towards the patient's superior, posterior and left, as nearly as whole axes can: permute and reverse, \
interpolate nothing. Let C[a, b] be the component of array axis b (of z, y, x) along patient axis a (of superior, posterior, left), \
from the direction matrix. Of all orders p of (0, 1, 2) take the one with the largest sum of |C[a, p[a]]|, the first in lexicographic \
order of those within 1e-6 of it (an image stored as 2-D keeps its z axis). New axis a is old axis p[a], reversed where C[a, p[a]] < \
0. The spacing follows."""
ORIENTATION_RULES = {
    "canonical": _CANONICAL,
    "ras": f"{_CANONICAL} Then reverse the axes y and x once more, so that they run towards anterior and right.",
    "as_stored": "Leave the axes as they are stored, whatever the direction matrix says.",
}
_REGION = """\
Look for the brain in channel `channel`, P of n planes along z. H: the voxels of the last max(1, round(`top_share` * n)) planes whose \
value exceeds m + `uptake` * d, m and d the mean and standard deviation (of the population, in float64) of all of P, their sum rounded \
to float32. Without any such voxel nothing is cut. Else B is the largest component of H (26 neighbours; of equals the one that comes \
first in C order). Size: w = max(1, round(size_mm / spacing)) voxels along each axis. Start: along z the index of B's last plane + 1 + \
round(above_mm / spacing_z) - w_z; along y and x round(c + 0.5 - w / 2), c the mean index of B's voxels. Then move it inwards: start = \
min(max(start, 0), max(n - w, 0)), stop = min(start + w, n), n the axis' size. Cut every channel to that box; the steps that follow know \
nothing of the rest. round takes a half to the even number."""
_TRANSPOSE = """\
Network order: new axis i is axis `transpose[i]` (numpy.transpose(array, transpose)). The spacing follows. All that comes now is in \
this order."""
_CROP = "Cut to the smallest box that holds every voxel that is not exactly 0 in some channel; the whole image where there is none."
_NORMALISE = "Each channel by itself, in float32, on the cropped image before resampling. `epsilon` is the smallest divisor."
SCHEME_RULES = {
    "ct": "clip to [lower, upper], subtract mean, divide by std",
    "zscore": "subtract the channel's own mean, divide by its own standard deviation (of the population)",
    "zscore_masked": "subtract the mean and divide by the standard deviation (of the population) of the voxels in M, only there; the "
    "others stay 0. M: the voxels of the cropped image that are not 0 in some channel, and their holes: zeros (in all channels) "
    "connected through faces that do not reach the border of the cropped image",
    "pet": "S: all voxels in C order, or of an image with more than `sample` of them every n-th from the first, n = ceil(voxels / sample). "
    "B: those of S above body x the 99.5th percentile of S; all of S where none is. Values of B above its percentile `clip` become that "
    "percentile. Clip the channel at the largest value of B, subtract the mean of B and divide by its standard deviation (of the "
    "population; at least epsilon x max(1, |mean|)). Percentiles as numpy's, linear",
    "none": "leave the values as they are",
    "rescale_0_1": "subtract the channel's own minimum, then divide by the maximum of that",
    "rgb": "divide by 255",
}
_RESAMPLE = """\
To `spacing` t (mm, network order; null keeps an axis as it is) from the image's spacing s. The new size of an axis of n voxels is \
max(1, round(s / t * n)), a half to the even number. Output voxel i lies at (i + 0.5) * n / n_new - 0.5 of the input, which goes on \
with its outermost value. The coarse axis: if max(s) / min(s) > `coarse_ratio`, the axis of the largest s; else if max(t) / min(t) > \
`coarse_ratio`, the axis of the largest t; none where that axis is not the only one. Without a coarse axis: spline of `order` along \
every axis (scipy.ndimage.zoom with mode="nearest", grid_mode=True), then clip to the channel's range before. With one: along it, \
output slice i is input slice floor((i + 0.5) * n / n_new), each resampled in the other two axes alone and clipped to its own range \
before. Order 1 needs no clipping. A channel whose shape stays is not touched."""
_WINDOW = """\
Tiles of `patch`. Along an axis of n voxels with a patch of p: if n <= p, one tile, with (p - n) // 2 zeros before the image and the \
rest behind; else count = min(ceil((n - p) / (p * step_share)) + 1, n - p + 1) tiles, tile j from round((n - p) / (count - 1) * j) on, \
a half to the even number. A voxel of a tile weighs the product over the axes of exp(-0.5 * ((k - p // 2) / (sigma * p)) ** 2), k its \
place in the tile. The image's logits are the weighted mean of those of all tiles that cover a voxel, in float32."""
_NETWORK = {
    3: "Each tile is an entry of the batch: `image` (batch, channel, z, y, x) in network order.",
    2: "The network sees single slices across the first axis: of a tile (channel, 1, y, x) it gets `image` (batch, channel, y, x).",
}
_MIRROR = """\
Average the logits over all networks, and over all subsets of `mirror_axes` (the spatial axes of `image`, 0 the first; the empty \
subset too): flip the input along the subset, run, flip the logits back."""
_BACK = """\
Bring the averaged logits to the cropped image's size: linear along every axis, with the voxel places of step "resample" and the \
outermost value beyond the edge. The coarse axis is found as there with the roles exchanged (first by the spacing of the logits' grid \
t, where null is the image's own, then by the image's s) and is read nearest: index floor((i + 0.5) * n / n_new), at most n - 1."""
_DECIDE = {
    "softmax": "Each voxel gets the `value` of the output with the largest logit, the first of equals. Probabilities: the softmax of the "
    "interpolated logits.",
    "sigmoid": "Outputs overlap: go through `outputs` in order, and where an output's logit is above 0 (its sigmoid above 0.5), write its "
    "`value` over what is there; 0 elsewhere. Probabilities are the sigmoid of the interpolated logits.",
}
_RESTORE = """\
Paste into zeros of the size before cropping, undo `transpose`, undo the reorientation (first the reversals, then the order). The mask \
has exactly the first channel's grid; uint8, or uint16 where a value is above 255."""
_RESTORE_REGION = _RESTORE.replace("undo the reorientation", 'paste into zeros of the size before step "region", undo the reorientation')


def contract(plan: Plan, dataset: ModelDataset, networks: Sequence[dict[str, Any]], tolerance: float) -> dict[str, Any]:
    """The contract of a model's networks.

    Args:
        networks: a document a fold: file, fold, sha256, and how far its logits were from torch's.
        tolerance: what these differences were held to, as a share of the largest logit, or of 1 where that is smaller.
    """
    settings = plan.configuration(dataset.configuration)
    channels, outputs = plan.input_channels(dataset.configuration), plan.label_scheme.heads
    return {
        "schema": SCHEMA if plan.region_of_interest is None else SCHEMA_WITH_REGION,
        "name": dataset.name,
        "intended_use": INTENDED_USE,
        "written_with": dict(versions()),
        "networks": list(networks),
        "interface": {
            "input": {"name": INPUT, "dtype": "float32", "shape": [BATCH, channels, *settings.patch_size]},
            "output": {"name": OUTPUT, "dtype": "float32", "shape": [BATCH, outputs, *settings.patch_size]},
            "opset": OPSET,
            "tolerance": tolerance,
        },
        "steps": _steps(plan, dataset, settings),
    }


def _steps(plan: Plan, dataset: ModelDataset, settings: Configuration) -> list[dict[str, Any]]:
    flat = [None] * (3 - settings.dimension)
    activation = "sigmoid" if plan.label_scheme.has_regions else "softmax"
    values = plan.label_scheme.painted_values
    channels = [
        {"index": index, "name": name, "file": f"CASE_{index:04d}{dataset.file_ending}"} for index, name in enumerate(plan.channels)
    ]
    resampling, inference = settings.resampling, settings.inference
    return [
        {"step": "read", "rule": _READ, "channels": channels, "grid_tolerance": plan.geometry_tolerance},
        {"step": "orient", "rule": ORIENTATION_RULES[plan.orientation], "orientation": plan.orientation},
        *_region(plan),
        {"step": "transpose", "rule": _TRANSPOSE, "transpose": list(plan.transpose)},
        {"step": "crop", "rule": _CROP},
        {"step": "normalise", "rule": _NORMALISE, "epsilon": EPSILON, "channels": [_scheme(each) for each in settings.normalisation]},
        {
            "step": "resample",
            "rule": _RESAMPLE,
            "spacing": [*flat, *settings.spacing],
            "order": resampling.image_order,
            "coarse_ratio": resampling.separate_z_ratio,
            "edge_voxels_before_filtering": SPLINE_MARGIN,
        },
        {
            "step": "window",
            "rule": _WINDOW,
            "patch": [1] * len(flat) + list(settings.patch_size),
            "step_share": inference.step,
            "sigma": inference.gaussian_sigma,
        },
        {"step": "network", "rule": f"{_NETWORK[settings.dimension]} {_MIRROR}", "mirror_axes": list(inference.mirror_axes)},
        {"step": "resample back", "rule": _BACK, "order": resampling.logits_order, "coarse_ratio": resampling.separate_z_ratio},
        {
            "step": "decide",
            "rule": _DECIDE[activation],
            "activation": activation,
            "outputs": [
                {"index": index, "name": name, "value": value}
                for index, (name, value) in enumerate(zip(output_names(plan), values, strict=True))
            ],
        },
        {"step": "restore", "rule": _RESTORE if plan.region_of_interest is None else _RESTORE_REGION},
    ]


def _region(plan: Plan) -> list[dict[str, Any]]:
    if plan.region_of_interest is None:
        return []
    return [{"step": "region", "rule": _REGION, **plan.region_of_interest.model_dump(mode="json"), "above_mm": ABOVE_MM}]


def _scheme(scheme: Any) -> dict[str, Any]:
    document: dict[str, Any] = scheme.model_dump(mode="json")
    rule = SCHEME_RULES["zscore_masked" if document.get("masked") else document["kind"]]
    sample = {"sample": QUANTILES_OF} if document["kind"] == "pet" else {}
    return {**document, **sample, "rule": rule}


def markdown(document: dict[str, Any]) -> str:
    """The contract as a page."""
    interface = document["interface"]
    lines = [
        f"# {document['name']}: contract of the ONNX networks",
        "",
        f"**{document['intended_use']}**",
        "",
        "All that turns images into a mask, besides the networks. `contract.json` holds the same rules and numbers for programs.",
        "",
        "## The networks",
        "",
        *(
            f"- {end}: `{interface[end]['name']}`, {interface[end]['dtype']}, {_value(interface[end]['shape'])}"
            for end in ("input", "output")
        ),
        f"- opset {interface['opset']}, float32 throughout; the batch is free, the other sizes are fixed",
        "",
        "| file | fold | SHA-256 | largest difference to torch | largest logit |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {each['file']} | {each['fold']} | {each['sha256']} | {each['largest_difference']:.1e} | {each['largest_logit']:.3g} |"
            for each in document["networks"]
        ),
        "",
        f"Differences were measured with onnxruntime on one patch of random numbers and held to {interface['tolerance']:g} of the "
        "largest logit. `autoseg_predict` computes in half precision where the device is made for it: voxels where two classes are nearly "
        "equal may then differ from what is rebuilt from here in float32.",
        "",
        "## The steps",
    ]
    for number, step in enumerate(document["steps"], start=1):
        lines += ["", f"### {number}. {step['step'].capitalize()}", "", step["rule"], ""]
        for key, value in step.items():
            if key not in {"step", "rule"}:
                lines += _listed(key, value)
    written = ", ".join(f"{name} {version}" for name, version in document["written_with"].items())
    return "\n".join([*lines, "", f"Written with {written}.", ""])


def _listed(key: str, value: Any) -> list[str]:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [f"- {key}:", *(f"    - {', '.join(f'{name}: {_value(entry)}' for name, entry in each.items())}" for each in value)]
    return [f"- {key}: {_value(value)}"]


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"({', '.join(_value(entry) for entry in value)})"
    return "null" if value is None else f"{value!r}" if isinstance(value, float) else str(value)
