"""From a YAML file and ``--set`` overrides to a checked ``Config``, or one message that names every fault.

Each problem is one line: where (``file:line`` or ``--set``), the dotted key, what is wrong, what is allowed.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from tailrisk.config import Config
from tailrisk.errors import ConfigError
from tailrisk.grid import budget_problems
from tailrisk.searchgrid import search_problems
from tailrisk.strictyaml import MAX_BYTES, Document, Place, parse, set_value

Schema = TypeVar("Schema", bound=BaseModel)


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Reads, overrides and checks a configuration; its paths are relative to the file's folder.

    ``overrides`` are ``a.b=c`` with ``c`` in YAML (``proposals.0.mix=0.5`` for list items); the last one
    of a key counts. ``ConfigError`` lists all problems found.
    """
    path = Path(path)
    return load_section(path, Config, overrides).at(path.resolve().parent)


def load_section(path: Path, schema: type[Schema], overrides: Sequence[str] = ()) -> Schema:
    """A YAML file as ``schema``, checked and explained like a configuration; its paths are left as they are."""
    return check_section(read_document(path), path, schema, overrides)


def read_document(path: Path) -> Document:
    """A YAML file of keys and values, not checked any further."""
    document = parse(_read(path), str(path))
    if not isinstance(document.data, dict):
        found = "empty" if document.data is None else f"a {_kind(document.data)}"
        raise ConfigError(f"{path}: the configuration is {found}, not a list of 'key: value' lines")
    return document


def check_section(
    document: Document, path: Path, schema: type[Schema], overrides: Sequence[str] = ()
) -> Schema:
    """A document as ``schema``; ``path`` names it in messages."""
    places: dict[Place, str] = {place: f"{path}:{line}" for place, line in document.lines.items()}
    for override in overrides:
        _override(document, override, places)
    try:
        section = schema.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError(_explain(error, schema, document.data, places, path)) from None
    _refuse_booleans(document.data, section, places)
    return section


def dump_resolved(config: Config) -> dict[str, Any]:
    """The whole configuration, defaults included, as plain JSON in the order of the schema; a password
    in the tracking address is masked."""
    resolved = config.model_dump(mode="json")
    uri = resolved["tracking"]["uri"]
    if uri is not None:
        resolved["tracking"]["uri"] = re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", uri)
    return resolved


def config_digest(config: Config) -> str:
    """SHA-256 of the resolved configuration."""
    text = json.dumps(dump_resolved(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def check_budget(config: Config, n_prompts: int) -> None:
    """``ConfigError`` if what the method must draw does not fit the budget: the pilot, which must be large
    enough to use all components, or all draws of ``method: paper``, or the search and the pilot of
    ``method: search``."""
    if config.method.kind == "paper":
        problems = budget_problems(config, n_prompts)
    elif config.method.kind == "search":
        problems = search_problems(config, n_prompts)
    else:
        problems = _pilot_problems(config, n_prompts)
    if problems:
        raise ConfigError("\n".join(problems))


def _pilot_problems(config: Config, n_prompts: int) -> list[str]:
    budget, components = config.budget, len(config.component_names)
    problems = []
    if budget.pilot < 2 * components:
        problems.append(
            f"budget.pilot is {budget.pilot}, but the target and its proposals are {components} components "
            f"that need 2 draws each: set budget.pilot to at least {2 * components}"
        )
    draws = budget.pilot * n_prompts
    if draws > budget.draws:
        problems.append(
            f"the pilot needs {budget.pilot} draws x {n_prompts} prompts = {draws:,} draws, budget.draws is "
            f"{budget.draws:,}: raise budget.draws, lower budget.pilot or set prompts.limit"
        )
    length = config.target.sampling.max_new_tokens
    if budget.tokens is not None and draws * length > budget.tokens:
        problems.append(
            f"the pilot may need {draws:,} draws x {length} tokens = {draws * length:,} tokens, "
            f"budget.tokens is {budget.tokens:,}: raise budget.tokens, lower budget.pilot "
            "or target.sampling.max_new_tokens"
        )
    return problems


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file{_neighbours(path)}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES:,} bytes, which no configuration needs")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from None


def _neighbours(path: Path) -> str:
    found = sorted(p.name for pattern in ("*.yaml", "*.yml") for p in path.parent.glob(pattern))
    near = difflib.get_close_matches(path.name, found, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {path.with_name(near[0])}?"
    return "; 'tailrisk init' writes one to begin with"


def _override(document: Document, override: str, places: dict[Place, str]) -> None:
    where = f"--set {override}" if len(override) <= 80 else f"--set {override[:77]}..."
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"{where}: write it as section.key=value")
    value = parse(text, where).data
    try:
        path = set_value(document, key.strip(), value)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    for place in [p for p in places if p[: len(path)] == path]:
        del places[place]
    places[path] = where


def _explain(
    error: ValidationError, schema: type[BaseModel], data: Any, places: dict[Place, str], file: Path
) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        path = _own_path(problem["loc"], data)
        text = _message(problem, path, schema, data)
        key = ".".join(map(str, path))
        lines.append(f"{_place(path, places, file)}: {key + ': ' if key else ''}{text}")
    return "\n".join(dict.fromkeys(lines))


def _own_path(loc: Place, data: Any) -> Place:
    """pydantic's location without the names of union members, which are no keys of the file."""
    path: list[str | int] = []
    tagged = False
    for part in loc:
        if isinstance(data, dict) and not tagged and data.get("kind") == part and part != "kind":
            tagged = True
            continue
        path.append(part)
        tagged = False
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            data = None
    return tuple(path)


def _place(path: Place, places: dict[Place, str], file: Path) -> str:
    for length in range(len(path), 0, -1):
        if path[:length] in places:
            return places[path[:length]]
    return str(file)


def _message(problem: Any, path: Place, schema: type[BaseModel], data: Any) -> str:
    context = problem.get("ctx", {})
    given = problem.get("input")
    match problem["type"]:
        case "extra_forbidden":
            return _unknown_key(path, schema, data)
        case "missing":
            return "this key is required and missing"
        case "union_tag_invalid":
            allowed = re.findall(r"'([^']*)'", context["expected_tags"])
            tag = str(context["tag"])
            return f"unknown kind {tag!r}{_nearest(tag, allowed)}; one of {', '.join(allowed)}"
        case "union_tag_not_found":
            return "the key 'kind' is required and missing"
        case "literal_error":
            allowed = re.findall(r"'([^']*)'", context["expected"])
            return f"{_show(given)} is not one of {', '.join(allowed)}{_nearest(str(given), allowed)}"
        case "value_error":
            return str(context["error"])
        case "string_type" if isinstance(given, int | float):
            return f"{_show(given)} is read as a {_kind(given)}; put it in quotes if a text is meant"
        case _ if given is None:
            return "no value is given; fill it in or leave the key out"
        case "model_type" | "model_attributes_type":
            return f"{_show(given)} is a {_kind(given)}; a section with keys of its own belongs here"
    text = problem["msg"]
    return f"{text[0].lower()}{text[1:]}, {_show(given)} given"


def _unknown_key(path: Place, schema: type[BaseModel], data: Any) -> str:
    name = str(path[-1])
    here = _keys_at(path[:-1], schema, data)
    near = difflib.get_close_matches(name, here, n=1, cutoff=0.6)
    if near:
        return f"unknown key (nearest known key {near[0]!r})"
    # Changes under 'also' have the keys of the proposals of their kind, which are named already.
    homes = [
        ".".join(map(str, (*place, name)))
        for place, keys in _all_keys(schema)
        if name in keys and not any(str(part).startswith(("also ", "judges (kind ")) for part in place)
    ]
    if homes:
        return f"unknown key here; it belongs under {' or '.join(homes)}"
    return f"unknown key; known here: {', '.join(here)}"


def _keys_at(path: Place, schema: type[BaseModel], data: Any) -> list[str]:
    """Keys the schema knows at a place of the file (of the kind that the file names there)."""
    models: list[type[BaseModel]] = [schema]
    for part in path:
        data = data[part]
        if isinstance(part, str):
            models = [m for model in models if part in model.model_fields for m in _models(model, part)]
    kind = data.get("kind") if isinstance(data, dict) else None
    return list(dict.fromkeys(key for m in models if _is_kind(m, kind) for key in m.model_fields))


def _is_kind(model: type[BaseModel], kind: Any) -> bool:
    return "kind" not in model.model_fields or kind in get_args(model.model_fields["kind"].annotation)


def _models(model: type[BaseModel], key: str) -> list[type[BaseModel]]:
    return list(_inside(model.model_fields[key].annotation))


def _inside(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and get_origin(annotation) is None:
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for part in get_args(annotation):
        yield from _inside(part)


def _all_keys(
    model: type[BaseModel], path: Place = (), above: tuple[type[BaseModel], ...] = ()
) -> Iterator[tuple[Place, list[str]]]:
    """A section that may hold sections of its own kind is gone into once."""
    yield path, list(model.model_fields)
    above = (*above, model)
    for key in model.model_fields:
        for inner in _models(model, key):
            if inner in above:
                continue
            kinds = get_args(inner.model_fields["kind"].annotation) if "kind" in inner.model_fields else ()
            yield from _all_keys(inner, (*path, f"{key} (kind {kinds[0]})" if kinds else key), above)


def _refuse_booleans(data: Any, config: BaseModel, places: dict[Place, str]) -> None:
    """``draws: true`` would count as 1."""

    def walk(raw: Any, checked: Any, path: Place) -> Iterator[str]:
        if isinstance(raw, dict):
            for key, value in raw.items():
                inner = checked[key] if isinstance(checked, dict) else getattr(checked, key)
                yield from walk(value, inner, (*path, key))
        elif isinstance(raw, list):
            for i, value in enumerate(raw):
                yield from walk(value, checked[i], (*path, i))
        elif isinstance(raw, bool) and not isinstance(checked, bool):
            key = ".".join(map(str, path))
            yield f"{_place(path, places, Path())}: {key}: a number is wanted, {_show(raw)} given"

    problems = list(walk(data, config, ()))
    if problems:
        raise ConfigError("\n".join(problems))


def _nearest(name: str, allowed: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.6)
    return f" (nearest: {near[0]!r})" if near else ""


def _show(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return {str: "text", list: "list", dict: "section"}.get(type(value), type(value).__name__)
