"""``report.json``: the views of all sections for machines, in a form that has a version and a JSON Schema.

The schema is shipped beside this module and made from the views' types, so it says what is written; ``python -m
tailrisk.report.machine`` prints it. Numbers that are not finite are null.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

from tailrisk.report.sections import Report

SCHEMA_FILE = "report.schema.json"


@functools.cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Report)


def report_json(report: Report) -> str:
    """One JSON object; lone surrogates of a model's text are spelled out by the views before they come here."""
    text = _adapter().dump_json(report, indent=2, warnings=False).decode()
    return f"{text}\n"


def made_schema() -> dict[str, Any]:
    """The JSON Schema of the views as they are."""
    made = _without_descriptions(_adapter().json_schema(mode="serialization"))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _without_descriptions(schema: Any) -> Any:
    """They are the views' own, for those who work on them."""
    if isinstance(schema, dict):
        return {
            k: _without_descriptions(v)
            for k, v in schema.items()
            if k != "description" or not isinstance(v, str)
        }
    return [_without_descriptions(v) for v in schema] if isinstance(schema, list) else schema


def shipped_schema() -> dict[str, Any]:
    """The JSON Schema that belongs to this version of the report."""
    place = resources.files("tailrisk.report").joinpath("templates", SCHEMA_FILE)
    return json.loads(place.read_text(encoding="utf-8"))


if __name__ == "__main__":
    print(json.dumps(made_schema(), indent=1, sort_keys=True))
