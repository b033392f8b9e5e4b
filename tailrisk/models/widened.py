"""Half precision on processors without instructions for it: matrices are multiplied in float32, the results rounded.

torch's own products of half-precision matrices take several times as long there. The product of two half-precision
numbers is exact in float32, and processors that have such instructions add up in float32 too: only the order of the
sums is another one.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

ROWS = 8
"""Fewer rows are multiplied as they are: turning the weights into float32 costs as much."""
BLOCK = 2**20
"""Weights that are float32 at a time, 4 MiB: so many stay in the processor's cache, and need no memory anew."""


def widen(model: nn.Module) -> None:
    """To be called with a model of one dtype on its device; changes nothing where half precision is not emulated."""
    parameter = next(model.parameters(), None)
    if parameter is None or parameter.device.type != "cpu" or not emulated(parameter.dtype):
        return
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = WideLinear


def emulated(dtype: torch.dtype) -> bool:
    """Whether torch has nothing but plain loops for products of ``dtype`` here: on x86 its libraries for half precision
    begin with AVX-512. Of other architectures nothing was measured, so they are left as they are."""
    has = torch.cpu.get_capabilities()
    narrow = dtype in (torch.bfloat16, torch.float16)
    return narrow and has["architecture"] == "x86_64" and not has.get("avx512_f")


class WideLinear(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if input.dtype.itemsize > 2 or input.numel() < ROWS * self.weight.shape[1]:
            return super().forward(input)
        wide = input.float()
        parts = self.weight.split(max(1, BLOCK // self.weight.shape[1]))
        shifts = [None] * len(parts) if self.bias is None else self.bias.split(len(parts[0]))
        made = [
            functional.linear(wide, part.float(), None if shift is None else shift.float()).to(input.dtype)
            for part, shift in zip(parts, shifts, strict=True)
        ]
        return made[0] if len(made) == 1 else torch.cat(made, -1)
