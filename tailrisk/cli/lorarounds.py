"""The rounds of ``tailrisk train lora``: draw, judge, fit; each is found done where it was done before.

A drawing round is an audit of its own, in a run folder of its own: nothing drawn is lost, and the same command
goes on after an interruption. Its proposals are the audit's and what the round before has learned.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tailrisk.errors import StoreError

if TYPE_CHECKING:
    from rich.console import Console

    from tailrisk.audit.state import AuditState
    from tailrisk.cli.wiring import Checked, Workers
    from tailrisk.config import Config
    from tailrisk.records import Prompt, PromptHits
    from tailrisk.training.loradata import FitData

WIDTH = 0.05
"""Of the intervals of a drawing round: so narrow that the draws are all used, for they are what is fitted to."""


class Round(NamedTuple):
    """``hits`` of this round's draws; ``fitted`` is the adapter's card."""

    number: int
    draws: int
    hits: int
    adapter: Path
    fitted: dict[str, Any]


def learn(config: Config, out: Path, console: Console, *, live: bool, workers: Workers) -> list[Round]:
    """All rounds. Errors: ConfigError, InputError, ModelError, JudgeError, StoreError."""
    from tailrisk.audit.harvest import joined
    from tailrisk.prompts import load_prompts
    from tailrisk.training.loradata import fit_data, split_prompts
    from tailrisk.training.lorajob import base_of, reader

    base_of(config)
    prompts = load_prompts(config)
    aside = split_prompts(prompts, config.training.held_out, config.run.seed)
    read = reader(config)
    audits: list[dict[str, PromptHits]] = []
    rounds: list[Round] = []
    for number in range(1, config.training.rounds + 1):
        before = rounds[-1].adapter if rounds else None
        console.print(f"round {number} of {config.training.rounds}: drawing", style="dim", markup=False)
        drawn, draws, digests = _draw(
            drawing_config(config, out, number, before), prompts, console, live, workers
        )
        audits.append(drawn)
        data = fit_data(joined(audits), aside, read, config.training.ess)
        adapter = out / f"adapter-{number}"
        card = done_before(adapter, data, config) or _fit(config, data, out, number, digests, console)
        hits = sum(len(h.tokens) for h in drawn.values())
        rounds.append(Round(number, draws, hits, adapter, card))
    return rounds


def drawing_config(config: Config, out: Path, number: int, learned: Path | None) -> Config:
    """The audit that makes the draws of one round."""
    from tailrisk.training.lorajob import learned_proposal

    proposals = config.proposals
    if learned is not None:
        names = {p.name for p in proposals}
        name = next(
            n for i in range(len(names) + 1) if (n := f"learned{'-' * bool(i)}{i or ''}") not in names
        )
        proposals = (*proposals, learned_proposal(config, name, str(learned.resolve())))
    return config.model_copy(
        update={
            "run": config.run.model_copy(update={"dir": str(out.resolve()), "name": f"draws-{number}"}),
            "proposals": proposals,
            "budget": config.budget.model_copy(update={"draws": config.training.draws, "tokens": None}),
            "stop": config.stop.model_copy(update={"log_width": WIDTH}),
            "tracking": config.tracking.model_copy(update={"uri": None}),
        }
    )


def done_before(adapter: Path, data: FitData, config: Config) -> dict[str, Any] | None:
    """The card of an adapter that was fitted to the same data by the same settings."""
    try:
        card = json.loads((adapter / "card.json").read_text(encoding="utf-8"))
        same = card["data"]["digest"] == data.digest and card["training"] == config.training.model_dump(
            mode="json"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return card if same else None


def _draw(
    config: Config, prompts: Sequence[Prompt], console: Console, live: bool, workers: Workers
) -> tuple[dict[str, PromptHits], int, tuple[str, str]]:
    """Hits by prompt, the number of draws, and the digests of the model and of its adapter."""
    from tailrisk.audit.harvest import harvest
    from tailrisk.cli.wiring import Checked, check_models, conduct
    from tailrisk.configfile import check_budget
    from tailrisk.judges import preflight as check_judge

    check_budget(config, len(prompts))
    check_judge(config)
    checked = Checked(config, prompts, check_models(config, prompts))
    state = _drawn_before(checked)
    if state is None:
        conduct(checked, console, live=live, workers=workers)
        state = _drawn_before(checked)
    if state is None:
        raise StoreError(
            f"{config.run_folder}: the audit ended with draws missing; run the same command again"
        )
    digests = checked.hashes["model.target"], checked.hashes.get("adapter.target", "")
    return harvest(config.run_folder, state), state.draws, digests


def _drawn_before(checked: Checked) -> AuditState | None:
    """The state of a drawing round that has nothing left to draw or to judge, without models or workers.

    Errors: StoreError where the folder holds another audit.
    """
    from tailrisk.audit.methods import plan_round
    from tailrisk.audit.recovery import rebuild_folder
    from tailrisk.store import make_manifest
    from tailrisk.store.manifest import NAME, check_resume, read_manifest

    config, folder = checked.config, checked.config.run_folder
    if not (folder / NAME).is_file():
        return None
    check_resume(folder, read_manifest(folder), make_manifest(config, checked.prompts, checked.hashes))
    state = rebuild_folder(config, checked.prompts, folder)
    if state is None or state.pending or state.unjudged or plan_round(state) is not None:
        return None
    return state


def _fit(
    config: Config, data: FitData, out: Path, number: int, digests: tuple[str, str], console: Console
) -> dict[str, Any]:
    from tailrisk.cli.steps import Steps
    from tailrisk.seeds import derive_seed
    from tailrisk.training.lorafit import Epoch
    from tailrisk.training.lorajob import FitJob, run_fit

    adapter = out / f"adapter-{number}"
    seed = derive_seed(config.run.seed, "fit", number)
    job = FitJob(config, data, seed, adapter, out / f"fit-{number}", digests)
    held = data.held_out
    console.print(
        f"round {number}: fitting to {len(data.examples)} harmful answers of {data.prompts} prompts "
        f"(effectively {data.ess:.0f}, weights to the power of {data.gamma:.2f}); "
        f"{len(held.examples)} of {len(held.log_estimate)} prompts are kept aside",
        style="dim",
        markup=False,
    )

    def told(epoch: Epoch) -> None:
        loss = "" if epoch.loss is None else f", loss {epoch.loss:.3f}"
        console.print(
            f"epoch {epoch.number}: {epoch.divergence:.3f} nats from the law of harm{loss}",
            style="dim",
            markup=False,
        )

    if config.training.backend == "plain":
        with Steps(console) as steps:
            run_fit(job, steps, told)
    else:
        from tailrisk.cluster.session import ray_session
        from tailrisk.cluster.trainer import fit_on_ray, training_cluster

        with ray_session(training_cluster(config.cluster, config.training.workers)):
            fit_on_ray(job, told)
    return json.loads((adapter / "card.json").read_text(encoding="utf-8"))
