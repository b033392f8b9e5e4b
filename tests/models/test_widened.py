"""Half precision where the processor emulates it: the same arithmetic, by way of float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tinymodel import make_tiny_model
from torch import nn

from tailrisk.models import widened
from tailrisk.models.loading import load_model, resolve_model
from tailrisk.models.widened import ROWS, WideLinear, widen

HALVES = (torch.bfloat16, torch.float16)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, avx512_f=False)


def pretend(monkeypatch: pytest.MonkeyPatch, architecture: str = "x86_64", **units: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": architecture, **units})


def layer(dtype: torch.dtype, *, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(64, 48, bias=bias)).to(dtype)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, ROWS, 50])
def test_products_are_exact_sums_rounded_once(dtype: torch.dtype, bias: bool, rows: int) -> None:
    model = layer(dtype, bias=bias)
    x = torch.randn(2, rows, 64, generator=torch.Generator().manual_seed(2)).to(dtype)
    weight, shift = model[0].weight.double(), model[0].bias.double() if bias else 0.0
    exact = x.double() @ weight.T + shift
    widen(model)
    assert type(model[0]) is WideLinear and isinstance(model[0], nn.Linear)
    got = model(x)
    assert got.dtype == dtype and got.shape == (2, rows, 48)
    size = exact.abs().clamp_min(0.05)
    assert ((got.double() - exact).abs() / size).max() < 0.6 * torch.finfo(dtype).eps + 1e-5


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("bias", [True, False])
def test_large_layers_go_in_parts(monkeypatch: pytest.MonkeyPatch, bias: bool) -> None:
    model, x = layer(torch.bfloat16, bias=bias), torch.randn(3, ROWS, 64).bfloat16()
    widen(model)
    whole = model(x)
    for block in (64 * 7, 64, 1):
        monkeypatch.setattr(widened, "BLOCK", block)
        torch.testing.assert_close(model(x), whole, rtol=torch.finfo(torch.bfloat16).eps, atol=1e-3)


@pytest.mark.usefixtures("narrow")
def test_what_training_needs_is_there() -> None:
    model = layer(torch.bfloat16)
    names = list(model.state_dict())
    widen(model)
    assert list(model.state_dict()) == names
    x = torch.ones(ROWS, 64, dtype=torch.bfloat16, requires_grad=True)
    model(x).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad[0].float(), model[0].weight.float().sum(0).bfloat16().float())


def test_others_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, avx512_f=False)
    for dtype in (torch.float32, torch.float64):
        model = layer(dtype)
        widen(model)
        assert type(model[0]) is nn.Linear
    widen(nn.Sequential())
    for architecture, unit in (("x86_64", True), ("aarch64", False)):
        pretend(monkeypatch, architecture, avx512_f=unit)
        model = layer(torch.bfloat16)
        widen(model)
        assert type(model[0]) is nn.Linear


def test_a_loaded_model_errs_no_more_than_with_the_processors_own_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tiny_model(tmp_path / "model")
    ids = torch.arange(24).unsqueeze(0)

    def logits(model: nn.Module) -> torch.Tensor:
        with torch.inference_mode():
            return model(input_ids=ids).logits.double()

    errors = {}
    for emulated, kind in ((False, nn.Linear), (True, WideLinear)):
        pretend(monkeypatch, avx512_f=not emulated)
        model = load_model(resolve_model("model", tmp_path), "bfloat16", "cpu")
        assert {type(m) for m in model.modules() if isinstance(m, nn.Linear)} == {kind}
        rounded = logits(model)
        errors[emulated] = (rounded - logits(model.double())).square().mean().sqrt().item()
    assert 0 < errors[True] < 1.2 * errors[False]
