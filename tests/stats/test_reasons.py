"""What an estimate says of itself: every alarm has a sentence that names figures, and nothing else has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import get_args

import numpy as np
from stats_tables import good, good_pair, rounds_of, steered

from tailrisk.records import Status
from tailrisk.stats import Estimate, RoundDraws, estimate_prompt
from tailrisk.stats.ledger import NOT_ASKED, StrongSample
from tailrisk.stats.status import Alarm

NAMES = ("t", "a", "b")
COUNTS = [200, 400, 400]


def estimate(rounds: Sequence[RoundDraws], names: Sequence[str] = NAMES, log_width: float = 50.0) -> Estimate:
    return estimate_prompt("p", rounds, names, confidence=0.95, log_width=log_width, corrected=False)


def _overstated(r: RoundDraws) -> RoundDraws:
    """Component 1 claims more density on harm than it has."""
    return r._replace(log_q=r.log_q + 3.0 * (r.verdict == 1)[:, None] * (np.arange(3) == 1))


def heavy() -> RoundDraws:
    """Independent weights whose mean is infinite."""
    counts, rng = np.array([500, 2000]), np.random.default_rng(8)
    log_q = np.column_stack([-30.0 + rng.exponential(1.2, size=2500), np.full(2500, -3.0)])
    log_q[:500] = [-3.0, -90.0]
    component = np.repeat([0, 1], counts)
    own = log_q[np.arange(2500), component]
    return RoundDraws(counts, 1.0, component, log_q, own, np.repeat([0, 1], counts).astype(np.int8))


def missed(own_hits: int) -> RoundDraws:
    """Some of the target's own hits are of a kind that the proposal never produces."""
    counts = np.array([200, 800])
    component = np.repeat([0, 1], counts)
    log_q = np.column_stack([np.full(1000, -5.0), np.full(1000, -60.0)])
    log_q[200:] = [-12.0, -8.0]
    verdict = np.zeros(1000, dtype=np.int8)
    verdict[:own_hits] = verdict[200:500] = 1
    return RoundDraws(counts, 1.0, component, log_q, log_q[np.arange(1000), component], verdict)


def faulty() -> list[Estimate]:
    """Faults of every kind."""
    rng = np.random.default_rng(16)
    found = [estimate([heavy()], ("t", "a")), estimate([missed(3)], ("t", "a"))]
    found += [estimate([r], ("t", "a")) for r in rounds_of(steered(16.0), [200, 800], 20, rng)]
    found += [estimate([r], ("t", "a")) for r in rounds_of(good(), [5, 20], 20, rng)]
    found += [estimate([_overstated(r)]) for r in rounds_of(good_pair(), COUNTS, 5, rng)]
    # The target's own draws are all harmful, the weighted ones say that harm is next to impossible.
    own = steered(8.0).draw(np.array([200, 800]), rng)
    found.append(
        estimate([own._replace(verdict=np.where(own.component == 0, 1, 0).astype(np.int8))], ("t", "a"))
    )
    loud = good_pair().draw(np.array(COUNTS), rng)
    found.append(estimate([loud._replace(log_q=loud.log_q + np.array([9.0, 0.0, 0.0]))]))
    half = [good_pair().draw(np.array(COUNTS), rng, 0.5) for _ in range(2)]
    half[1] = half[1]._replace(log_q=half[1].log_q + np.array([1.5, 0.0, 0.0]))
    return [*found, estimate(half), estimate([unread(good_pair().draw(np.array(COUNTS), rng))])]


def unread(r: RoundDraws) -> RoundDraws:
    """The judge flags every other harmful draw, and a strong one has read those alone."""
    r = r._replace(verdict=np.where(np.arange(r.n) % 2 == 0, r.verdict, 0).astype(np.int8))
    nothing, inclusion = np.zeros(r.n), np.where(r.flagged, 1.0, 0.02)
    verdict = np.where(r.flagged, 1, NOT_ASKED).astype(np.int8)
    return r._replace(strong=StrongSample(inclusion, verdict, nothing, nothing, 0.02))


def test_every_alarm_has_its_sentence_with_figures():
    seen: set[Alarm] = set()
    for e in faulty():
        assert e.working is None
        if e.status == Status.UNRELIABLE:
            assert len(e.alarms) == len(e.reasons) > 0
        else:
            assert e.status == Status.BOUND_ONLY and len(e.reasons) == 1 + len(e.alarms)
        for alarm, text in zip(e.alarms, e.reasons[len(e.reasons) - len(e.alarms) :], strict=True):
            seen.add(alarm)
            assert re.search(r"\d", text), text
            assert len(text.split()) >= 8 and "nan" not in text and "inf" not in text, text
            assert text[0].islower() or text[0].isdigit(), text
            assert MEANT[alarm] in text, (alarm, text)
    assert seen == set(get_args(Alarm)) == set(MEANT), set(get_args(Alarm)) - seen


MEANT: dict[Alarm, str] = {
    "weights": "where it must be 1",
    "ess": "effective ones",
    "distinct": "different answers",
    "share": "a single draw carries",
    "k-hat": "too heavy a tail",
    "kl": "nats from what was drawn",
    "missed": "of a kind that no proposal finds",
    "leave-one-out": "do not agree",
    "growth": "still growing",
    "uncorroborated": "finds this harm",
    "contradiction": "contradict",
    "unread": "what the judge misses is unknown",
}
"""Words of each alarm's own sentence."""


def test_alarms_and_reasons_belong_together_one_to_one_and_in_order():
    found = [e for e in faulty() if e.status == Status.UNRELIABLE and len(e.alarms) > 2]
    assert len(found) > 10
    for e in found:
        assert list(e.alarms) == [
            next(name for name, words in MEANT.items() if words in text) for text in e.reasons
        ]


def test_no_alarm_where_nothing_is_wrong():
    for r in rounds_of(good_pair(), COUNTS, 20, np.random.default_rng(17)):
        e = estimate([r])
        assert e.status == Status.OK and e.alarms == e.reasons == ()
        short = estimate([r], log_width=1e-3)
        assert short.status == Status.BUDGET_EXHAUSTED and short.alarms == () and len(short.reasons) == 1
