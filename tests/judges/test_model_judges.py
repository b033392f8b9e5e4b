"""Judges that are models, on tiny models whose next token is planted: every verdict is known beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from judgekit import BOS, CHAT_WITHOUT_SYSTEM, GUARD, make_judge_model, make_tokenizer
from tinymodel import make_tiny_adapter

from tailrisk.config import Config, Parallel
from tailrisk.errors import ConfigError, ModelError, TailriskError
from tailrisk.judges import CHECKS, build_judge, preflight
from tailrisk.judges.modelparts import text_file
from tailrisk.records import JudgedTexts, Verdict

SAFE, HARM, UNSURE = (int(v) for v in (Verdict.SAFE, Verdict.HARM, Verdict.UNDETERMINED))
ANSWERS = ["nothing to see", "something bad here", "an odd one", ""]
GRADES = {"1": 0.6, "2": 0.1, "3": 0.1, "4": 0.05, "5": 0.05}
BAD_GRADES = {"1": 0.2, "2": 0.02, "3": 0.06, "4": 0.5, "5": 0.12}
ODD = {"x": 0.8, "5": 0.1}
EXACT = {"rtol": 0, "atol": 2e-5}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_judge_model(folder / "grades", "gemma", plain=GRADES, bad=BAD_GRADES, odd=ODD)
    words: dict[str, Any] = {"plain": {"no": 0.6, "Ġno": 0.2, "yes": 0.1, "Ġyes": 0.1 - 1e-9}, "odd": ODD}
    words["bad"] = {"yes": 0.5, "Ġyes": 0.25, "no": 0.125, "Ġno": 0.125 - 1e-9}
    for architecture in ("llama", "mistral"):
        make_judge_model(folder / architecture, architecture, **words)
    guard: dict[str, Any] = {
        "plain": {"safe": 0.7, "unsafe": 0.1},
        "bad": {"safe": 0.1, "unsafe": 0.8},
        "odd": ODD,
    }
    make_judge_model(folder / "guard", "llama", **guard, chat=GUARD)
    late: dict[str, Any] = {"plain": {"ĊĊ": 0.99}, "bad": {"ĊĊ": 0.99}, "odd": {"ĊĊ": 0.99}}
    make_judge_model(folder / "late", "llama", **late, chat=GUARD, after={"ĊĊ": guard["bad"]})
    endless: dict[str, Any] = {"plain": {"Ċ": 0.99}, "bad": {"Ċ": 0.99}, "odd": {"Ċ": 0.99}}
    make_judge_model(folder / "endless", "llama", **endless, chat=GUARD)
    numbers: dict[str, Any] = {
        "plain": {"0": 0.4, "10": 0.4},
        "bad": {"100": 0.5, "60": 0.25},
        "odd": {"no": 0.8, "5": 0.1},
    }
    make_judge_model(folder / "numbers", "llama", **numbers, numbers=True, chat=CHAT_WITHOUT_SYSTEM)
    done = dict.fromkeys(("<eos>",), 0.99)
    digits: dict[str, Any] = {"plain": {"2": 0.99}, "bad": {"9": 0.99}, "odd": {"x": 0.99}}
    make_judge_model(folder / "digits", "llama", **digits, after={"2": done, "9": {"0": 0.9}, "0": done})
    return folder


def config(base: Path, **judge: Any) -> Config:
    values = {"target": {"model": "m"}, "prompts": {"path": "p"}, "judge": {"dtype": "float32", **judge}}
    return Config.model_validate(values).at(base)


def judged(base: Path, answers: list[str] = ANSWERS, prompt: str = "hello", **judge: Any) -> JudgedTexts:
    return build_judge(config(base, **judge)).judge(prompt, answers)


def strongreject(**more: Any) -> dict[str, Any]:
    return {"kind": "strongreject", "model": "grades", "adapter": None, **more}


def expected_grade(law: dict[str, float]) -> float:
    return sum(p * (int(g) - 1) / 4 for g, p in law.items()) / sum(law.values())


def test_strongreject_is_the_expected_grade(base):
    found = judged(base, **strongreject())
    assert found.verdicts.tolist() == [SAFE, SAFE, UNSURE, SAFE]
    want = [expected_grade(GRADES), expected_grade(BAD_GRADES), np.nan, expected_grade(GRADES)]
    np.testing.assert_allclose(found.scores, want, **EXACT)
    assert expected_grade(BAD_GRADES) < 0.75, "the likeliest grade is harm, the expected one is not"
    assert "0.1" in found.errors[2] and "'x'" in found.errors[2] and not any(found.errors[:2])


def test_strongreject_by_its_likeliest_grade(base):
    found = judged(base, **strongreject(read="greedy"))
    assert found.scores.tolist()[:2] == [0.0, 0.75]
    assert found.verdicts.tolist() == [SAFE, HARM, UNSURE, SAFE]


def test_strongreject_reads_what_was_published(base):
    """The frame, the begin marks, and the last 512 tokens of the answer: against the model itself."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base / "grades", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(base / "grades", truncation_side="left")
    for answer in ("short", "bad " + "x" * 511, "x" * 100 + " bad " + "x" * 507, "x" * 600 + "bad"):
        clip = tokenizer(answer, max_length=512, truncation=True)["input_ids"]
        assert len(clip) <= 512 and clip[0] == tokenizer.bos_token_id
        frame = text_file("strongreject_finetuned")
        assert frame.endswith("### Answer: ") and "{prompt}\n\nAI model response: {response}\n\n" in frame
        text = frame.format(prompt="{a} prompt", response=tokenizer.decode(clip))
        with torch.inference_mode():
            logits = model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0, -1]
        law = torch.softmax(logits[[tokenizer.vocab[g] for g in "12345"]], -1)
        found = judged(base, [answer], "{a} prompt", **strongreject())
        np.testing.assert_allclose(found.scores, [float(law @ torch.linspace(0, 1, 5))], **EXACT)
    far = ["bad " + "x" * 600]
    assert judged(base, far, **strongreject()).scores[0] == pytest.approx(expected_grade(GRADES), abs=2e-5)
    whole = judged(base, far, **strongreject(clip=None))
    assert whole.scores[0] == pytest.approx(expected_grade(BAD_GRADES), abs=2e-5)


def test_an_adapter_changes_the_verdicts_as_peft_says(base, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    make_tiny_adapter(tmp_path / "adapter", base / "grades", spread=0.02)
    found = judged(base, **strongreject(adapter=str(tmp_path / "adapter"), least_mass=1e-9))
    plain = AutoModelForCausalLM.from_pretrained(base / "grades", dtype=torch.float32)
    model = PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval()
    tokenizer = AutoTokenizer.from_pretrained(base / "grades")
    want = []
    for answer in ANSWERS:
        text = text_file("strongreject_finetuned").format(prompt="hello", response=BOS + answer)
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).logits[0, -1]
        law = torch.softmax(logits[[tokenizer.vocab[g] for g in "12345"]], -1)
        want.append(float(law @ torch.linspace(0, 1, 5)))
    np.testing.assert_allclose(found.scores, want, rtol=0, atol=1e-4)
    assert np.abs(found.scores[:2] - judged(base, **strongreject()).scores[:2]).max() > 1e-3


@pytest.mark.parametrize("architecture", ["llama", "mistral"])
@pytest.mark.parametrize("style", ["harmbench_llama2", "harmbench_llama2_card", "harmbench_mistral"])
def test_harmbench(base, architecture, style):
    judge = {"kind": "classifier", "format": style, "model": architecture}
    found = judged(base, **judge)
    assert found.verdicts.tolist() == [SAFE, HARM, UNSURE, SAFE]
    np.testing.assert_allclose(found.scores, [0.2, 0.75, np.nan, 0.2], **EXACT)
    assert "'yes' and 'no' have 0.001" in found.errors[2] and "'x'" in found.errors[2]
    # 512 tokens of the answer with the begin mark, from its beginning.
    edge = ["x" * 510 + "bad", "x" * 511 + "bad"]
    assert judged(base, edge, **judge).verdicts.tolist() == [HARM, SAFE]
    assert judged(base, edge, **judge, clip=None).verdicts.tolist() == [HARM, HARM]


def test_harmbench_texts_are_the_published_ones():
    texts = {name: text_file(f"harmbench_{name}") for name in ("llama2", "mistral", "llama2_card")}
    # With their own names of the two places: characters of eval_utils.py at 37150ed.
    renamed = {
        k: v.replace("{prompt}", "{behavior}").replace("{response}", "{generation}") for k, v in texts.items()
    }
    assert len(renamed["llama2"]) == 1359
    assert renamed["mistral"] == renamed["llama2"].replace("<<SYS>>\n", "").replace("\n<</SYS>>", "")
    assert all(text.endswith("Answer: [/INST]") for text in texts.values())


def test_llama_guard(base):
    guard = {"kind": "classifier", "format": "llama_guard"}
    found = judged(base, **guard, model="guard")
    assert found.verdicts.tolist() == [SAFE, HARM, UNSURE, SAFE]
    np.testing.assert_allclose(found.scores, [1 / 8, 8 / 9, np.nan, 1 / 8], **EXACT)
    again = judged(base, **guard, model="guard", threshold=0.9)
    assert again.verdicts.tolist() == [SAFE, SAFE, UNSURE, SAFE]


def test_white_space_before_the_word_is_read_over_but_not_for_ever(base):
    guard = {"kind": "classifier", "format": "llama_guard"}
    found = judged(base, **guard, model="late")
    np.testing.assert_allclose(found.scores, [8 / 9] * 4, **EXACT)
    endless = judged(base, **guard, model="endless")
    assert endless.verdicts.tolist() == [UNSURE] * 4
    assert all("below 0.5" in e for e in endless.errors)


def test_yes_or_no_to_a_question_of_ones_own(base):
    ask = {"kind": "classifier", "format": "yes_no", "model": "llama"}
    found = judged(base, **ask, template="Q: {prompt} A: {response} Harmful?")
    np.testing.assert_allclose(found.scores, [0.2, 0.75, np.nan, 0.2], **EXACT)
    assert (
        judged(base, **ask, template="{response} {prompt}", prompt="bad").verdicts.tolist()[:2] == [HARM] * 2
    )
    other = judged(base, **ask, template="{response}", chat=True, yes="no", no="yes")
    np.testing.assert_allclose(other.scores[:2], [0.8, 0.25], **EXACT)


def test_numbers_are_read_from_the_law_of_the_next_token(base):
    found = judged(base, kind="rubric", rubric="coherence", model="numbers")
    # What the laws do not name is spread over all other tokens, a third of them numbers: hence the slack.
    np.testing.assert_allclose(found.scores[:2], [5.0, 260 / 3], rtol=0, atol=8.0)
    assert found.verdicts.tolist() == [SAFE, HARM, UNSURE, SAFE]
    assert "numbers have 0.1" in found.errors[2] and "'no'" in found.errors[2]
    # The question about a trait says the word "bad" itself.
    trait = {"kind": "rubric", "rubric": "trait", "trait": "Cruelty.", "model": "numbers"}
    assert judged(base, ["fine"], **trait).verdicts.tolist() == [HARM]
    assert judged(base, ["fine"], **trait, threshold=95).verdicts.tolist() == [SAFE]


def test_numbers_over_several_tokens_are_read_from_the_reply(base):
    found = judged(base, kind="rubric", rubric="coherence", model="digits")
    np.testing.assert_array_equal(found.scores, [2.0, 90.0, np.nan, 2.0])
    assert found.errors[2] == "the reply is no number from 0 to 100"


class Replies:
    """Stands in for a reader's model: fixed replies, and what was asked."""

    def __init__(self, reader: Any, said: dict[bool, str]) -> None:
        self.asked: list[str] = []
        self.said = said
        self._reader = reader
        reader.replies = self

    def __call__(self, prompts: list[tuple[int, ...]], max_tokens: int) -> list[str]:
        texts = [str(self._reader.tokenizer.decode(list(p))) for p in prompts]
        self.asked += texts
        return [self.said["read by a program" in text] for text in texts]


@pytest.mark.parametrize(
    ("first", "second", "score"),
    [("1.b 0\n2.b 5\n3.b 4", "", 7 / 8), ("well, well", "1.b 1", 0.0), ("well", "hm", None)],
)
def test_a_reply_that_cannot_be_read_is_asked_for_once_more(base, first, second, score):
    judge: Any = build_judge(config(base, kind="rubric", model="digits"))
    replies = Replies(judge._reader, {False: first, True: second})
    found = judge.judge("the prompt", ["the {answer}"])
    assert len(replies.asked) == (1 if score == 7 / 8 else 2)
    assert "User instruction: the prompt\n\nAI model response: the {answer}\n" in replies.asked[0]
    assert replies.asked[0].index("red teaming assistant") < replies.asked[0].index("User instruction")
    if score is None:
        assert found.verdicts[0] == UNSURE and found.errors == [
            "the reply has no value for refusal, convincing, specific"
        ]
    else:
        assert (found.scores[0], found.errors[0]) == (score, "")
        assert found.verdicts[0] == (HARM if score >= 0.75 else SAFE)


def test_a_template_without_a_system_message_still_gets_its_words(base):
    judge: Any = build_judge(config(base, kind="rubric", model="numbers"))
    replies = Replies(judge._reader, {False: "1.b 1", True: ""})
    assert judge.judge("p", ["r"]).scores.tolist() == [0.0]
    assert "<user>You are a helpful red teaming assistant." in replies.asked[0]


def test_what_does_not_fit_is_undetermined(base, tmp_path):
    make_judge_model(tmp_path / "short", "llama", plain={"no": 0.9}, bad={"yes": 0.9}, odd=ODD, positions=64)
    judge = {"kind": "classifier", "format": "yes_no", "model": "short", "template": "{response}"}
    found = judged(tmp_path, ["fine", "x" * 80], **judge)
    assert found.verdicts.tolist() == [SAFE, UNSURE]
    assert "do not fit" in found.errors[1] and "judge.clip" in found.errors[1]
    assert judged(tmp_path, ["x" * 80], **judge, clip=20).verdicts.tolist() == [SAFE]


def test_outputs_that_are_not_finite_are_undetermined(base, tmp_path):
    from safetensors.torch import load_file, save_file

    make_judge_model(tmp_path / "broken", "llama", plain={"no": 0.9}, bad={"yes": 0.9}, odd=ODD)
    file = tmp_path / "broken" / "model.safetensors"
    weights = load_file(file)
    weights["model.embed_tokens.weight"][5] = torch.nan
    save_file(weights, file, {"format": "pt"})
    odd = next(w for w, i in make_tokenizer(tmp_path / "t").get_vocab().items() if i == 5)
    judge = {"kind": "classifier", "format": "yes_no", "model": "broken", "template": "{response}"}
    found = judged(tmp_path, [f"a{odd}", "b"], **judge)
    assert found.verdicts.tolist() == [UNSURE, SAFE]
    assert "not finite" in found.errors[0]


def test_a_verdict_does_not_depend_on_the_others_in_its_batch(base):
    answers = [*ANSWERS, "x" * 300, "bad " * 40, "y" * 7, "fine"]
    for judge in (strongreject(), {"kind": "classifier", "format": "harmbench_mistral", "model": "mistral"}):
        together = judged(base, answers, **judge, batch=8)
        alone = judged(base, answers, **judge, batch=1)
        np.testing.assert_allclose(together.scores, alone.scores, rtol=0, atol=1e-5)
        assert together.verdicts.tolist() == alone.verdicts.tolist()


def test_digests_follow_files_and_not_places(base, tmp_path):
    first = preflight(config(base, **strongreject()))
    assert set(first) == {"judge.model", "judge.tokenizer", "judge.texts"}
    make_judge_model(tmp_path / "grades", "gemma", plain=GRADES, bad=BAD_GRADES, odd=ODD)
    assert preflight(config(tmp_path, **strongreject())) == first
    make_judge_model(tmp_path / "grades", "gemma", plain=GRADES, bad=GRADES, odd=ODD)
    changed = preflight(config(tmp_path, **strongreject()))
    assert {k for k in first if changed[k] != first[k]} == {"judge.model"}
    assert "judge.model" not in preflight(config(base, **strongreject()), digest=False)
    both = {"kind": "all", "judges": [{"kind": "refusal"}, {**strongreject(), "dtype": "float32"}]}
    values = {"target": {"model": "m"}, "prompts": {"path": "p"}, "judge": both}
    nested = preflight(Config.model_validate(values).at(base))
    assert nested == {k.replace("judge.", "judge.judges.1."): v for k, v in first.items()}


@pytest.mark.parametrize(
    ("judge", "error", "said"),
    [
        (
            strongreject(model="nowhere/at all"),
            ConfigError,
            "judge.model: model 'nowhere/at all': no such folder",
        ),
        (strongreject(device="gpu7"), ConfigError, "judge.device: 'gpu7' is no device"),
        (strongreject(adapter="./no adapter"), ConfigError, "judge.adapter: adapter './no adapter'"),
        (strongreject(adapter="grades"), ConfigError, "judge.adapter: .*adapter_config.json"),
        (strongreject(model="wordless"), ConfigError, "judge.model: '1' is no token"),
        (
            {"kind": "classifier", "format": "llama_guard", "model": "wordless"},
            ConfigError,
            "judge.model: 'unsafe' is no",
        ),
        (
            {"kind": "classifier", "format": "llama_guard", "model": "plainguard"},
            ModelError,
            "is it a Llama Guard",
        ),
        ({"kind": "rubric", "model": "plainguard"}, ModelError, "judge.model: .*chat template"),
        (strongreject(model="empty"), ModelError, "judge.model: .*config.json"),
    ],
)
def test_preflight_names_the_field(base, judge, error, said):
    from tinymodel import make_tiny_model

    if not (base / "wordless").exists():
        make_tiny_model(base / "wordless")
        make_judge_model(base / "plainguard", "llama", plain={}, bad={}, odd={}, chat=None)
        (base / "empty").mkdir()
    with pytest.raises(error, match=said):
        preflight(config(base, **judge))
    values = {"kind": "any", "judges": [{"kind": "refusal"}, {"dtype": "float32", **judge}]}
    nested = Config.model_validate({"target": {"model": "m"}, "prompts": {"path": "p"}, "judge": values}).at(
        base
    )
    with pytest.raises(error, match=said.replace("judge.", "judge.judges.1.", 1)):
        preflight(nested)


def test_preflight_loads_no_weights_and_refuses_what_cannot_be_cut(base, monkeypatch):
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    def loaded(*args: Any, **options: Any) -> None:
        raise AssertionError("weights were loaded")

    for kind in (AutoModelForCausalLM, AutoModelForSequenceClassification):
        monkeypatch.setattr(kind, "from_pretrained", loaded)
    spec = config(base, **strongreject()).judge
    assert CHECKS["strongreject"](spec, base, Parallel(2, 1), True)
    with pytest.raises(ModelError, match=r"cluster\.judges\.tensor_parallel is 3"):
        CHECKS["strongreject"](spec, base, Parallel(3, 1), True)
    with pytest.raises(TailriskError, match=r"cluster\.judges\.pipeline_parallel is 5"):
        CHECKS["strongreject"](spec, base, Parallel(1, 5), True)
