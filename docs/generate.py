"""Writes docs/reference from the code: ``make docs``. ``--check`` writes nothing and fails where a page would change.

The words are those of the program: helps of the verbs, and the texts below the fields of its classes.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import math
import re
import sys
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tailrisk import judgeconfig, judgesection, proposalconfig
from tailrisk.cli.app import app
from tailrisk.config import Config
from tailrisk.configdocs import field_texts, models_in
from tailrisk.judges import KINDS as JUDGES
from tailrisk.proposals import KINDS as PROPOSALS
from tailrisk.stats import Estimate

REFERENCE = Path(__file__).parent / "reference"
MADE = "<!-- Made by `make docs` from the code: change it there. -->"
COMMON = "Keys of every kind"
WORDS: dict[Any, str] = {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}
"""What follows an option, where it does not say itself."""


def pages() -> dict[str, str]:
    """Name of each page -> its text."""
    return {
        "README.md": index(),
        "cli.md": verbs(),
        "config.md": configuration(),
        "proposals.md": kinds("proposals", "Proposal", PROPOSALS, _classes(proposalconfig.ProposalConfig)),
        "judges.md": kinds("judge", "Judge", JUDGES, _classes(judgeconfig.JudgeConfig)),
        "estimates.md": estimates(),
    }


def index() -> str:
    return _page(
        "Reference",
        "Made from the code.",
        "",
        "- [cli.md](cli.md): every verb, its arguments, options and exit codes",
        "- [config.md](config.md): every key of the configuration, but for those of",
        "  [proposals](proposals.md) and [judges](judges.md), by kind",
        "- [estimates.md](estimates.md): the fields of an estimate in `estimates.json`",
        "",
        "`tailrisk schema` prints the configuration as JSON Schema.",
    )


# --- verbs ---


def verbs() -> str:
    lines = [
        "`tailrisk VERB --help` says the same. What exit codes mean in general is with",
        "[audits](../audits.md#exit-codes).",
    ]
    group: Any = typer.main.get_command(app)
    for name, command in _commands(group, "tailrisk"):
        lines += ["", f"## {name}", "", *_verb(name, command)]
    return _page("Verbs", *lines)


def _commands(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


def _verb(name: str, command: Any) -> Iterator[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    hints = get_type_hints(inspect.unwrap(command.callback))
    usage = [_metavar(p) if p.required else f"[{_metavar(p).strip('[]')}]" for p in arguments]
    yield f"`{' '.join([name, *usage, '[OPTIONS]'])}`"
    for paragraph in re.split(r"\n\s*\n", command.help.strip()):
        text = " ".join(paragraph.split())
        example = text.removeprefix("Example: ")
        yield from ("", f"Example: `{example}`" if example != text else text)
    yield from _rows(
        ("argument", "is"), ((f"`{_metavar(p).strip('[]')}`", p.help) for p in arguments if p.help)
    )
    yield from _rows(
        ("option", "default", "is"),
        ((_option(p, hints[p.name]), _default_of(p), p.help or "") for p in options),
    )


def _metavar(parameter: Any) -> str:
    return parameter.metavar or parameter.name.upper()


def _option(parameter: Any, hint: Any) -> str:
    """Its names and what follows; ``hint``: the type that the verb's function asks for."""
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    if parameter.is_flag:
        return names
    if parameter.metavar:
        return f"{names} {parameter.metavar}"
    for one in (hint, *get_args(hint)):
        choices = get_args(one) if get_origin(one) is Literal else ()
        if isinstance(one, type) and issubclass(one, enum.Enum):
            choices = [choice.value for choice in one]
        if choices:
            return f"{names} {' or '.join(f'`{choice}`' for choice in choices)}"
        if one in WORDS:
            return f"{names} {WORDS[one]}"
    return names


def _default_of(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    value = getattr(value, "value", value)
    if parameter.is_flag or value is None or callable(value) or type(value).__name__ == "Sentinel":
        return ""
    return f"`{value}`"


# --- the configuration ---


def configuration() -> str:
    lines = [
        "One YAML file. Unknown and doubled keys are refused; relative paths are relative to the file; any key can be",
        "set with `--set KEY=VALUE`. What the sections are for is with [audits](../audits.md#the-configuration).",
    ]
    for name, field in Config.model_fields.items():
        text = _plain(field_texts(Config).get(name, ""))
        if name in ("proposals", "judge"):
            page = {"proposals": "proposals", "judge": "judges"}[name]
            lines += ["", f"## {name}", "", f"{text} Its keys, by kind: [{page}]({page}.md)."]
            continue
        lines += ["", f"## {name}", "", text]
        for model in dict.fromkeys(models_in(field.annotation)):
            lines += list(_section(name, model, {}))
    return _page("Configuration", *lines)


def _section(path: str, model: type[BaseModel], seen: dict[type[BaseModel], str]) -> Iterator[str]:
    """The keys of a section and of those below it, but for judges and proposals, which have pages of their own.
    ``seen``: where sections of the same form have been told of."""
    kind = _kind(model)
    if kind is not None:
        yield from ("", f"### {path}: {kind}", "", _first(model))
    yield from _keys(model, skip=("kind",))
    for name, field in model.model_fields.items():
        for inner in dict.fromkeys(models_in(field.annotation)):
            place = f"{path}.{name}"
            if issubclass(inner, judgesection.JudgeSection):
                continue
            if inner in seen:
                yield from ("", f"### {place}", "", f"As [{seen[inner]}](#{seen[inner].replace('.', '')}).")
                continue
            seen[inner] = place
            yield from ("", f"### {place}", "", _first(inner))
            yield from _section(place, inner, seen)


def kinds(section: str, title: str, known: Iterable[str], classes: dict[str, type[BaseModel]]) -> str:
    """The page of all kinds of proposals or of judges: keys that all have once, then those of each."""
    everywhere = [set(model.model_fields) for model in classes.values()]
    common = [
        name for name in next(iter(classes.values())).model_fields if all(name in e for e in everywhere)
    ]
    common = [name for name in common if name != "kind"]
    lines = [f"What they are for, and how to choose, is on [{title.lower()}s](../{title.lower()}s.md)."]
    lines += [
        "",
        f"## {COMMON}",
        "",
        "`kind` names the kind; it is required, as is each key without a default.",
    ]
    lines += list(_keys(next(iter(classes.values())), only=common))
    for kind in known:
        lines += ["", f"## {kind}", "", _first(classes[kind])]
        lines += list(_keys(classes[kind], skip=("kind", *common)))
        for name, field in classes[kind].model_fields.items():
            for inner in dict.fromkeys(models_in(field.annotation)):
                if _kind(inner) is None:
                    lines += ["", f"### {kind}: {name}", "", _first(inner), *_keys(inner)]
    return _page(f"{title}s by kind", *lines)


def _classes(union: Any) -> dict[str, type[BaseModel]]:
    return {str(_kind(model)): model for model in models_in(union)}


def _kind(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return get_args(field.annotation)[0] if field is not None else None


def _keys(
    model: type[BaseModel], *, skip: Iterable[str] = (), only: Iterable[str] | None = None
) -> Iterator[str]:
    texts = field_texts(model)
    names = [n for n in model.model_fields if n not in set(skip) and (only is None or n in set(only))]
    rows = (
        (
            f"`{name}`",
            _allowed(model.model_fields[name]),
            _default(model.model_fields[name]),
            _plain(texts.get(name, "")),
        )
        for name in names
    )
    yield from _rows(("key", "value", "default", "is"), rows)


def _allowed(field: FieldInfo) -> str:
    return "; ".join(part for part in (_type(field.annotation), _limits(field.metadata)) if part)


def _type(annotation: Any) -> str:
    """What may stand there, in words."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = _limits(args[1:])
        return _type(args[0]) + (f" ({limits})" if limits else "")
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in args)
    if origin in (Union, types.UnionType):
        sections = all(a is type(None) or list(models_in(a)) for a in args)
        if sections and len([a for a in args if a is not type(None)]) > 1:
            return "one of the kinds"
        return " or ".join("null" if a is type(None) else _type(a) for a in args)
    if origin is tuple:
        each = _type(args[0])
        if args[-1] is not Ellipsis:
            return f"list of {len(args)}: {each}"
        return f"list of ({each})" if " or " in each else f"list of {each}"
    if origin is dict or annotation is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    names = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`"}
    return names.get(annotation, "anything" if annotation is Any else str(annotation))


def _limits(metadata: Iterable[Any]) -> str:
    said = []
    for one in metadata:
        if isinstance(one, FieldInfo):
            said.append(_limits(one.metadata))
        elif isinstance(one, Ge):
            said.append(f"at least {_number(one.ge)}")
        elif isinstance(one, Gt):
            said.append(f"above {_number(one.gt)}")
        elif isinstance(one, Le):
            said.append(f"at most {_number(one.le)}")
        elif isinstance(one, Lt):
            said.append(f"below {_number(one.lt)}")
        elif isinstance(one, MinLen) and one.min_length > 0:
            said.append("not empty" if one.min_length == 1 else f"{one.min_length} or more")
        elif isinstance(one, MaxLen):
            said.append(f"{one.max_length} at most")
    return ", ".join(part for part in said if part)


def _number(value: Any) -> str:
    if isinstance(value, int) and value >= 2**20 and math.log2(value).is_integer():
        return f"2^{int(math.log2(value))}"
    return f"{value:g}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        changed = value.model_dump(exclude_defaults=True)
        return f"`{_yaml(changed)}`" if changed else ""
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_yaml(v)}" for k, v in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- estimates ---


def estimates() -> str:
    texts, hints = field_texts(Estimate), get_type_hints(Estimate)
    hints |= {"status": str, "alarms": tuple[str, ...]}  # their values have tables of their own
    rows = [
        (f"`{field.name}`", _type(hints[field.name]), _plain(texts.get(field.name, "")))
        for field in dataclasses.fields(Estimate)
    ]
    return _page(
        "Estimates",
        "`estimates.json` of a run folder holds `audit`, totals of the whole run, and `estimates`, one record a",
        "prompt.",
        "`tailrisk show RUN --json` prints it, also of a run that is going on. Numbers that are not finite are null.",
        "How to read a status is in the [main README](../../README.md#how-to-read-the-table), the alarms are with",
        "[audits](../audits.md#alarms).",
        *_rows(("field", "value", "is"), rows),
    )


# --- words ---


def _page(title: str, *lines: str) -> str:
    return "\n".join([f"# {title}", "", MADE, "", *lines]).rstrip() + "\n"


def _rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    cells = [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]
    if cells:
        yield ""
        for row in (head, ("---",) * len(head), *cells):
            yield f"| {' | '.join(row)} |"


def _plain(text: str) -> str:
    return text.replace("``", "`")


def _first(model: type) -> str:
    """The first paragraph of a class's text."""
    return _plain(" ".join(re.split(r"\n\s*\n", (model.__doc__ or "").strip())[0].split()))


def main(arguments: list[str]) -> int:
    stale = []
    for name, text in pages().items():
        path = REFERENCE / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    print("\n".join(f"docs/reference/{name}" for name in stale) or "docs/reference is what the code says")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
