"""The kind of processor that computes a model's numbers: in half precision another kind rounds in a way of its own."""

from __future__ import annotations

import torch

VECTOR_UNITS = ("amx_bf16", "avx512_bf16", "avx512_f", "avx2")
"""The first that a processor has decides which of torch's kernels it runs."""


def processor_kind(device: torch.device) -> str:
    """E.g. ``NVIDIA H200`` or ``x86_64 with avx512_bf16``; the same weights, dtype and versions of libraries give the
    same law on processors of one kind."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    has = torch.cpu.get_capabilities()
    unit = next((name for name in VECTOR_UNITS if has.get(name)), "no vector unit known here")
    return f"{has['architecture']} with {unit}"
