"""The next round: a pure function of the configuration and of the log, no clock, no chance but the run's seed.

The first round is the pilot, of the same size for every prompt; where there are many components, some prompts
have theirs first, as scouts, and the pilots of the others begin with what these found. Every later round spends a
part of the remaining budget, over prompts by the objective and over a prompt's components by their shares. Where
shares are learned the rounds grow, for the first ones rest on few hits. A round's mass, its part of the prompt's final
estimate, is fixed here, before the round is drawn, so that the estimate stays unbiased whatever the plans were. A
prompt is closed by a ``final`` round that takes all the mass that is left: when that round is forecast to reach the
stop width, or when the audit ends.

The budget cannot be exceeded: a planned draw is taken to be as long as it can be, and every prompt that
stays open keeps the draws of the smallest final round in reserve.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tailrisk.audit.batches import affordable, round_of
from tailrisk.audit.counts import split_draws
from tailrisk.audit.outlook import Outlook, outlook
from tailrisk.audit.scouts import Start, choose_scouts, learned_starts
from tailrisk.audit.state import AuditState, PromptLedger
from tailrisk.errors import ConfigError
from tailrisk.records import FloatArray, IntArray, PromptPlan, RoundPlan
from tailrisk.seeds import derive_seed
from tailrisk.stats.allocators import PromptNeeds, get_allocator
from tailrisk.stats.masses import pilot_worth, round_mass
from tailrisk.stats.shares import initial_shares

SAFETY = (1.2, 2.0)
"""A last round's draws as a multiple of the forecast: at least, and at most where the budget has room. What
is closed stays closed, so a round that falls short of its forecast cannot be mended."""
SMALLEST = 8
"""So many draws may close a prompt, however many components there are, where all but few of these have faded."""
ROUND_GROWTH = 2.0
"""Where shares are learned, a round's draws as a multiple of those of the round before it, as far as the budget
decides."""
WORTHWHILE = 16
"""Fewer draws than this are not a round of their own: the prompt waits for its next turn."""


def plan_round(state: AuditState) -> RoundPlan | None:
    """What to draw next; None when nothing is left to do. Every batch planned before must have an outcome.

    Raises ConfigError if the budget does not hold the pilot.
    """
    if state.pending:
        raise ValueError(f"round {state.round} has {len(state.pending)} batches without an outcome")
    scouts = choose_scouts(state)
    if state.round < 0:
        even = initial_shares(len(state.laws.names), state.config.budget.target_share)
        return pilot(state, dict.fromkeys(scouts or state.ledgers, Start(None, even)))
    waiting = [ledger for ledger in state.open_ledgers if not ledger.entries]
    return pilot(state, learned_starts(state, waiting)) if waiting else next_round(state)


def next_round(state: AuditState) -> RoundPlan | None:
    """A round after the pilot; None when nothing is left to do."""
    ledgers = state.open_ledgers
    if not ledgers or affordable(state) < 2 * len(ledgers):
        return None
    view = _with_safety(outlook(state, ledgers), _expected(state))
    least = _least(state, view.shares)
    if affordable(state) < least * len(ledgers):
        return None
    return _last_round(state, ledgers, view, least) or _middle_round(state, ledgers, view, least)


def pilot(state: AuditState, starts: Mapping[str, Start]) -> RoundPlan | None:
    """The first round that estimates rest on, for the prompts of ``starts`` that are open; None if there is none.

    Raises ConfigError if the budget does not hold it, and that of every other prompt.
    """
    ledgers = [ledger for ledger in state.open_ledgers if ledger.prompt.id in starts]
    if not ledgers:
        return None
    budget = state.config.budget
    begun = [ledger for ledger in state.open_ledgers if ledger.rounds]
    prompts = len(state.open_ledgers) - len(begun)
    used = [starts[x.prompt.id] for x in ledgers]
    least = 2 * max(len(s.shares if s.components is None else s.components) for s in used)
    can, needed = affordable(state), budget.pilot * prompts
    if can < needed or budget.pilot < least:
        raise ConfigError(
            f"budget: a pilot of {budget.pilot} draws for each of {prompts} prompts is {needed} draws; "
            f"the budget allows {can}, and a pilot takes {least} a prompt at least (2 for "
            "each component). Raise budget.draws or budget.tokens, set budget.pilot, or take fewer prompts "
            "(prompts.limit)"
        )
    smallest = min(least, SMALLEST) if budget.shares == "learned" else least
    final = can - needed < smallest * (prompts + len(begun))
    fair = (can + sum(ledger.draws for ledger in begun)) / (prompts + len(begun))
    learns = budget.shares == "learned" and all(s.components is None for s in used)
    worth = pilot_worth(len(state.laws.names) - 1, scouts=len(begun)) if learns else 1.0
    mass = round_mass(1.0, budget.pilot, fair, final=final, worth=worth)
    return round_of(
        state,
        [
            _plan_of(state, ledger, budget.pilot, start.shares, mass, final, start.components)
            for ledger, start in zip(ledgers, used, strict=True)
        ],
    )


def _with_safety(view: Outlook, expected: int) -> Outlook:
    known = np.isfinite(view.wanted)
    fair = expected * known.mean()
    needed = max(float(view.wanted[known].sum()), 1.0)
    return view._replace(wanted=view.wanted * np.clip(fair / needed, *SAFETY))


def _last_round(
    state: AuditState, ledgers: Sequence[PromptLedger], view: Outlook, least: int
) -> RoundPlan | None:
    """Closes every prompt, if no other round can follow."""
    prompts, worthwhile = len(ledgers), max(least, WORTHWHILE)
    if _rounds_left(state, prompts, worthwhile) > 1 and affordable(state) >= (least + worthwhile) * prompts:
        return None
    free = affordable(state) - least * prompts
    draws = least + _allocate(state, view, np.maximum(view.wanted - least, 0.0), free)
    return round_of(state, _prompt_plans(state, ledgers, view, draws, np.ones(prompts, bool), draws))


def _middle_round(state: AuditState, ledgers: Sequence[PromptLedger], view: Outlook, least: int) -> RoundPlan:
    worthwhile, prompts = max(least, WORTHWHILE), len(ledgers)
    expected, reserve = _expected(state), affordable(state) - least * prompts
    left = _rounds_left(state, prompts, worthwhile)
    growth = ROUND_GROWTH if state.config.budget.shares == "learned" else 1.0
    fair = expected // left
    grown = min(fair, max(int(expected / sum(growth**i for i in range(left))), worthwhile * prompts))
    wanted = np.maximum(view.wanted, np.where(view.settled, least, worthwhile))
    most = _allocate(state, view, wanted, min(fair, reserve))
    # What can be closed is not made to wait until rounds have grown.
    final = view.settled & (most >= np.ceil(np.minimum(wanted, expected)))
    now = np.where(final, most, np.minimum(_allocate(state, view, wanted, min(grown, reserve)), most))
    # What is not settled is not closed: it keeps mass for as many draws again.
    ever = _allocate(state, view, np.where(view.settled, wanted, 2.0 * wanted), expected)
    ever = np.maximum(ever, now + least)
    draws = np.where(final | (now >= worthwhile), now, 0)
    return round_of(state, _prompt_plans(state, ledgers, view, draws, final, ever))


def _allocate(state: AuditState, view: Outlook, wanted: FloatArray, draws: int) -> IntArray:
    """[P] draws by the objective, at most ``wanted`` each and ``draws`` in all.

    What was drawn is left out: its part of the variance is settled with its mass. What n draws can still do
    is bring the rest, mass^2 * variance / n, down.
    """
    needs = PromptNeeds(
        rel_var=view.rel_var,
        cost=view.cost,
        wanted=np.ceil(np.minimum(wanted, max(draws, 0))).astype(np.int64),
        drawn=np.zeros(len(wanted), dtype=np.int64),
    )
    return get_allocator(state.config.budget.objective)(needs, max(draws, 0))


def _prompt_plans(
    state: AuditState,
    ledgers: Sequence[PromptLedger],
    view: Outlook,
    draws: IntArray,
    final: np.ndarray,
    expected: IntArray,
) -> list[PromptPlan]:
    """Plans of the prompts with draws; ``expected`` [P] are all draws they may still get, these included."""
    return [
        _plan_of(
            state,
            ledger,
            int(n),
            shares,
            round_mass(ledger.mass_left, int(n), float(ever), final=bool(last)),
            bool(last),
            ledger.restriction,
        )
        for ledger, shares, n, last, ever in zip(ledgers, view.shares, draws, final, expected, strict=True)
        if n > 0
    ]


def _plan_of(
    state: AuditState,
    ledger: PromptLedger,
    n: int,
    shares: FloatArray,
    mass: float,
    final: bool,
    components: tuple[int, ...] | None,
) -> PromptPlan:
    prompt = ledger.prompt.id
    seed = derive_seed(state.config.run.seed, prompt, "split", state.round + 1)
    counts, faded = split_draws(n, shares, state.config.budget.target_share, seed)
    return PromptPlan(
        prompt_id=prompt, counts=counts, mass=mass, final=final, components=components, faded=faded
    )


def _least(state: AuditState, shares: FloatArray) -> int:
    """The smallest round of an open prompt: two draws a component, or fewer where ``shares`` [P, K] rest on a few.

    Two then for the target and each of the effective number of proposals, the inverse sum of squares of their shares,
    and one for all that have faded.
    """
    every = 2 * max(len(ledger.components) for ledger in state.open_ledgers)
    squares = np.square(shares[:, 1:]).sum(axis=1)
    effective = np.square(shares[:, 1:].sum(axis=1)) / np.where(squares > 0.0, squares, 1.0)
    return min(every, max(SMALLEST, 2 * (1 + math.ceil(effective.max() - 1e-9)) + 1))


def _expected(state: AuditState) -> int:
    """Draws that the rest of the budget is worth at the mean length seen so far."""
    tokens = state.tokens_left
    if tokens is None or not state.draws:
        return affordable(state)
    return max(affordable(state), min(state.draws_left, int(tokens * state.draws / max(state.tokens, 1))))


def _rounds_left(state: AuditState, prompts: int, worthwhile: int) -> int:
    """Rounds that may still come: no more than asked for, and each worth its while."""
    pilots = 2 if choose_scouts(state) else 1
    allowed = state.config.budget.rounds - (state.round + 1 - state.search_rounds - pilots)
    return max(1, min(allowed, _expected(state) // (worthwhile * prompts)))
