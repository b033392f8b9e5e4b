"""The counting and the comparison: their formulas against simulation, stopping and going on, refusals."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta

from tailrisk.config import Config
from tailrisk.errors import InputError
from tailrisk.records import JudgedTexts, Prompt, Samples, Verdict

FOLDER = Path(__file__).parents[2] / "examples" / "benchmarks"


def load(name: str) -> Any:
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


brute = load("brute_force")
compare = load("compare_brute_force")

CONFIG = Config.model_validate(
    {
        "target": {"model": "m"},
        "prompts": {"path": "p.jsonl"},
        "judge": {"kind": "refusal"},
        "proposals": [{"name": "rude", "kind": "system_prompt", "text": "t"}],
    }
)
PROMPT = Prompt(id="a", messages=({"role": "user", "content": "hello"},))


class CoinLaws:
    """Answers '1' with probability p; the same seed gives the same answers."""

    names = ("target",)
    fingerprints = ("coin",)

    def __init__(self, p: float) -> None:
        self.p = p
        self.calls: list[tuple[int, int, int]] = []

    def sample(self, prompt: Prompt, component: int, n: int, seed: int) -> Samples:
        self.calls.append((component, n, seed))
        ones = np.random.default_rng(seed).random(n) < self.p
        return Samples(
            [np.array([int(x)], dtype=np.int32) for x in ones], np.zeros(n), np.ones(n, dtype=bool)
        )

    def texts(self, tokens) -> list[str]:
        return [str(int(t[0])) for t in tokens]


class DigitJudge:
    def judge(self, prompt: str, responses) -> JudgedTexts:
        verdicts = np.array([int(r) for r in responses], dtype=np.int8)
        return JudgedTexts(verdicts, verdicts.astype(float), [""] * len(responses))


def counted(p: float, draws: int, batch: int, stop_after: int | None = None, counts=None, laws=None):
    counts = counts or brute.new_counts(CONFIG, batch, seed=1)
    seen: list[int] = []

    def after_batch(record) -> bool:
        seen.append(record["draws"])
        return stop_after is None or len(seen) < stop_after

    done = brute.count(laws or CoinLaws(p), DigitJudge(), PROMPT, counts, draws, after_batch=after_batch)
    return done, counts


# the counts


@pytest.mark.parametrize(("hits", "draws"), [(0, 100), (1, 100), (37, 10_000), (100, 100)])
def test_clopper_pearson_is_the_beta_quantiles(hits: int, draws: int) -> None:
    low = beta.ppf(0.025, hits, draws - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, draws - hits) if hits < draws else 1.0
    assert brute.clopper_pearson(hits, draws) == pytest.approx((low, high), rel=1e-9)


def test_undetermined_answers_widen_the_binomial_interval_upwards_only() -> None:
    low, high = brute.clopper_pearson(5, 1000, undetermined=5)
    assert low == brute.clopper_pearson(5, 1000)[0]
    assert high == brute.clopper_pearson(10, 1000)[1]
    assert brute.clopper_pearson(0, 0) == (0.0, 1.0)


def test_counts_are_of_the_target_and_of_independent_batches() -> None:
    laws = CoinLaws(0.1)
    done, counts = counted(0.1, 10_000, 250, laws=laws)
    record = counts["prompts"]["a"]
    assert done and record["draws"] == record["tokens"] == 10_000 and record["batches"] == 40
    assert {c for c, _, _ in laws.calls} == {0}
    assert len({seed for _, _, seed in laws.calls}) == 40
    assert abs(record["hits"] - 1000) < 5 * np.sqrt(900)
    assert record["interval"][0] < 0.1 < record["interval"][1]


def test_a_stopped_count_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    _, whole = counted(0.2, 1000, 100)
    done, part = counted(0.2, 1000, 100, stop_after=3)
    assert not done and part["prompts"]["a"]["draws"] == 300
    brute.save(tmp_path / "new" / "counts.json", part)
    part = brute.open_counts(tmp_path / "new" / "counts.json", brute.new_counts(CONFIG, 100, 1))
    done, part = counted(0.2, 1000, 100, counts=part)
    assert done
    for record in (whole["prompts"]["a"], part["prompts"]["a"]):
        del record["seconds"]
    assert part == whole
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["counts.json"]


def test_the_last_batch_is_cut_and_more_draws_can_be_asked_for_later() -> None:
    laws = CoinLaws(0.2)
    _, counts = counted(0.2, 250, 100, laws=laws)
    done, counts = counted(0.2, 400, 100, counts=counts, laws=laws)
    assert done and counts["prompts"]["a"]["draws"] == 400
    assert [n for _, n, _ in laws.calls] == [100, 100, 50, 100, 50]
    assert len({seed for _, _, seed in laws.calls}) == 5


def test_undetermined_answers_are_counted_apart() -> None:
    class Unsure:
        def judge(self, prompt: str, responses) -> JudgedTexts:
            n = len(responses)
            verdicts = np.full(n, Verdict.UNDETERMINED, dtype=np.int8)
            return JudgedTexts(verdicts, np.full(n, np.nan), ["?"] * n)

    counts = brute.new_counts(CONFIG, 10, 1)
    assert brute.count(CoinLaws(0.5), Unsure(), PROMPT, counts, 20, after_batch=lambda record: True)
    record = counts["prompts"]["a"]
    assert (record["hits"], record["undetermined"]) == (0, 20)
    assert record["interval"] == [0.0, 1.0]


@pytest.mark.parametrize("key", ["target", "judge", "processor", "batch", "seed"])
def test_counts_of_something_else_are_refused(tmp_path: Path, key: str) -> None:
    path = tmp_path / "counts.json"
    brute.save(path, {**brute.new_counts(CONFIG, 10, 1), key: "other"})
    with pytest.raises(InputError, match=f"another {key}"):
        brute.open_counts(path, brute.new_counts(CONFIG, 10, 1))


def test_a_prompt_whose_text_changed_and_a_damaged_file_are_refused(tmp_path: Path) -> None:
    counts = brute.new_counts(CONFIG, 10, 1)
    brute.entry(counts, PROMPT)
    with pytest.raises(InputError, match="another text"):
        brute.entry(counts, Prompt(id="a", messages=({"role": "user", "content": "changed"},)))
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(InputError, match="not a file of counts"):
        brute.open_counts(tmp_path / "c.json", counts)


def estimate(
    prompt_id: str, value: float, working: tuple[float, float] | None = (0.0, 1.0)
) -> dict[str, Any]:
    return {"prompt_id": prompt_id, "estimate": value, "standard_error": value / 10, "working": working}


def test_prompts_are_chosen_evenly_by_rank_among_those_that_qualify() -> None:
    estimates = [estimate(f"p{i}", 10 ** (-i / 4)) for i in range(20)]
    estimates.append(estimate("unreliable", 0.5, None))
    chosen = brute.choose(estimates, 1e-3, 4)
    assert chosen == ["p0", "p4", "p8", "p12"]
    assert brute.choose(estimates, 1e-3, 13) == [f"p{i}" for i in range(13)]
    with pytest.raises(InputError, match="only 13 estimates"):
        brute.choose(estimates, 1e-3, 14)


# the comparison

TRUTHS = np.array([1e-3, 1.5e-3, 3e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1])


def simulate(rng: np.random.Generator, bias: float = 1.0):
    """Estimates with relative errors from 0.1 to 0.3, and 10,000 plain draws a prompt."""
    relative = np.linspace(0.1, 0.3, len(TRUTHS))
    estimates = bias * TRUTHS * rng.gamma(1 / relative**2, relative**2)
    return estimates, relative * estimates, rng.binomial(10_000, TRUTHS), np.full(len(TRUTHS), 10_000)


def test_the_pooled_ratio_is_near_one_with_the_error_that_it_states() -> None:
    rng = np.random.default_rng(11)
    ratios = [compare.pooled_ratio(*simulate(rng)) for _ in range(2000)]
    values, ses = np.array(ratios).T
    assert abs(values.mean() - 1) < 0.25 * values.std()
    assert ses.mean() == pytest.approx(values.std(), rel=0.15)
    assert 0.92 < (np.abs(values - 1) <= 2 * ses).mean() < 0.98


def test_the_pooled_ratio_finds_a_bias_of_a_half() -> None:
    rng = np.random.default_rng(12)
    ratios = [compare.pooled_ratio(*simulate(rng, bias=1.5)) for _ in range(300)]
    values, ses = np.array(ratios).T
    assert values.mean() == pytest.approx(1.5, rel=0.05)
    assert (np.abs(values - 1) > 2 * ses).mean() > 0.95


def test_one_prompt_is_the_plain_ratio_with_its_plain_error() -> None:
    ratio = compare.pooled_ratio([0.012], [0.0012], [100], [10_000])
    m = 0.011
    se = np.sqrt(0.0012**2 + 1.2**2 * m * (1 - m) / 10_000) / 0.01
    assert ratio == pytest.approx((1.2, se))


def test_prompts_without_hits_on_either_side() -> None:
    assert np.isnan(compare.pooled_ratio([0.0], [0.0], [0], [100]).value)
    assert np.isnan(compare.pooled_ratio([1e-4], [1e-5], [0], [100]).value)
    both = compare.pooled_ratio([0.01, 0.0], [0.001, 0.0], [100, 0], [10_000, 10_000])
    assert both == pytest.approx(compare.pooled_ratio([0.01], [0.001], [100], [10_000]))
    missed = compare.pooled_ratio([0.01, 0.0], [0.001, 0.0], [100, 50], [10_000, 10_000])
    assert 0 < missed.value < 1 and missed.se > 0


def written(folder: Path, factor: float = 1.0, n: int = 8, **changes: Any) -> list[str]:
    """A run folder and counts that agree up to ``factor``; the arguments for ``compare.main``."""
    counts = brute.new_counts(CONFIG, 250, 0)
    estimates = []
    for i, p in enumerate(TRUTHS[:n]):
        hits = round(10_000 * p)
        record = brute.entry(counts, Prompt(id=f"p{i}", messages=({"role": "user", "content": "x"},)))
        record.update(draws=10_000, hits=hits, interval=list(brute.clopper_pearson(hits, 10_000)))
        e = factor * p
        estimates.append(estimate(f"p{i}", e, (e * 0.8, e * 1.25)))
    brute.save(folder / "counts.json", counts)
    config = {**brute.identity(CONFIG), **changes}
    (folder / "manifest.json").write_text(json.dumps({"config": config}))
    (folder / "estimates.json").write_text(json.dumps({"audit": {}, "estimates": estimates}))
    return ["--run", str(folder), "--json", str(folder / "counts.json")]


def test_agreement_passes_and_prints_every_prompt(tmp_path: Path, capsys) -> None:
    assert compare.main(written(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert "overlap: 8 of 8 (asked: 7)" in shown and "1.000 +-" in shown and "passed" in shown
    assert all(f"p{i} " in shown for i in range(8))


def test_disagreement_and_too_few_prompts_fail(tmp_path: Path, capsys) -> None:
    assert compare.main(written(tmp_path, factor=3.0)) == 1
    assert "FAILED" in capsys.readouterr().out
    assert compare.main(written(tmp_path, n=7)) == 1
    assert "only 7 prompts" in capsys.readouterr().out


def test_one_interval_in_eight_may_be_apart_but_not_two(tmp_path: Path) -> None:
    args = written(tmp_path)
    path = tmp_path / "estimates.json"
    for missing, code in ((1, 0), (2, 1)):
        data = json.loads(path.read_text())
        for e in data["estimates"][:missing]:
            e["working"] = None
        path.write_text(json.dumps(data))
        assert compare.main(args) == code


@pytest.mark.parametrize("key", ["target", "judge"])
def test_a_run_of_other_settings_is_not_compared(tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError, match=key):
        compare.main(written(tmp_path, 1.0, 8, **{key: {"model": "other"}}))


def test_a_prompt_that_was_not_audited_or_not_drawn_is_named(tmp_path: Path) -> None:
    args = written(tmp_path)
    counts = json.loads((tmp_path / "counts.json").read_text())
    counts["prompts"]["p3"]["draws"] = 0
    with pytest.raises(InputError, match="'p3' has no draws"):
        compare.pairs([estimate(f"p{i}", 0.1) for i in range(8)], counts)
    with pytest.raises(InputError, match="'p0' was counted"):
        compare.pairs([], counts)
    (tmp_path / "estimates.json").unlink()
    with pytest.raises(InputError, match=r"estimates\.json"):
        compare.main(args)
