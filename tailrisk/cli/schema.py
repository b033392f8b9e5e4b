"""``tailrisk schema``: the configuration as JSON Schema."""

from __future__ import annotations

import json

import typer

from tailrisk.cli.guard import Verbose, guarded


@guarded
def schema(verbose: Verbose = False) -> None:
    """Print the JSON Schema of configurations, with which editors complete keys and say what they mean.

    Example: tailrisk schema > my-audit/tailrisk.schema.json
    """
    from tailrisk.configdocs import json_schema

    typer.echo(json.dumps(json_schema(), indent=1))
