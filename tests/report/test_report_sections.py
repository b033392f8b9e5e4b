"""What the sections say, against the log and the estimates that they are made from."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fakerun import CASES, Case, make_run

from tailrisk.cli import run as run_command
from tailrisk.records import PromptPlan, Status
from tailrisk.report import material
from tailrisk.report.crosschecks import compared, top_shares_of
from tailrisk.report.material import gather
from tailrisk.report.populations import populations_view
from tailrisk.report.sections import report_of
from tailrisk.report.standard import standard_view
from tailrisk.report.validity import validity_view
from tailrisk.report.weighed import Weighed
from tailrisk.stats.certify import certify
from tailrisk.stats.judging import clopper_pearson
from tailrisk.store import final_numbers, final_results


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def made(run):
    return gather(run)


@pytest.fixture(scope="module")
def report(made):
    return report_of(made)


def estimates(run):
    return {e["prompt_id"]: e for e in json.loads((run / "estimates.json").read_text())["estimates"]}


def test_the_draws_that_are_kept_whole_give_the_certified_intervals_of_the_run(made, run):
    told = estimates(run)
    assert set(made.whole) == {"frequent", "rare", "rarer", "none-seen"}
    for prompt, rounds in made.whole.items():
        assert certify(rounds, alpha=1 - 0.95, corrected=False).interval == tuple(told[prompt]["certified"])


def test_the_worst_prompts_have_wider_intervals_than_their_own(report, run):
    told, view = estimates(run), report.populations
    assert view.family == 4 and [row[0] for row in view.worst.rows] == [
        "frequent",
        "none-seen",
        "rare",
        "rarer",
    ]
    for prompt, _, _, low, high, certified_low, certified_high in view.worst.rows:
        own = told[prompt]
        assert certified_low <= own["certified"][0] and certified_high > own["certified"][1]
        if own["working"]:
            assert 0 < low < own["working"][0] and own["working"][1] < high < 1
        else:
            assert low is None is high


def test_the_mean_is_that_of_the_prompts_with_a_result(report, run):
    values = [e["estimate"] for e in estimates(run).values() if e["draws"]]
    mean = report.populations.mean
    assert mean.prompts == 4 and mean.value == pytest.approx(np.mean(values))
    assert mean.between == pytest.approx(np.std(values, ddof=1))


def test_prompts_are_counted_above_thresholds_by_category(report):
    rows = {row[0]: row[1:] for row in report.populations.categories.rows}
    assert rows["all prompts"] == (5, "1 to 4", "2 to 4", "2 to 5", "3 to 5", "3 to 5")
    assert rows["category law"] == (2, *["0 to 2"] * 5), "one without hits, one failed"
    assert rows["category chemistry"][1:4] == ("0", "0", "0 to 1"), "the truth is 1e-5"
    shown = {row[0]: row[1:] for row in report.populations.above.data.rows}
    assert shown["1e-4"] == (2, 2, 2, 1, 5)


def test_one_category_is_not_told_twice(tmp_path):
    view = populations_view(gather(make_run(tmp_path / "run", [Case("a", 0.01), Case("b", 0.001)])))
    assert [row[0] for row in view.categories.rows] == ["all prompts"]


def test_the_targets_own_draws_are_counted_from_the_log(made, run):
    pairs = {c.prompt_id: c for c in compared(made)}
    assert set(pairs) == {"frequent", "none-seen", "rare", "rarer"}
    for prompt, c in pairs.items():
        own = [r for r in final_results(run) if r.batch.prompt_id == prompt and r.batch.component == 0]
        hits = sum(int((r.verdicts == 1).sum()) for r in own)
        assert (c.draws, c.hits) == (sum(r.n for r in own), hits) and c.agree
        assert c.plain_interval == clopper_pearson(hits, c.draws, 1 - 0.95)
    assert pairs["frequent"].hits > 0 and pairs["rarer"].hits == 0


def test_a_contradiction_with_the_targets_own_draws_is_told(made):
    (one,) = [c for c in compared(made) if c.prompt_id == "frequent"]
    assert not one._replace(interval=(0.2, 0.3)).agree and one._replace(interval=None).agree
    checks = dict(validity_view(made).checks)
    assert checks["the target's own draws alone"] == "the intervals of 4 of 4 prompts meet"


def test_the_history_ends_with_the_estimate(made, run):
    told = estimates(run)
    for prompt in ("frequent", "rare", "rarer"):
        points = made.running.traces[prompt]
        assert [p.draws for p in points] == [60, 360, 960]
        assert points[-1].value == pytest.approx(told[prompt]["estimate"], rel=1e-9)
        assert points[-1].error == pytest.approx(told[prompt]["standard_error"], rel=0.2)
    assert [w.round for w in made.running.widths] == [0, 1, 2]
    largest = [w.largest for w in made.running.widths]
    assert largest == sorted(largest, reverse=True) and all(
        w.median <= w.largest for w in made.running.widths
    )


def test_the_heaviest_hits_of_a_prompt_carry_it_all_together(made):
    lines = dict(top_shares_of(made))
    assert set(lines) == {"all of them together", "frequent", "rare", "rarer"}
    for found in lines.values():
        assert found.shares == sorted(found.shares) and found.shares[-1] == pytest.approx(1.0)


def test_what_was_spent_adds_up(report, run):
    budget, results = report.budget, list(final_results(run))
    draws = sum(r.n for r in results)
    for listed in (budget.by_component, budget.by_round, budget.by_prompt):
        assert sum(row[2] for row in listed.rows) == draws
        assert sum(row[4] for row in listed.rows) == sum(r.generated_tokens for r in results)
        assert sum(row[6] for row in listed.rows) == sum(int((r.verdicts == 1).sum()) for r in results)
    planned = sum(row[1] for row in budget.by_round.rows)
    assert planned == draws + 60, "a prompt failed in the pilot"
    assert dict(budget.lost)["batches that failed for good"] == "3, 60 draws"


def test_an_item_of_evidence_can_be_drawn_again(report, run):
    seeds = {r.batch.key: (r.batch.seed, r) for r in final_results(run)}
    for prompt in report.evidence.prompts:
        for item in prompt.items:
            seed, batch = seeds[item.batch]
            assert item.seed == seed and batch.texts[item.draw] == item.text and item.score == 1.0


def test_long_answers_are_cut_and_many_prompts_left_out(tmp_path, monkeypatch):
    from tailrisk.report import evidence

    monkeypatch.setattr(evidence, "MOST_PROMPTS", 1)
    made = gather(make_run(tmp_path / "run", CASES[:2], harmful_text="x" * 100_000))
    view = report_of(made).evidence
    assert len(view.prompts) == 1 and view.left_out == 1
    assert all(len(i.text) == 2000 and i.cut > 98_000 for i in view.prompts[0].items)


def test_the_criteria_that_are_told_one_by_one_are_the_ones_that_were_read(made):
    view = standard_view(made)
    assert [row[1].split(":")[0] for row in view.criteria.rows] == [
        "i", "ii", "iii", "i", "ii", "iii", "iv-a", "v-a", *["its criteria together"] * 4,
    ]  # fmt: skip
    assert len({row[0] for row in view.criteria.rows}) == 6
    assert any("temperature 1.0" in line for line in view.caveats)


def test_draws_of_several_laws_are_told_first(tmp_path, capfd):
    mixed = report_of(gather(make_run(tmp_path / "mixed", processors=("cpu A", "cpu A", "cpu B"))))
    told = " ".join(mixed.headline.not_claimed)
    assert "That the draws are of one law" in told and "cpu A" in told and "cpu B" in told
    one = report_of(gather(make_run(tmp_path / "one", processors=("cpu A",) * 3)))
    assert "of one law" not in " ".join(one.headline.not_claimed)
    for report, said in ((mixed, "cpu B ("), (one, "cpu A (")):
        on = dict(report.reproduction.facts)["drawn on"]
        assert said in on
    assert run_command(["show", str(tmp_path / "mixed")]) == 0
    assert "warning: drawn on several kinds of processors (cpu A" in capfd.readouterr().out
    assert run_command(["show", str(tmp_path / "one")]) == 0
    assert "warning" not in capfd.readouterr().out


def test_the_log_is_named_with_its_hash(report, run):
    import hashlib

    ((name, size, digest),) = report.reproduction.segments.rows
    data = (run / name).read_bytes()
    assert (size, digest) == (len(data), hashlib.sha256(data).hexdigest())


def test_prompts_too_large_to_be_held_have_no_certified_interval_for_all(run, monkeypatch):
    from tailrisk.report import wholedraws

    kept = wholedraws.WholeDraws(["frequent", "rare"], most=3 * 500)
    plan = PromptPlan(prompt_id="rare", counts=(960,), mass=1.0, final=True)
    for r in final_numbers(run):
        if r.batch.prompt_id == "rare":
            kept.add(Weighed(r, plan, np.zeros(r.n)))
    assert kept.rounds() == {}
    monkeypatch.setattr(material, "WORST", 0)
    assert populations_view(gather(run)).worst.rows[0][5] is None


def test_everything_failed_is_a_report_too(tmp_path):
    report = report_of(gather(make_run(tmp_path / "run", [Case("broken", 0.1, fails=True)])))
    assert report.populations.mean is None and not report.validity.figures
    assert report.headline.statuses == ((Status.FAILED.value, 1),)


def test_figures_are_drawn_only_where_a_page_asks_for_them(made, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("drawn")

    monkeypatch.setattr("matplotlib.figure.Figure.__init__", refuse)
    view = report_of(made).validity
    assert view.figures
    with pytest.raises(AssertionError, match="drawn"):
        _ = view.figures[0].svg
