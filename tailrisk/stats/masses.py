"""Masses of rounds: how much of a prompt's final estimate a round gets, decided before it is drawn."""

from __future__ import annotations

import math

from tailrisk.stats.intervals import t_quantile


def round_mass(
    remaining: float, n_round: int, n_expected: float, *, final: bool, worth: float = 1.0
) -> float:
    """Mass of a round of ``n_round`` draws when ``remaining`` mass is left.

    A final round takes all of it; another one the part that its draws are of the ``n_expected`` draws
    still expected for the prompt, this round's included, so that draws count about alike in the end.
    ``worth``: what a draw of this round is thought to be worth of one of the later rounds.
    """
    if final:
        return remaining
    counted = worth * n_round
    return remaining * counted / (counted + max(n_expected - n_round, 0.0))


def pilot_worth(proposals: int, *, scouts: int = 0) -> float:
    """What a draw of a pilot is thought to be worth of a later one, whose shares are learned.

    Where one of the proposals does all the work, its share will grow from 1 / ``proposals`` to nearly all; where all
    work alike, nothing changes. The worth is the geometric mean of the two cases. A pilot that begins with what as many
    ``scouts`` as there are proposals have found, or more, lies between these and one, again by the geometric mean;
    what fewer have found misleads too often. Whatever the worth, the estimate is unbiased; a wrong guess costs a few
    per cent of the variance, while a pilot that counts in full may double it.
    """
    worth = 1.0 / math.sqrt(max(proposals, 1))
    return math.sqrt(worth) if scouts >= max(proposals, 1) else worth


def draws_to_close(
    variance_so_far: float, remaining: float, variance_per_draw: float, target_se: float
) -> float:
    """Draws n of a final round that bring V + rho^2 s^2 / n down to target_se^2.

    ``variance_so_far``: V = sum a_r^2 Var(mu_r) of the rounds drawn. ``remaining``: their missing mass rho.
    inf if V alone is too much already; 0 if no mass is left.
    """
    room = target_se**2 - variance_so_far
    if room <= 0:
        return math.inf
    return remaining**2 * variance_per_draw / room


def target_se(mu: float, log_width: float, confidence: float, df: float = math.inf) -> float:
    """Standard error at which the working interval mu exp(+- t_df se / mu) has this natural-log width."""
    return mu * log_width / (2 * t_quantile(confidence, df))
