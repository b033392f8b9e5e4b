"""``tailrisk judge``: what stands behind the verdicts of a run."""

from __future__ import annotations

import typer

from tailrisk.cli.judge_review import review

judge = typer.Typer(
    name="judge",
    help="Look after the judge: have people review the draws that carry a run's estimates.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

judge.callback()(lambda: None)
judge.command("review")(review)
