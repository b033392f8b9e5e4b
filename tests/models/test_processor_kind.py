"""The name of what computes a model's numbers."""

from __future__ import annotations

import pytest
import torch

from tailrisk.models.processors import VECTOR_UNITS, processor_kind


@pytest.mark.parametrize(
    ("has", "named"),
    [
        (VECTOR_UNITS, "amx_bf16"),
        (VECTOR_UNITS[1:], "avx512_bf16"),
        (("avx512_f", "avx2"), "avx512_f"),
        (("avx2", "avx512_vnni"), "avx2"),
        ((), "no vector unit known here"),
    ],
)
def test_the_best_unit_names_a_cpu(monkeypatch: pytest.MonkeyPatch, has: tuple[str, ...], named: str) -> None:
    found = {"architecture": "x86_64", **dict.fromkeys(VECTOR_UNITS, False), **dict.fromkeys(has, True)}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert processor_kind(torch.device("cpu")) == f"x86_64 with {named}"


def test_other_devices_have_their_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA card {device.index}")
    assert processor_kind(torch.device("cuda", 1)) == "NVIDIA card 1"
    assert processor_kind(torch.device("mps")) == "mps"


def test_this_machine_has_a_name() -> None:
    kind = processor_kind(torch.device("cpu"))
    assert kind == processor_kind(torch.device("cpu")) and " with " in kind
