"""Arithmetic of a training run."""

from typing import Literal

import torch

from components.shared.model.segmenter import pick_device
from components.train.recipe import Compute

Precision = Literal["bf16-mixed", "16-mixed", "32-true"]


def pick_precision(compute: Compute) -> Precision:
    """Resolves `auto` to the arithmetic that the device computes fastest."""
    if compute.precision != "auto":
        return compute.precision
    if pick_device(compute.device) == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if has_bf16 else "16-mixed"
    return "bf16-mixed" if has_fast_bf16() else "32-true"


def has_fast_bf16() -> bool:
    """Returns whether the CPU computes faster in bfloat16 than in float32.

    Without AMX, bfloat16 takes 1.3 times as long as float32 on CPUs with AVX-512 and 20 times as
    long on those with AVX2 (pytorch/pytorch#118499 reports the same).
    """
    return torch.cpu._is_amx_tile_supported()
