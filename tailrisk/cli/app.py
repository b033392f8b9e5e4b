"""The typer application: which verbs there are, in which panel of the help."""

from __future__ import annotations

from typing import Annotated

import typer

from tailrisk import __version__
from tailrisk.cli import (
    audit,
    compare,
    doctor,
    export,
    forecast,
    guard,
    init,
    perturb,
    plan,
    rejudge,
    report,
    schema,
    show,
    submit,
)
from tailrisk.cli.judge import judge
from tailrisk.cli.train import train

START, MAKE, RUN, INSPECT = "Start", "Make proposals", "Run", "Inspect"

app = typer.Typer(
    help="Estimate how likely a language model is to give an answer that is too rare to see by sampling.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"tailrisk {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    guard.reset()


app.command("init", rich_help_panel=START)(init.init)
app.command("doctor", rich_help_panel=START)(doctor.doctor)
app.command("schema", rich_help_panel=START)(schema.schema)
app.add_typer(train, name="train", rich_help_panel=MAKE)
app.command("perturb", rich_help_panel=START)(perturb.perturb)
app.command("plan", rich_help_panel=RUN)(plan.plan)
app.command("audit", rich_help_panel=RUN)(audit.audit)
app.command("submit", rich_help_panel=RUN)(submit.submit)
app.command("rejudge", rich_help_panel=RUN)(rejudge.rejudge)
app.add_typer(judge, name="judge", rich_help_panel=INSPECT)
app.command("show", rich_help_panel=INSPECT)(show.show)
app.command("report", rich_help_panel=INSPECT)(report.report)
app.command("compare", rich_help_panel=INSPECT)(compare.compare)
app.command("export", rich_help_panel=INSPECT)(export.export)
app.command("forecast", rich_help_panel=INSPECT)(forecast.forecast)
