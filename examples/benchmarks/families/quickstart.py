"""The quickstart's proposals and adapters learned for it, on the prompts that no fit saw."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from families.alone import draws_needed, fit_of, of_pool, row, seconds_a_draw
from families.pool import QUICKSTART, gather
from tailrisk.audit.recovery import rebuild_folder
from tailrisk.cli.lorarounds import drawing_config, learn
from tailrisk.cli.wiring import on_ray
from tailrisk.config import Config
from tailrisk.configfile import load_config
from tailrisk.prompts import load_prompts
from tailrisk.stats import event_mean
from tailrisk.stats.estimators import contributions
from tailrisk.stats.tempering import hit_divergence
from tailrisk.training.loradata import split_prompts
from tailrisk.training.lorajob import learned_proposal

RATES = {"target": 0.001, "no-refusal": 0.0003}
"""Learning rates by base: the second has less to learn."""
SETTINGS = ("tracking.uri=null", "training.rounds=1", "training.kl=0", "training.patience=1")
FULL = ("training.draws=1800", "training.epochs=4")
QUICK = ("prompts.limit=8", "training.draws=560", "training.epochs=1")
MOST = 600


def measure(out: Path, *, quick: bool) -> dict[str, Any]:
    settings = (*SETTINGS, *(QUICK if quick else FULL))
    console = Console(stderr=True, highlight=False)
    fits, proposals, folder = {}, [], out
    for base in ["no-refusal"] if quick else RATES:
        own = (f"training.base={base}", f"training.learning_rate={RATES[base]}")
        config, before, folder = load_config(QUICKSTART, (*settings, *own)), folder, out / base
        if (before / "draws-1").is_dir() and not (folder / "draws-1").exists():
            shutil.copytree(before / "draws-1", folder / "draws-1")
        rounds = learn(config, folder, console, live=False, workers=on_ray)
        name = f"learned-on-{base}"
        proposals.append(learned_proposal(config, name, str(rounds[-1].adapter.resolve())))
        fits[name] = fit_of(rounds)
    plain = load_config(QUICKSTART, settings)
    far, seconds = divergences(plain, folder)
    config = plain.model_copy(update={"proposals": (*plain.proposals, *proposals)}).at(plain.base)
    prompts = load_prompts(plain)
    aside = split_prompts(prompts, plain.training.held_out, plain.run.seed)
    own, each = (24, 16) if quick else (120, 80)
    pools = gather(config, [p.id for p in prompts if p.id in aside], own, each, out / "pools", print)
    truths = [event_mean([p.round()], corrected=True) for p in pools]
    rows = []
    for column, name in enumerate(config.component_names):
        if column:
            nats = fits[name]["divergence"]["after"] if name in fits else far[name]
            needed = [
                draws_needed(of_pool(p, column), t.value, MOST) if t.value else None
                for p, t in zip(pools, truths, strict=True)
            ]
            rows.append(row(name, name in fits, nats, needed))
    return {
        "prompts": [p.prompt.id for p in pools],
        "p": [t.value for t in truths],
        "relative_error": [round(t.standard_error / t.value, 3) for t in truths],
        "draws_of_pool": {"target": own, "each_proposal": each},
        "most": MOST,
        "seconds_a_draw": round(seconds, 4),
        "rows": rows,
        "fits": fits,
    }


def divergences(config: Config, out: Path) -> tuple[dict[str, float], float]:
    """Mean over the prompts kept aside for every component of the first round, and seconds a draw."""
    prompts = load_prompts(config)
    aside = split_prompts(prompts, config.training.held_out, config.run.seed)
    state = rebuild_folder(drawing_config(config, out, 1, None), prompts, out / "draws-1")
    assert state is not None
    rows = []
    for prompt, ledger in state.ledgers.items():
        parts = contributions(ledger.rounds, corrected=state.laws.corrected)
        if prompt in aside and len(parts.part):
            log_parts, whole = np.log(parts.part), float(np.log(parts.part.sum()))
            rows.append([hit_divergence(log_parts, parts.log_q[:, 0] - q, whole) for q in parts.log_q.T])
    return dict(zip(state.laws.names, np.mean(rows, axis=0), strict=True)), seconds_a_draw(state)
