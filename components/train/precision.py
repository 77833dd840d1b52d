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

    It does with AMX, and with AMD's AVX512_BF16 (Zen 4 and later): 1.8 times as fast. On Intel's
    AVX-512, with BF16 or without, bfloat16 takes 1.3 times as long or more, on AVX2 20 times
    (pytorch/pytorch#118499 reports the same). Depthwise convolutions gain nothing.
    """
    if torch.cpu._is_amx_tile_supported():
        return True
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16")) and "AMD" in known.get("cpu_name", "")
