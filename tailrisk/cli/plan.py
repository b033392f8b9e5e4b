"""``tailrisk plan``: what an audit would cost and what it could show; no weights are loaded."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from tailrisk.cli.audit import ConfigPath, Overrides
from tailrisk.cli.guard import Verbose, guarded
from tailrisk.grid import grid_values, paper_size
from tailrisk.searchgrid import kept_components, search_cells, search_method

if TYPE_CHECKING:
    from tailrisk.config import Config

DIVERGENCES = (0.5, 1.0, 2.0, 3.0)
PROBABILITIES = (1e-2, 1e-4, 1e-6)


class Plan(NamedTuple):
    """The size of an audit. ``draws`` is the budget, or what the method draws, ``search_draws`` of them for
    choosing only; ``worst_tokens`` is what would be generated if every answer had full length. ``share``:
    the least share of the target among a prompt's draws; where it is 0 the weights have no bound."""

    prompts: int
    components: tuple[str, ...]
    draws: int
    draws_per_prompt: float
    target_draws_per_prompt: float
    worst_tokens: int
    smallest_bound: float
    share: float
    method: str
    search_draws: int


def make_plan(config: Config, prompts: int) -> Plan:
    budget = config.budget
    share = budget.target_share if config.proposals else 1.0
    draws, searched = budget.draws, sum(config.fit_draws(p) * p.rounds for p in config.learned)
    if config.method.kind == "paper":
        size = paper_size(config, prompts)
        share, draws, searched = 0.0, size.draws, size.search
    elif config.method.kind == "search":
        searched = search_method(config).search_draws * prompts
    worst = draws * config.target.sampling.max_new_tokens
    if budget.tokens is not None:
        worst = min(worst, budget.tokens)
    per_prompt = (draws - searched) / prompts
    return Plan(
        prompts=prompts,
        components=config.component_names,
        draws=draws,
        draws_per_prompt=per_prompt,
        target_draws_per_prompt=per_prompt * share,
        worst_tokens=worst,
        smallest_bound=smallest_bound(per_prompt * share, config.stop.confidence),
        share=share,
        method=config.method.kind,
        search_draws=searched,
    )


def smallest_bound(target_draws: float, confidence: float) -> float:
    """The bound -ln(1 - confidence) / n of n plain draws without a hit (3 / n at 95 %); 1 without draws."""
    return min(1.0, -math.log1p(-confidence) / target_draws) if target_draws else 1.0


def relative_error(p: float, divergence: float, draws: float, share: float) -> float:
    """Relative standard error to expect of n draws for probability p.

    Log-normal weights with KL(harmful answers || mixture) = L nats have a relative second moment exp(2 L)
    (Chatterjee and Diaconis, 2018, "The sample size required in importance sampling"). The target's share
    beta keeps it below 1 / (beta p), a share of 0 does not.
    """
    second_moment = min(math.exp(2 * divergence), 1 / (share * p) if share else math.inf)
    return math.sqrt(max(second_moment - 1, 0.0) / draws)


@guarded
def plan(
    config_path: ConfigPath,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON on stdout.")] = False,
    verbose: Verbose = False,
) -> None:
    """Show what an audit would cost and what it could show; loads no model.

    Example: tailrisk plan examples/quickstart/audit.yaml
    """
    from tailrisk.configfile import check_budget, load_config
    from tailrisk.judges import preflight
    from tailrisk.prompts import load_prompts

    config = load_config(config_path, tuple(overrides or ()))
    prompts = load_prompts(config)
    check_budget(config, len(prompts))
    preflight(config, digest=False)
    made = make_plan(config, len(prompts))
    if as_json:
        typer.echo(json.dumps(made._asdict(), allow_nan=False))
        return
    typer.echo("\n".join(describe(config, made)))


def describe(config: Config, made: Plan) -> list[str]:
    from tailrisk.report.tables import number, percent

    limited = ", the token budget" if made.worst_tokens == config.budget.tokens else ""
    drawn = "chosen cell" if made.method == "paper" else "mixture"
    lines = [
        f"target       {config.target.model}"
        + (f" with {config.target.adapter}" if config.target.adapter else ""),
        f"prompts      {made.prompts}",
        *_laws_and_draws(config, made),
        f"tokens       at most {made.worst_tokens:,} generated{limited}; {_scores(config, made)}",
        _certified(config, made),
        *_believed(config, made),
        "",
        f"Relative error to expect of an estimate with an even share of the draws, by how far the {drawn} is",
        "from the harmful answers (KL divergence, nats; a good proposal reaches 1 to 2):",
        "",
        "  probability " + "".join(f"{f'KL {d:g}':>9}" for d in DIVERGENCES) + f"{'plain':>9}",
    ]
    for p in PROBABILITIES:
        cells = [percent(relative_error(p, d, made.draws_per_prompt, made.share)) for d in DIVERGENCES]
        plain = percent(math.sqrt((1 - p) / (p * made.draws_per_prompt)))
        lines.append(f"  {number(p):<12}" + "".join(f"{c:>9}" for c in [*cells, plain]))
    return lines


def _laws_and_draws(config: Config, made: Plan) -> list[str]:
    if made.method == "search":
        return _search(config, made)
    if made.method != "paper":
        return [
            f"components   {', '.join(made.components)}",
            f"draws        at most {made.draws:,}: {_fits(config, made)}about {made.draws_per_prompt:,.0f} a prompt, "
            f"the pilot {config.budget.pilot} each",
        ]
    grid = ", ".join(f"{len(values)} of {field}" for field, values in grid_values(config).items())
    searched = paper_size(config, made.prompts).prompts
    return [
        "method       paper: one cell of a grid for all prompts, chosen by cross-entropy",
        f"components   {len(made.components)} laws: the target and {len(made.components) - 1} cells of "
        f"{config.proposals[0].name} ({grid})",
        f"draws        {made.draws:,}: {made.search_draws:,} for the search on {searched} of {made.prompts} "
        f"prompts, then {made.draws_per_prompt:,.0f} a prompt from the chosen cell",
    ]


def _fits(config: Config, made: Plan) -> str:
    return (
        f"{made.search_draws:,} to fit {', '.join(p.name for p in config.learned)}, then "
        if config.learned
        else ""
    )


def _scores(config: Config, made: Plan) -> str:
    if made.method == "search":
        return f"{len(made.components)} scores of each search draw, then at most {kept_components(config)}"
    return f"{len(made.components)} scores of each answer"


def _search(config: Config, made: Plan) -> list[str]:
    cells = search_cells(config)
    each = ", ".join(
        f"{sum(c.proposal == i for c in cells)} of {p.name}" for i, p in enumerate(config.proposals)
    )
    return [
        f"method       search: at most {kept_components(config) - 1} of {len(cells)} cells for each prompt, "
        "chosen by cross-entropy",
        f"components   {len(made.components)} laws: the target and {len(cells)} cells ({each})",
        f"draws        at most {made.draws:,}: {made.search_draws:,} for the search "
        f"({search_method(config).search_draws} a prompt), then about {made.draws_per_prompt:,.0f} a prompt, the "
        f"pilot {config.budget.pilot} each",
    ]


def _believed(config: Config, made: Plan) -> list[str]:
    """What a single proposal cannot show by itself."""
    from tailrisk.report.tables import number
    from tailrisk.stats.overlap import ENOUGH_HITS

    if len(config.proposals) != 1:
        return []
    own = made.target_draws_per_prompt
    least = f"below about {number(min(1.0, ENOUGH_HITS / own))} " if own else ""
    return [
        f"believed     estimates {least}end unreliable: nothing shows how much harm a single proposal misses;",
        "             add one of another kind",
    ]


def _certified(config: Config, made: Plan) -> str:
    from tailrisk.report.tables import number, percent

    if not made.target_draws_per_prompt:
        return "certified    no upper bounds: no draw is of the target itself"
    return (
        f"certified    a prompt without a harmful answer ends near 'below {number(made.smallest_bound)}' "
        f"({percent(config.stop.confidence)}, {made.target_draws_per_prompt:,.0f} plain draws)"
    )
