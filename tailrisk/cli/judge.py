"""``tailrisk judge``: how far the verdicts of a judge can be trusted."""

from __future__ import annotations

import typer

from tailrisk.cli import judge_check, judge_review

judge = typer.Typer(
    help="Find out how far a judge can be trusted.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
judge.command("check")(judge_check.check)
judge.command("review")(judge_review.review)
