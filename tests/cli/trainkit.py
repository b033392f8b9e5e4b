"""What every verb of ``tailrisk train`` does alike when something is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tailrisk.cli import run

Capture = pytest.CaptureFixture[str]


def check_refused(
    train: Callable[[], int], loader: str, message: str, folder: Path, capfd: Capture, patch: Any
) -> None:
    """An error that says what is wrong, before ``loader`` of ``tailrisk.proposals`` is called; nothing is written."""
    import tailrisk.proposals

    def loaded(*_: object) -> None:
        raise AssertionError("the model was loaded")

    patch.setattr(tailrisk.proposals, loader, loaded)
    assert train() == 2
    err = capfd.readouterr().err
    assert "error: " in err and message in err and "Traceback" not in err
    assert list(folder.iterdir()) == []


def check_unwritable(train: Callable[[Path], int], name: str, folder: Path, capfd: Capture) -> None:
    (folder / "file").write_text("")
    for out, message in (
        (folder / f"{name}.pt", "must end in .safetensors"),
        (folder / "file" / f"{name}.safetensors", "cannot be written to"),
    ):
        assert train(out) == 2
        assert message in capfd.readouterr().err


def check_ctrl_c(train: Callable[[], int], module: ModuleType, step: str, capfd: Capture, patch: Any) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    patch.setattr(module, step, interrupted)
    assert train() == 130
    err = capfd.readouterr().err
    assert "interrupted." in err and "Traceback" not in err


def check_help(verb: str, options: Sequence[str], capfd: Capture) -> None:
    assert run(["train", verb, "--help"]) == 0
    out = capfd.readouterr().out
    assert all(option in out for option in options)
    assert run(["train", "--help"]) == 0
    assert verb in capfd.readouterr().out
