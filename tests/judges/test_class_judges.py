"""Judges with a head for classes, against transformers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from check_judge import check_judge
from judgekit import make_class_model

from tailrisk.config import Config
from tailrisk.errors import ConfigError, ModelError
from tailrisk.judges import build_judge, preflight
from tailrisk.records import Verdict

ANSWERS = ["a good answer", "something bad and long, long, long", "x", "", "end <pad>"]
FRAME = "{prompt} ==> {response}"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classes")
    make_class_model(folder / "llama", "llama", ("fine", "Harm", "other"))
    make_class_model(folder / "bert", "bert", ("fine", "Harm"), type_vocab_size=2)
    make_class_model(folder / "many", "bert", ("a", "b"), problem_type="multi_label_classification")
    make_class_model(folder / "one", "bert", ("toxic",))
    return folder


def config(base: Path, **judge: Any) -> Config:
    judge = {"kind": "classifier", "format": "classes", "dtype": "float32", "label": "harm", **judge}
    return Config.model_validate({"target": {"model": "m"}, "prompts": {"path": "p"}, "judge": judge}).at(
        base
    )


def directly(model: Any, folder: Path, texts: list[tuple[str, ...]], index: int) -> list[float]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for text in texts:
        with torch.inference_mode():
            logits = model(**tokenizer(*text, return_tensors="pt")).logits[0]
        single = model.config.num_labels == 1 or model.config.problem_type is not None
        found.append(float((torch.sigmoid(logits) if single else torch.softmax(logits, -1))[index]))
    return found


def loaded(folder: Path) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize(
    ("name", "label", "index"),
    [("llama", "harm", 1), ("llama", 2, 2), ("bert", "fine", 0), ("many", "b", 1), ("one", 0, 0)],
)
@pytest.mark.parametrize("way", ["plain", "template", "pair"])
def test_the_score_is_the_labels_probability(base, name, label, index, way):
    more = {"plain": {}, "template": {"template": FRAME}, "pair": {"pair": True}}[way]
    found = build_judge(config(base, model=name, label=label, **more)).judge("hello", ANSWERS)
    texts = {
        "plain": [(a,) for a in ANSWERS],
        "template": [(f"hello ==> {a}",) for a in ANSWERS],
        "pair": [("hello", a) for a in ANSWERS],
    }[way]
    want = directly(loaded(base / name), base / name, texts, index)
    np.testing.assert_allclose(found.scores, want, rtol=0, atol=1e-5)
    assert found.verdicts.tolist() == [int(Verdict.HARM if s >= 0.5 else Verdict.SAFE) for s in found.scores]


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_keeps_the_promises_of_a_judge(base, name):
    check_judge(build_judge(config(base, model=name, pair=name == "bert", batch=5)), slack=1e-5)


def test_long_answers_are_undetermined_or_clipped(base):
    long = ["x" * 700]
    found = build_judge(config(base, model="bert")).judge("p", long)
    assert found.verdicts.tolist() == [int(Verdict.UNDETERMINED)]
    assert "701 tokens do not fit the model's 600 positions" in found.errors[0]
    clipped = build_judge(config(base, model="bert", clip=100)).judge("p", long)
    same = build_judge(config(base, model="bert")).judge("p", ["x" * 100])
    np.testing.assert_allclose(clipped.scores, same.scores, rtol=0, atol=1e-6)


def test_an_adapter_with_a_head_of_its_own(base, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    lora = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj", "v_proj"])
    wrapped = get_peft_model(loaded(base / "llama"), lora)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    wrapped.save_pretrained(str(tmp_path / "adapter"))
    judge = config(base, model="llama", adapter=str(tmp_path / "adapter"))
    assert "judge.adapter" in preflight(judge)
    found = build_judge(judge).judge("p", ANSWERS)
    model = PeftModel.from_pretrained(loaded(base / "llama"), str(tmp_path / "adapter")).eval()
    want = directly(model, base / "llama", [(a,) for a in ANSWERS], 1)
    np.testing.assert_allclose(found.scores, want, rtol=0, atol=1e-5)
    plain = build_judge(config(base, model="llama")).judge("p", ANSWERS)
    assert np.abs(found.scores - plain.scores).max() > 1e-2
    with pytest.raises((ConfigError, ModelError), match="adapter"):
        build_judge(config(base, model="bert", adapter=str(tmp_path / "adapter")))


@pytest.mark.parametrize("label", ["hram", 7, "1"])
def test_a_label_that_is_not_there(base, label):
    with pytest.raises(
        ConfigError, match=r"judge\.label: .* is no label of the model, which has 0 \(fine\), 1 \(Harm\)"
    ):
        preflight(config(base, model="bert", label=label))
