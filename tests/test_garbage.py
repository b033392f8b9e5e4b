"""The collector's settings are those of before afterwards; giving memory back does no harm anywhere."""

from __future__ import annotations

import ctypes
import gc

import numpy as np
import pytest

from tailrisk.garbage import collected_seldom, give_back


def test_the_collector_looks_seldom_for_a_while():
    before = gc.get_threshold()
    with pytest.raises(KeyError), collected_seldom():
        assert gc.get_threshold()[0] > before[0] and gc.isenabled()
        raise KeyError
    assert gc.get_threshold() == before


def test_memory_goes_back_where_the_library_can(monkeypatch: pytest.MonkeyPatch):
    kept = [np.arange(100.0) for _ in range(1000)]
    give_back()
    assert all(x[99] == 99.0 for x in kept)

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    give_back()
