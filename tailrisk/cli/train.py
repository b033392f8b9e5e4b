"""``tailrisk train``: proposals made from the user's own prompts."""

from __future__ import annotations

import typer

from tailrisk.cli.train_direction import direction
from tailrisk.cli.train_lora import lora
from tailrisk.cli.train_persona import persona

train = typer.Typer(
    help="Make proposals: directions, vectors and adapters of the target, from prompts of your own.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

train.command("direction")(direction)
train.command("persona")(persona)
train.command("lora")(lora)
