"""Rows, their order and their words."""

from __future__ import annotations

import pytest

from tailrisk.records import Status
from tailrisk.report import tables, terminal


def record(prompt_id: str = "a", status: str = "ok", **changes):
    return {
        "prompt_id": prompt_id,
        "category": "misc",
        "estimate": 2.04e-4,
        "working": [1.1e-4, 3.9e-4],
        "certified": [5e-5, 0.012],
        "confidence": 0.95,
        "status": status,
        "reasons": [],
        "draws": 100,
        "target_draws": 30,
        "hits": 12,
        "undetermined": 0,
        "ess": 10.4,
        "k_hat": None,
        "max_weight_share": 0.2,
        "mean_weight": 1.01,
        "mean_weight_se": 0.02,
        "gain_vs_mc": 40.0,
        "components": {"target": {"share": 1.0, "draws": 100, "hits": 12}},
        **changes,
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.04e-4, "2.0e-4"),
        (0.0123, "0.012"),
        (0.5, "0.50"),
        (0.0, "0"),
        (None, "-"),
        (1.0, "1.0"),
        (4567.0, "4,567"),
        (float("nan"), "-"),
        (1e-12, "1.0e-12"),
        (123456.0, "1.2e5"),
    ],
)
def test_numbers_have_two_digits(value, text):
    assert tables.number(value) == text


def test_the_interval_shown_is_the_working_one_only_where_the_status_allows_it():
    ok, unreliable = tables.rows([record("a"), record("b", "unreliable")])[::-1]
    assert (ok.status, unreliable.status) == (Status.OK, Status.UNRELIABLE)
    assert tables.interval_cell(ok) == "1.1e-4 to 3.9e-4"
    assert tables.interval_cell(unreliable) == "5.0e-5 to 0.012 (certified)"
    assert tables.gain_cell(ok) == "40×"
    assert tables.gain_cell(unreliable) == "-"


def test_a_prompt_without_hits_has_a_bound_and_no_estimate():
    (row,) = tables.rows(
        [record(status="bound-only", estimate=0.0, working=None, certified=[0, 0.012], hits=0)]
    )
    assert tables.estimate_cell(row) == "no hits"
    assert tables.interval_cell(row) == "below 0.012 (certified)"


def test_rows_are_sorted_by_the_upper_end_that_counts():
    listed = tables.rows(
        [
            record("narrow"),
            record("untrusted", "unreliable"),
            record("failed", "failed", certified=[0, 1], draws=0),
        ]
    )
    assert [r.prompt_id for r in listed] == ["failed", "untrusted", "narrow"]
    assert [r.spent for r in listed] == [0.0, 0.5, 0.5]


def test_the_claim_counts_every_prompt_once():
    listed = tables.rows(
        [record("a"), record("b", estimate=3e-2), record("c", "unreliable"), record("d", "failed", draws=0)]
    )
    text = tables.claim(listed)
    assert "For 2 of 4 prompts the estimate is settled" in text
    assert "between 2.0e-4 and 0.030" in text
    assert "For 1 prompt it is not; its certified upper bound is 0.012." in text
    assert "1 prompt failed" in text
    assert "it is not" not in tables.claim(tables.rows([record()]))


def test_an_empty_run_claims_nothing():
    assert tables.claim([]) == "No prompt has an estimate yet."


def render(listed, **options):
    from rich.console import Console

    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal.table(listed, **options))
    return console.export_text()


def test_the_terminal_table_shows_every_row_with_its_status():
    text = render(tables.rows([record("first"), record("second", "unreliable")]))
    assert "95% interval" in text
    assert [line for line in text.splitlines() if "second" in line and "unreliable" in line]
    assert [line for line in text.splitlines() if "first" in line and "ok" in line and "50%" in line]


def test_markup_and_control_characters_in_a_category_stay_text():
    text = render(tables.rows([record("a", category="[red]x[/red] \x1b[31m \u202eevil")]))
    assert "[red]x[/red]" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_a_narrow_terminal_keeps_the_numbers_and_drops_the_categories():
    listed = tables.rows([record("a-rather-long-prompt-id", "unreliable", category="chemistry")])
    text = render(listed, width=80)
    assert "chemistry" not in text
    assert "5.0e-5 to 0.012 (certified)" in text and "unreliable" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "chemistry" in render(listed, width=120)


def test_a_long_table_is_cut_and_says_so():
    text = render(tables.rows([record(f"p{i:03d}") for i in range(50)]), limit=20)
    assert "and 30 more" in text
    assert "p019" in text and "p020" not in text
