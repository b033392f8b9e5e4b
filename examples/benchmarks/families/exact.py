"""A tiny Llama whose answers can all be listed: its proposals, and those that are learned from draws of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from tinymodel import words
from training.lorakit import AUDIT, audit_in, law_of
from truth.exactllama import VOCAB, harmful_ids

from families.alone import draws_needed, fit_of, of_laws, row, seconds_a_draw
from tailrisk.audit.recovery import rebuild_folder
from tailrisk.cli.lorarounds import drawing_config, learn
from tailrisk.cli.wiring import on_ray
from tailrisk.config import Config
from tailrisk.configfile import load_config
from tailrisk.prompts import load_prompts
from tailrisk.proposals import build_laws, load_target
from tailrisk.training.loradata import split_prompts
from tailrisk.training.lorajob import learned_proposal

PROPOSALS = [*AUDIT["proposals"], {"name": "adapter-off", "kind": "lora", "adapter": "target", "scale": 0.0}]
CASES = (("target", 2, 4000), ("opened", 1, 800), ("opened", 2, 800), ("opened", 2, 4000))
"""Base, rounds, and draws of each."""
QUICK = (("opened", 1, 800),)
MOST = 3000


def measure(out: Path, *, quick: bool) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    seconds = 0.0
    config = load_config(audit_in(out, proposals=PROPOSALS, tracking={"uri": None}))
    fits, proposals, console = {}, [], Console(stderr=True, highlight=False)
    for base, rounds_, draws in QUICK if quick else CASES:
        name = f"learned-on-{base}-{rounds_}x{draws}"
        settings = {"base": base, "rounds": rounds_, "draws": draws, "epochs": 12}
        own = config.model_copy(update={"training": config.training.model_copy(update=settings)}).at(
            config.base
        )
        rounds = learn(own, out / name, console, live=False, workers=on_ray)
        proposals.append(learned_proposal(own, name, str(rounds[-1].adapter.resolve())))
        seconds = _seconds(own, out / name)
        fits[name] = fit_of(rounds)
    laws = build_laws(
        config.model_copy(update={"proposals": (*config.proposals, *proposals)}).at(config.base)
    )
    prompts = load_prompts(config)
    aside = split_prompts(prompts, config.training.held_out, config.run.seed)
    context = load_target(config)
    listed, table = list(law_of(context, context.view, prompts[0])), words(VOCAB)
    answers = [np.array(y, dtype=np.int32) for y in listed]
    harm = np.array([harmful_ids(y, table) for y in listed])
    scored = {p.id: laws.log_prob(p, answers) for p in prompts if p.id in aside}
    truths = {i: float(np.exp(log_q[harm, 0]).sum()) for i, log_q in scored.items()}
    rows = []
    for column, name in enumerate(laws.names):
        if column:
            nats = np.mean([_divergence(log_q[harm], column) for log_q in scored.values()])
            needed = [
                draws_needed(of_laws(log_q[:, 0], log_q[:, column], harm), truths[i], MOST)
                for i, log_q in scored.items()
            ]
            rows.append(row(name, name in fits, float(nats), needed))
    return {
        "prompts": list(scored),
        "p": list(truths.values()),
        "most": MOST,
        "seconds_a_draw": round(seconds, 4),
        "rows": rows,
        "fits": fits,
    }


def _divergence(log_q: np.ndarray, column: int) -> float:
    """KL(q*||q) from the exact laws [harmful answers, K]."""
    p = np.exp(log_q[:, 0])
    with np.errstate(invalid="ignore"):
        return float(p @ (log_q[:, 0] - log_q[:, column]) / p.sum() - np.log(p.sum()))


def _seconds(config: Config, out: Path) -> float:
    state = rebuild_folder(drawing_config(config, out, 1, None), load_prompts(config), out / "draws-1")
    assert state is not None
    return seconds_a_draw(state)
