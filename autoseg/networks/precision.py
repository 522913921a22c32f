"""The number format that a network computes in, chosen by what the device can do, never by a timing, and recorded with every result."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from autoseg.errors import DeviceError

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")


def choose_precision(device: torch.device | str) -> Precision:
    """The number format for mixed precision on a device.

    bf16 where the hardware multiplies it natively (processors with AMX or AVX512-BF16, CUDA capability 8.0 and later), fp16 on CUDA 7.x
    (matrix units without bf16), else fp32.
    """
    device = torch.device(device)
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return "bf16" if major >= 8 else "fp16" if major == 7 else "fp32"
    if device.type == "cpu" and (_supports("_is_amx_tile_supported") or _supports("_is_avx512_bf16_supported")):
        return "bf16"
    return "fp32"


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first CUDA device where there is one, else the CPU.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:INDEX".

    Raises:
        DeviceError: the device is not there, or the name is none.
    """
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"--device {name}: is no device. Give auto, cpu, cuda or cuda:INDEX") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = device.index or 0
        if index >= count:
            raise DeviceError(f"--device {name}: this machine shows {count} CUDA devices to torch. Use --device cpu or auto")
        return torch.device("cuda", index)
    return device


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """A context in which networks compute in `precision` on `device`; for fp32 one that changes nothing."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def _supports(name: str) -> bool:
    # Private in torch, so it may go; a release without it falls back to fp32, which is right everywhere.
    query = getattr(torch.cpu, name, None)
    return bool(query()) if query is not None else False
