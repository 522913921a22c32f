"""nnU-Net's names of weights -> ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from autoseg.errors import ModelError

_WRAPPERS = ("_orig_mod.", "module.")
# nnU-Net registers some modules twice: its encoder again inside the decoder, and each layer again in a list
_ALIASES = re.compile(r"^decoder\.encoder\.|\.all_modules\.")
_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^encoder\.stem\.convs\.0\.(conv|norm)\.(weight|bias)$", r"encoder.stem.\1.\2"),
        (r"^encoder\.stages\.(\d+)\.0\.convs\.(\d+)\.(conv|norm)\.(weight|bias)$", r"encoder.stages.\1.\2.\3.\4"),
        (r"^encoder\.stages\.(\d+)\.blocks\.(\d+)\.(conv[12])\.(conv|norm)\.(weight|bias)$", r"encoder.stages.\1.\2.\3.\4.\5"),
        (r"^encoder\.stages\.(\d+)\.blocks\.(\d+)\.skip\.[01]\.(conv|norm)\.(weight|bias)$", r"encoder.stages.\1.\2.skip.\3.\4"),
        (r"^decoder\.stages\.(\d+)\.convs\.(\d+)\.(conv|norm)\.(weight|bias)$", r"decoder.stages.\1.\2.\3.\4"),
        (r"^decoder\.transpconvs\.(\d+)\.(weight|bias)$", r"decoder.upsamplings.\1.\2"),
        (r"^decoder\.seg_layers\.(\d+)\.(weight|bias)$", r"decoder.heads.\1.\2"),
    )
)


def weight_map_from_nnunet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names of `UNet` or `ResidualUNet`.

    Args:
        state: the state dict of nnU-Net's PlainConvUNet or ResidualEncoderUNet, also from inside DDP or torch.compile.

    Raises:
        ModelError: a name that neither network has.
    """
    mapped = {}
    for name, tensor in state.items():
        ours = _our_name(name)
        if ours is not None:
            mapped[ours] = tensor
    return mapped


def _our_name(name: str) -> str | None:
    plain = name
    while plain.startswith(_WRAPPERS):
        plain = plain.partition(".")[2]
    if _ALIASES.search(plain):
        return None
    for pattern, replacement in _RULES:
        if pattern.match(plain):
            return pattern.sub(replacement, plain)
    raise ModelError(
        f"the weight {name!r} belongs to neither nnU-Net's PlainConvUNet nor its ResidualEncoderUNet, the two networks that can be imported"
    )
