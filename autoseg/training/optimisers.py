"""The optimiser that a plan asks for."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from planners.plan import SGD, AdamW, Optimiser


def build_optimiser(spec: Optimiser, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser over these parameters; all of them share its settings."""
    return _BUILDERS[spec.kind](spec, parameters)


def _sgd(spec: SGD, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=spec.lr, momentum=spec.momentum, nesterov=spec.nesterov, weight_decay=spec.weight_decay)


def _adamw(spec: AdamW, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=spec.lr, betas=spec.betas, eps=spec.eps, weight_decay=spec.weight_decay)


_BUILDERS = {"sgd": _sgd, "adamw": _adamw}
