"""A prediction rebuilt from what `autoseg_convert onnx` writes, by someone who has only that: numpy, scipy, onnxruntime, an image reader.

Nothing here imports autoseg. It is written from the contract's rules, slowly and plainly: whole images, whole logits.
"""

import itertools
import json
import math

import numpy as np
import onnxruntime
import SimpleITK as sitk
from scipy import ndimage

STEPS = (
    *("read", "orient", "region", "transpose", "crop", "normalise", "resample", "window", "network"),
    *("resample back", "decide", "restore"),
)


class Rebuilt:
    """contract.json of a folder with its networks; `predict(files)` -> (mask (z, y, x), how far the two largest logits lie apart)."""

    def __init__(self, folder):
        self.contract = json.loads((folder / "contract.json").read_text())
        self.steps = {step["step"]: step for step in self.contract["steps"]}
        assert list(self.steps) == [step for step in STEPS if step != "region" or self.contract["schema"].endswith("/2")]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.sessions = [
            onnxruntime.InferenceSession(str(folder / each["file"]), options, providers=["CPUExecutionProvider"])
            for each in self.contract["networks"]
        ]

    def predict(self, files):
        channels, spacing, direction = read(files)
        assert len(channels) == len(self.steps["read"]["channels"])
        order, reverse = (0, 1, 2), (False,) * 3
        if self.steps["orient"]["orientation"] != "as_stored":
            order, reverse = to_canonical(direction)
        if self.steps["orient"]["orientation"] == "ras":
            reverse = (reverse[0], not reverse[1], not reverse[2])
        transpose = self.steps["transpose"]["transpose"]
        turned, spacing = [turn(channel, order, reverse) for channel in channels], [spacing[axis] for axis in order]
        region = self.region(turned, spacing) if "region" in self.steps else (slice(None),) * 3
        whole = [channel[region].transpose(transpose) for channel in turned]
        spacing = [spacing[axis] for axis in transpose]
        box = nonzero_box(whole)
        cropped = [channel[box] for channel in whole]
        inside = holes_filled(np.any([channel != 0 for channel in cropped], axis=0))
        scaled = [
            self.normalised(channel, scheme, inside) for channel, scheme in zip(cropped, self.steps["normalise"]["channels"], strict=True)
        ]
        target = [s if t is None else t for s, t in zip(spacing, self.steps["resample"]["spacing"], strict=True)]
        data = np.stack([self.resampled(channel, spacing, target) for channel in scaled])
        logits = self.resampled_back(self.logits(data), cropped[0].shape, target, spacing)
        decided, margin = self.decided(logits)
        result = []
        for values in (decided, margin):
            filled = np.full(whole[0].shape, 0 if values is decided else np.inf, values.dtype)
            filled[box] = values
            everywhere = np.full(turned[0].shape, filled.dtype.type(0 if values is decided else np.inf))
            everywhere[region] = filled.transpose(np.argsort(transpose))
            result.append(turn_back(everywhere, order, reverse))
        return result

    def region(self, channels, spacing):
        step = self.steps["region"]
        assert step["kind"] == "head_and_neck"
        pet = channels[step["channel"]]
        lowest = len(pet) - max(1, round(step["top_share"] * len(pet)))
        threshold = pet.mean(dtype=np.float64) + step["uptake"] * pet.std(dtype=np.float64)
        components, _ = ndimage.label(pet[lowest:] > np.float32(threshold), np.ones((3, 3, 3)))
        if not components.any():
            return (slice(None),) * 3
        places = np.argwhere(components == np.bincount(components[components > 0]).argmax())
        size = [max(1, round(mm / s)) for mm, s in zip(step["size_mm"], spacing, strict=True)]
        start = [lowest + places[:, 0].max() + 1 + round(step["above_mm"] / spacing[0]) - size[0]]
        start += [round(places[:, axis].mean() + 0.5 - size[axis] / 2) for axis in (1, 2)]
        start = [min(max(a, 0), max(n - w, 0)) for a, w, n in zip(start, size, pet.shape, strict=True)]
        return tuple(slice(a, min(a + w, n)) for a, w, n in zip(start, size, pet.shape, strict=True))

    def normalised(self, channel, scheme, inside):
        x, epsilon = channel.astype(np.float32), self.steps["normalise"]["epsilon"]
        if scheme["kind"] == "ct":
            return (np.clip(x, np.float32(scheme["lower"]), np.float32(scheme["upper"])) - np.float32(scheme["mean"])) / np.float32(
                scheme["std"]
            )
        if scheme["kind"] == "zscore":
            where = inside if scheme["masked"] else np.ones_like(inside)
            mean, std = x[where].mean(dtype=np.float64), x[where].std(dtype=np.float64)
            return np.where(where, (x - np.float32(mean)) / np.float32(max(std, epsilon)), 0).astype(np.float32)
        if scheme["kind"] == "pet":
            sample = x.ravel()[:: math.ceil(x.size / scheme["sample"])]
            body = sample[sample > scheme["body"] * np.percentile(sample, 99.5)]
            body = np.minimum(body, np.float32(np.percentile(body, scheme["clip"])))
            mean, std = body.mean(dtype=np.float64), body.std(dtype=np.float64)
            return (np.minimum(x, body.max()) - np.float32(mean)) / np.float32(max(std, epsilon * max(1, abs(mean))))
        if scheme["kind"] == "rescale_0_1":
            return (x - x.min()) / np.float32(max((x - x.min()).max(), epsilon))
        if scheme["kind"] == "rgb":
            return x / np.float32(255)
        assert scheme["kind"] == "none"
        return x

    def resampled(self, channel, spacing, target):
        step = self.steps["resample"]
        shape = [max(1, round(s / t * n)) for s, t, n in zip(spacing, target, channel.shape, strict=True)]
        if list(channel.shape) == shape:
            return channel
        coarse = coarse_axis(spacing, target, step["coarse_ratio"])
        if coarse is None:
            return np.clip(zoomed(channel, shape, step["order"]), channel.min(), channel.max())
        planes = np.moveaxis(channel, coarse, 0)
        count, in_plane = shape[coarse], [n for axis, n in enumerate(shape) if axis != coarse]
        chosen = [planes[math.floor((i + 0.5) * len(planes) / count)] for i in range(count)]
        return np.moveaxis(
            np.stack([np.clip(zoomed(plane, in_plane, step["order"]), plane.min(), plane.max()) for plane in chosen]), 0, coarse
        )

    def logits(self, data):
        window = self.steps["window"]
        patch, share, sigma = window["patch"], window["step_share"], window["sigma"]
        before = [max(p - n, 0) // 2 for n, p in zip(data.shape[1:], patch, strict=True)]
        after = [max(p - n, 0) - b for n, p, b in zip(data.shape[1:], patch, before, strict=True)]
        padded = np.pad(data, [(0, 0), *zip(before, after, strict=True)])
        curves = [np.exp(-0.5 * ((np.arange(p) - p // 2) / (sigma * p)) ** 2) for p in patch]
        weight = curves[0][:, None, None] * curves[1][:, None] * curves[2]
        outputs = self.contract["interface"]["output"]["shape"][1]
        total, weights = np.zeros((outputs, *padded.shape[1:])), np.zeros(padded.shape[1:])
        for corner in itertools.product(*(starts(n, p, share) for n, p in zip(padded.shape[1:], patch, strict=True))):
            place = tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))
            total[(slice(None), *place)] += weight * self.tile(padded[(slice(None), *place)])
            weights[place] += weight
        inside = tuple(slice(b, b + n) for b, n in zip(before, data.shape[1:], strict=True))
        return (total / weights)[(slice(None), *inside)]

    def tile(self, values):
        dimension = len(self.contract["interface"]["input"]["shape"]) - 2
        values = values[:, 0] if dimension == 2 else values
        axes = self.steps["network"]["mirror_axes"]
        subsets = [subset for count in range(len(axes) + 1) for subset in itertools.combinations(axes, count)]
        name = self.contract["interface"]["input"]["name"]
        found = []
        for subset in subsets:
            flipped = [axis + 1 for axis in subset]
            for session in self.sessions:
                (logits,) = session.run(None, {name: np.ascontiguousarray(np.flip(values, flipped))[None]})
                found.append(np.flip(logits[0], flipped))
        mean = np.mean(found, axis=0, dtype=np.float64)
        return mean[:, None] if dimension == 2 else mean

    def resampled_back(self, logits, shape, spacing, target):
        if logits.shape[1:] == tuple(shape):
            return logits
        coarse = coarse_axis(spacing, target, self.steps["resample back"]["coarse_ratio"])
        if coarse is not None:
            count, n = shape[coarse], logits.shape[1 + coarse]
            logits = np.take(logits, [min(math.floor((i + 0.5) * n / count), n - 1) for i in range(count)], axis=1 + coarse)
        return np.stack([zoomed(each, shape, self.steps["resample back"]["order"]) for each in logits])

    def decided(self, logits):
        step = self.steps["decide"]
        values = np.array([output["value"] for output in step["outputs"]])
        if step["activation"] == "softmax":
            ordered = np.sort(logits, axis=0)
            return values[logits.argmax(0)].astype(np.uint8), ordered[-1] - ordered[-2]
        mask = np.zeros(logits.shape[1:], np.uint8)
        for value, each in zip(values, logits, strict=True):
            mask[each > 0] = value
        return mask, np.abs(logits).min(0)


def read(files):
    images = [sitk.ReadImage(str(file)) for file in files]
    return [sitk.GetArrayFromImage(image) for image in images], images[0].GetSpacing()[::-1], np.reshape(images[0].GetDirection(), (3, 3))


def to_canonical(direction):
    component = direction[::-1, ::-1]  # rows: superior, posterior, left; columns: array z, y, x
    orders = list(itertools.permutations(range(3)))
    sums = [sum(abs(component[a, p[a]]) for a in range(3)) for p in orders]
    order = next(p for p, total in zip(orders, sums, strict=True) if total >= max(sums) - 1e-6)
    return order, tuple(component[a, order[a]] < 0 for a in range(3))


def turn(array, order, reverse):
    return np.flip(array.transpose(order), [axis for axis in range(3) if reverse[axis]])


def turn_back(array, order, reverse):
    return np.flip(array, [axis for axis in range(3) if reverse[axis]]).transpose(np.argsort(order))


def nonzero_box(channels):
    where = np.nonzero(np.any([channel != 0 for channel in channels], axis=0))
    return tuple(slice(axis.min(), axis.max() + 1) for axis in where) if len(where[0]) else (slice(None),) * 3


def holes_filled(mask):
    regions, _ = ndimage.label(~mask)
    border = np.zeros_like(mask)
    for axis in range(3):
        np.moveaxis(border, axis, 0)[[0, -1]] = True
    return ~np.isin(regions, [region for region in np.unique(regions[border]) if region])


def coarse_axis(first, second, ratio):
    for spacing in (first, second):
        if max(spacing) / min(spacing) > ratio:
            return int(np.argmax(spacing)) if sum(value == max(spacing) for value in spacing) == 1 else None
    return None


def zoomed(array, shape, order):
    factors = [new / old for new, old in zip(shape, array.shape, strict=True)]
    return ndimage.zoom(array, factors, order=order, mode="nearest", grid_mode=True)


def starts(length, patch, share):
    if length <= patch:
        return [0]
    count = min(math.ceil((length - patch) / (patch * share)) + 1, length - patch + 1)
    return [round((length - patch) / (count - 1) * i) for i in range(count)]
