"""The files under clusters/: options that DeepSpeed and the training's own settings agree to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrisk.training.backends.zero import deepspeed_options
from tailrisk.trainingconfig import LoraTraining

FILES = sorted((Path(__file__).parent.parent / "clusters" / "deepspeed").glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_deepspeed_knows_the_options(path: Path):
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    options = deepspeed_options(LoraTraining(backend="deepspeed", workers=2, deepspeed=str(path)))
    zero = options["zero_optimization"]
    found = DeepSpeedZeroConfig(**zero)
    assert int(found.stage) == zero["stage"]
    names = {n for n, f in DeepSpeedZeroConfig.model_fields.items()}
    names |= {f.alias for f in DeepSpeedZeroConfig.model_fields.values() if f.alias}
    assert set(zero) <= names, "a misspelt option would be passed over in silence"


def test_there_are_files():
    assert len(FILES) == 3
