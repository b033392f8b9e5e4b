"""docs/reference is what the code says, and the JSON Schema takes what the program takes."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from types import ModuleType
from typing import Any

import jsonschema
import pytest
from docpages import ROOT

from tailrisk.cli import run
from tailrisk.config import Config
from tailrisk.configdocs import all_models, field_texts
from tailrisk.stats import Estimate
from tailrisk.strictyaml import parse

REFERENCE = ROOT / "docs" / "reference"
CONFIGURATIONS = [
    ROOT / "tailrisk/cli/templates/tailrisk.yaml",
    *sorted(p for p in (ROOT / "examples").rglob("*.yaml") if "\ntarget:" in p.read_text(encoding="utf-8")),
]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_says(generate: ModuleType) -> None:
    pages = generate.pages()
    assert {path.name for path in REFERENCE.iterdir()} == set(pages)
    stale = [n for n, text in pages.items() if (REFERENCE / n).read_text(encoding="utf-8") != text]
    assert not stale, "out of date: run `make docs`"


def test_a_page_that_is_out_of_date_is_found_and_written(generate, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(generate, "REFERENCE", tmp_path / "reference")
    assert generate.main(["--check"]) == 1 and not (tmp_path / "reference").exists()
    assert generate.main([]) == 0 and generate.main(["--check"]) == 0
    (tmp_path / "reference" / "cli.md").write_text("old", encoding="utf-8")
    capsys.readouterr()
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().out == "docs/reference/cli.md\n"


@pytest.mark.parametrize(
    "model", sorted(all_models(Config), key=lambda m: m.__name__), ids=lambda m: m.__name__
)
def test_every_key_says_what_it_is(model: Any) -> None:
    assert set(model.model_fields) - {"kind"} <= set(field_texts(model))
    assert "doc" not in (model.__doc__ or "no doc")[:6]


def test_every_field_of_an_estimate_says_what_it_is() -> None:
    assert {field.name for field in dataclasses.fields(Estimate)} == set(field_texts(Estimate))


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert run(["schema"]) == 0
    found = json.loads(out.getvalue())
    jsonschema.Draft202012Validator.check_schema(found)
    return found


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_schema_takes_our_configurations(schema: dict[str, Any], path: Any) -> None:
    jsonschema.validate(parse(path.read_text(encoding="utf-8"), path.name).data, schema)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "paper"},
        {"cluster": {"models": {"memory": "40GiB"}}},
        {"method": {"kind": "search", "grids": [{"proposal": "p", "layers": [10, [10, 14]]}]}},
    ],
    ids=str,
)
def test_the_schema_takes_short_forms(schema: dict[str, Any], change: dict[str, Any]) -> None:
    jsonschema.validate({**MINIMAL, **change}, schema)


MINIMAL = {"target": {"model": "m"}, "prompts": {"path": "p"}, "judge": {"kind": "refusal"}}


@pytest.mark.parametrize(
    "change",
    [
        {"budget": {"drows": 5}},
        {"budget": {"draws": 0}},
        {"judge": {"kind": "regex"}},
        {"judge": {"kind": "other"}},
        {"target": {"model": "m", "dtype": "int8"}},
    ],
    ids=str,
)
def test_the_schema_refuses_what_is_no_configuration(schema: dict[str, Any], change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**MINIMAL, **change}, schema)


def test_the_schema_says_what_keys_mean(schema: dict[str, Any]) -> None:
    assert "never exceeded" in schema["$defs"]["BudgetConfig"]["properties"]["draws"]["description"]
