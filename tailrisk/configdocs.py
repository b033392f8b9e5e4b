"""What the keys of the configuration mean, for readers: the texts below the fields of its classes, and a JSON Schema.

Read from the sources when they are asked for, so that loading a configuration costs nothing for it.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import itertools
import typing
from collections.abc import Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from tailrisk.config import Config


def field_texts(cls: type) -> dict[str, str]:
    """Of a class with annotated fields: the text below each field that has one, those of its bases included."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.split(".")[0] == "tailrisk":
            texts |= _in_module(base.__module__).get(base.__qualname__, {})
    return texts


@functools.cache
def _in_module(name: str) -> dict[str, dict[str, str]]:
    tree = ast.parse(inspect.getsource(importlib.import_module(name)))
    return {node.name: dict(_below(node.body)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _below(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match text:
                case ast.Expr(value=ast.Constant(value=str(said))):
                    yield field.target.id, " ".join(said.split())


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that an annotation allows, those of lists and alternatives included."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, typing.Annotated, tuple):
        for part in get_args(annotation):
            yield from models_in(part)


def all_models(model: type[BaseModel], known: set[type[BaseModel]] | None = None) -> set[type[BaseModel]]:
    """The section, and all sections below it."""
    known = set() if known is None else known
    if model not in known:
        known.add(model)
        for field in model.model_fields.values():
            for inner in models_in(field.annotation):
                all_models(inner, known)
    return known


def json_schema() -> dict[str, Any]:
    """The configuration as JSON Schema (draft 2020-12), for editors; more is checked than they can see. A method may be
    a bare name there too."""
    schema = Config.model_json_schema()
    by_name = {model.__name__: model for model in all_models(Config)}
    for name, part in [("Config", schema), *schema["$defs"].items()]:
        texts = field_texts(by_name[name]) if name in by_name else {}
        for key, property_ in part.get("properties", {}).items():
            property_.pop("title", None)
            if key in texts:
                property_["description"] = texts[key].replace("``", "`")
    method = schema["properties"]["method"]
    method["anyOf"] = [{"enum": list(method["discriminator"]["mapping"])}, {"oneOf": method.pop("oneOf")}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
