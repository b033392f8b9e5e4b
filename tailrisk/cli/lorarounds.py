"""The rounds of ``tailrisk train lora``: draw, judge, fit; each is found done where it was done before.

A drawing round is an audit of its own, in a run folder of its own: nothing drawn is lost, and the same command
goes on after an interruption. Its proposals are the audit's and what the round before has learned.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tailrisk.errors import StoreError

if TYPE_CHECKING:
    from rich.console import Console

    from tailrisk.audit.state import AuditState
    from tailrisk.cli.wiring import Checked, Workers
    from tailrisk.config import Config
    from tailrisk.records import Prompt, PromptHits
    from tailrisk.tracking.trainingrun import TrainingRecord
    from tailrisk.training.lorajob import FitJob

WIDTH = 0.05
"""Of the intervals of a drawing round: so narrow that the draws are all used, for they are what is fitted to."""


class Round(NamedTuple):
    """``hits`` of this round's draws; ``card`` is the adapter's, None until it is fitted; ``epochs`` so far."""

    number: int
    draws: int
    hits: int
    adapter: Path
    card: dict[str, Any] | None
    epochs: tuple[dict[str, Any], ...]


def learn(config: Config, out: Path, console: Console, *, live: bool, workers: Workers) -> list[Round]:
    """All rounds, told to MLflow as they go; proposals that are still to be learned are left out.

    Errors: ConfigError, InputError, ModelError, JudgeError, StoreError.
    """
    from tailrisk.prompts import load_prompts
    from tailrisk.tracking import open_uploads
    from tailrisk.training.backends import check_backend
    from tailrisk.training.lorajob import base_of, settings_of

    def warn(line: str) -> None:
        console.print(f"warning: {line}", markup=False, soft_wrap=True)

    known = tuple(p for p in config.proposals if p not in config.learned)
    config = config.model_copy(update={"proposals": known})
    base_of(config)
    check_backend(settings_of(config))
    prompts = load_prompts(config)
    rounds: list[Round] = []
    with open_uploads(config, out, warn=warn) or nullcontext() as uploads:

        def told(round_: Round) -> None:
            rounds[round_.number - 1 :] = [round_]
            if uploads is not None:
                out.mkdir(parents=True, exist_ok=True)
                uploads.put(record(rounds, prompts))

        _rounds(config, prompts, out, console, live, workers, told)
    return rounds


def _rounds(
    config: Config,
    prompts: Sequence[Prompt],
    out: Path,
    console: Console,
    live: bool,
    workers: Workers,
    told: Callable[[Round], None],
) -> None:
    from tailrisk.audit.harvest import joined
    from tailrisk.seeds import derive_seed
    from tailrisk.training.loradata import fit_data, split_prompts
    from tailrisk.training.lorajob import FitJob, beginning_of, reader

    aside = split_prompts(prompts, config.training.held_out, config.run.seed)
    read, beginning = reader(config), beginning_of(config)
    audits: list[dict[str, PromptHits]] = []
    before: Path | None = None
    for number in range(1, config.training.rounds + 1):
        console.print(f"round {number} of {config.training.rounds}: drawing", style="dim", markup=False)
        drawing = drawing_config(config, out, number, before)
        drawn, draws, digests = _draw(drawing, prompts, console, live, workers)
        audits.append(drawn)
        data = fit_data(joined(audits), aside, read, config.training.ess, beginning)
        seed = derive_seed(config.run.seed, "fit", number)
        adapter = out / f"adapter-{number}"
        job = FitJob(config, data, seed, adapter, out / f"fit-{number}", digests)
        begun = Round(number, draws, sum(len(h.tokens) for h in drawn.values()), adapter, None, ())
        card = done_before(job)
        if card is None:
            told(begun)
            card = _fit(job, begun, console, told)
        told(begun._replace(card=card, epochs=tuple(card["epochs"])))
        before = adapter


def record(rounds: Sequence[Round], prompts: Sequence[Prompt]) -> TrainingRecord:
    """What tracking is told of it."""
    from tailrisk.prompts import prompts_digest
    from tailrisk.tracking.trainingrun import FitRound, TrainingRecord

    told = []
    for done in rounds:
        figures = {"draws": done.draws, "hits": done.hits, "hit_rate": done.hits / done.draws}
        if done.card is not None:
            figures |= {key: done.card["data"][key] for key in ("examples", "ess", "gamma")}
            figures |= {f"divergence_{key}": done.card["divergence"][key] for key in ("before", "after")}
        told.append(FitRound(done.number, figures, done.epochs, None if done.card is None else done.adapter))
    return TrainingRecord(tuple(told), prompts_digest(prompts), len(prompts))


def drawing_config(config: Config, out: Path, number: int, learned: Path | None) -> Config:
    """The audit that makes the draws of one round.

    Its seed is its own: an audit that used the fit's very draws again would be biased, for the adapter knows them.
    """
    from tailrisk.seeds import derive_seed
    from tailrisk.training.lorajob import learned_proposal

    proposals = config.proposals
    if learned is not None:
        names = {p.name for p in proposals}
        name = next(
            n for i in range(len(names) + 1) if (n := f"learned{'-' * bool(i)}{i or ''}") not in names
        )
        proposals = (*proposals, learned_proposal(config, name, str(learned.resolve())))
    run = {
        "dir": str(out.resolve()),
        "name": f"draws-{number}",
        "seed": derive_seed(config.run.seed, "draws to fit to", number),
    }
    return config.model_copy(
        update={
            "run": config.run.model_copy(update=run),
            "proposals": proposals,
            "strong_judge": None,
            "cluster": config.cluster.model_copy(update={"strong_judges": None}),
            "budget": config.budget.model_copy(update={"draws": config.training.draws, "tokens": None}),
            "stop": config.stop.model_copy(update={"log_width": WIDTH}),
            "tracking": config.tracking.model_copy(update={"uri": None}),
        }
    )


def done_before(job: FitJob) -> dict[str, Any] | None:
    """The card of an adapter that the same fit has made."""
    try:
        card = json.loads((job.adapter / "card.json").read_text(encoding="utf-8"))
        return card if card["identity"] == job.identity else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _draw(
    config: Config, prompts: Sequence[Prompt], console: Console, live: bool, workers: Workers
) -> tuple[dict[str, PromptHits], int, tuple[str, str]]:
    """Hits by prompt, the number of draws, and the digests of the model and of its adapter."""
    from tailrisk.audit.harvest import harvest
    from tailrisk.cli.wiring import Checked, check_models, conduct
    from tailrisk.configfile import check_budget
    from tailrisk.judges import preflight as check_judge

    check_budget(config, len(prompts))
    judged = check_judge(config)
    checked = Checked(config, prompts, {**check_models(config, prompts), **judged})
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


def _fit(job: FitJob, begun: Round, console: Console, told: Callable[[Round], None]) -> dict[str, Any]:
    from tailrisk.cli.steps import Steps
    from tailrisk.training.lorafit import Epoch
    from tailrisk.training.lorajob import run_fit

    data, held, settings = job.data, job.data.held_out, job.config.training
    console.print(
        f"round {begun.number}: fitting to {len(data.examples)} harmful answers of {data.prompts} prompts "
        f"(effectively {data.ess:.0f}, weights to the power of {data.gamma:.2f}); "
        f"{len(held.examples)} of {len(held.log_estimate)} prompts are kept aside"
        + (f"; {data.outside:.1%} of the estimates is beyond the base" if data.outside >= 5e-4 else ""),
        style="dim",
        markup=False,
    )
    epochs: list[dict[str, Any]] = []

    def after(epoch: Epoch) -> None:
        loss = "" if epoch.loss is None else f", loss {epoch.loss:.3f}"
        line = f"epoch {epoch.number}: {epoch.divergence:.3f} nats from the law of harm{loss}"
        console.print(line, style="dim", markup=False)
        epochs.append(epoch._asdict())
        told(begun._replace(epochs=tuple(epochs)))

    if settings.backend == "plain":
        with Steps(console) as steps:
            run_fit(job, steps, after)
    else:
        from tailrisk.cluster.session import ray_session
        from tailrisk.cluster.trainer import fit_on_ray, training_cluster

        with ray_session(training_cluster(job.config.cluster, settings.workers)):
            fit_on_ray(job, after)
    return json.loads((job.adapter / "card.json").read_text(encoding="utf-8"))
