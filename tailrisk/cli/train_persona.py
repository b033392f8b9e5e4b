"""``tailrisk train persona``: a vector for a trait, and the layer and strength at which it steers best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tailrisk.cli.audit import ConfigPath, Overrides, wide
from tailrisk.cli.guard import Verbose, guarded
from tailrisk.cli.train_direction import check_out, layer_numbers, target_only
from tailrisk.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from rich.console import Console

    from tailrisk.config import Config
    from tailrisk.training.persona_files import Made

Tokens = Literal["all", "prompt", "response"]


@guarded
def persona(
    config_path: ConfigPath,
    trait_path: Annotated[
        Path, typer.Option("--trait", metavar="TRAIT", help="The trait's YAML file.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option(help="The safetensors file to write; how every setting did goes beside it.")
    ],
    samples: Annotated[
        int, typer.Option(min=1, help="Answers to each question under each system prompt.")
    ] = 10,
    layers: Annotated[
        str | None,
        typer.Option(
            help="Block outputs to try, such as 9-13,20. Without it: six at 35 to 60 % of the depth."
        ),
    ] = None,
    coefficients: Annotated[
        str, typer.Option(metavar="NUMBERS", help="Multiples of the vector to try at each layer.")
    ] = "1,1.5,2,2.5,3",
    answers: Annotated[
        int,
        typer.Option(
            min=1,
            help="Answers to each held-out question at each layer and multiple; of the target four times.",
        ),
    ] = 4,
    tokens: Annotated[Tokens, typer.Option(help="Where the vector is added.")] = "all",
    seed: Annotated[int | None, typer.Option(min=0, help="Without it: the audit's own.")] = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but errors.")] = False,
    verbose: Verbose = False,
) -> None:
    """Make a vector for a trait from the target's own answers, and find where and how strongly to add it.

    CONFIG gives the target. It answers the trait's questions under system prompts for and against the trait; the
    vector is the difference of its activations over the answers that the trait's judge accepts. Layers and
    multiples are tried on questions kept aside; of those that bring out the trait best, answers staying
    coherent, the smallest multiple is printed as a proposal.

    Example: tailrisk train persona audit.yaml --trait sycophancy.yaml --out sycophancy.safetensors
    """
    from rich.console import Console

    console = wide(Console(stderr=True, quiet=quiet, highlight=False))
    check_out(out)
    numbers = None if layers is None else layer_numbers(layers)
    strengths = multiples(coefficients)

    from tailrisk.training.traits import load_trait

    config = target_only(config_path, tuple(overrides or ()))
    loaded = load_trait(trait_path)

    from tailrisk.cli.steps import Steps
    from tailrisk.training.persona import check_target, find_vectors, open_target
    from tailrisk.training.persona_files import Made
    from tailrisk.training.persona_search import check_answers, search

    console.print("checking model, adapter and questions", style="dim", markup=False)
    checked = check_target(config, loaded, samples, numbers)
    check_answers(loaded, len(checked.layers) * len(strengths), answers)
    console.print("loading the model", style="dim", markup=False)
    target = open_target(checked)
    seed = config.run.seed if seed is None else seed
    with Steps(console) as steps:
        found = find_vectors(target, loaded, samples=samples, seed=seed, watch=steps)
        surface = search(
            target,
            loaded,
            found.vectors,
            coefficients=strengths,
            answers=answers,
            tokens=tokens,
            seed=seed,
            watch=steps,
        )
    _finish(Made(loaded.trait, target, found, surface, seed), config, out, console, as_json)


def _finish(made: Made, config: Config, out: Path, console: Console, as_json: bool) -> None:
    """Writes the files, then tells; errors: ModelError where no setting brings out the trait."""
    from tailrisk.training.persona_files import proposal, proposal_yaml, save

    beside = save(out, made)
    _tell(made, console)
    fields = proposal(out, made, config)
    if as_json:
        paths = {"vectors": str(out), "settings": str(beside)}
        typer.echo(json.dumps({**made.to_json(), "proposal": fields, "paths": paths}, allow_nan=False))
    if fields is None:
        raise ModelError(
            f"trait {made.trait.name!r}: {made.surface.why}. The vectors are in {out} all the same; try other "
            "--layers, larger --coefficients or more --answers"
        )
    for line in (f"chosen: {made.surface.why}", f"written: {out} and {beside}. As a proposal:"):
        console.print(line, markup=False, soft_wrap=True)
    console.print(proposal_yaml(fields), markup=False, soft_wrap=True)


def multiples(text: str) -> tuple[float, ...]:
    """``1,1.5,2`` as numbers, such as a proposal's ``coefficient`` may be. Errors: ConfigError."""
    found: list[float] = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = 0.0
        if not 0.0 < abs(value) <= 1e6:
            raise ConfigError(
                f"--coefficients {text}: {part.strip()!r} is no multiple of a vector; write numbers other than 0, "
                "such as 1,1.5,2"
            )
        found.append(value)
    return tuple(dict.fromkeys(found))


def _tell(made: Made, console: Console) -> None:
    """How many pairs were kept, and the table of settings; never a prompt or an answer."""
    from rich import box
    from rich.table import Table

    counts, surface = made.found.counts, made.surface
    console.print(
        f"kept {counts.kept} of {counts.drawn} pairs of answers: {counts.shown} positive ones have the trait, "
        f"{counts.clean} negative ones have not, {counts.coherent} pairs are coherent"
        + (f", of {counts.unsettled} a judge cannot say" if counts.unsettled else ""),
        markup=False,
        soft_wrap=True,
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer", justify="right")
    for strength in dict.fromkeys(cell.coefficient for cell in surface.cells):
        table.add_column(f"x {strength:g}", justify="right")
    rows: dict[int, list[str]] = {}
    for cell in surface.cells:
        mark = "*" if cell == surface.chosen else ""
        both, coherent = (100 * n / cell.rates.answers for n in (cell.rates.both, cell.rates.coherent))
        shown = "broken" if cell.broken else f"{mark}{both:.0f} ({coherent:.0f})"
        rows.setdefault(cell.layer, []).append(shown)
    for layer, row in rows.items():
        table.add_row(str(layer), *row)
    own = surface.target
    for line in (
        "answers with the trait that are coherent, all that are coherent in brackets, %:",
        f"the target itself: {100 * own.worth:.0f} ({100 * own.coherent / own.answers:.0f})",
    ):
        console.print(line, markup=False, soft_wrap=True)
    console.print(table)
    if unsettled := own.unsettled + sum(cell.rates.unsettled for cell in surface.cells):
        console.print(
            f"of {unsettled} answers a judge cannot say; they count as without the trait", markup=False
        )
