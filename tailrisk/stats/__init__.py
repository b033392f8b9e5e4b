"""The statistics of the house: arrays in, numbers out; no clock, no randomness, no models.

A prompt's draws come in rounds (``RoundDraws``); ``estimate_prompt`` turns them into an ``Estimate``. The
planning side: shares of components, allocation over prompts, masses of rounds.
"""

from tailrisk.stats.allocators import ALLOCATORS, PromptNeeds, get_allocator
from tailrisk.stats.certify import certify
from tailrisk.stats.conditional import Conditional, conditional_mean
from tailrisk.stats.control import control_mean
from tailrisk.stats.estimate import Estimate, estimate_prompt
from tailrisk.stats.estimators import Mean, event_mean, variance_per_draw, weight_mean
from tailrisk.stats.ledger import NOT_ASKED, RoundDraws, StrongSample
from tailrisk.stats.masses import draws_to_close, pilot_worth, round_mass, target_se
from tailrisk.stats.pooled import Pooled, mean_risk, pooled_mean_weight
from tailrisk.stats.shares import component_shares, initial_shares, with_floors
from tailrisk.stats.single import only, plain_mean, single_component_mean
from tailrisk.stats.weights import log_weights, mixture_log_weights, own_correction

__all__ = [
    "ALLOCATORS",
    "NOT_ASKED",
    "Conditional",
    "Estimate",
    "Mean",
    "Pooled",
    "PromptNeeds",
    "RoundDraws",
    "StrongSample",
    "certify",
    "component_shares",
    "conditional_mean",
    "control_mean",
    "draws_to_close",
    "estimate_prompt",
    "event_mean",
    "get_allocator",
    "initial_shares",
    "log_weights",
    "mean_risk",
    "mixture_log_weights",
    "only",
    "own_correction",
    "pilot_worth",
    "plain_mean",
    "pooled_mean_weight",
    "round_mass",
    "single_component_mean",
    "target_se",
    "variance_per_draw",
    "weight_mean",
    "with_floors",
]
