"""Prompt sets: jsonl, csv, parquet or txt in; checked prompts with stable ids out.

Columns are found by name without regard to case, or named in the configuration. Every bad row is reported
in one pass, by file and line; no message quotes a prompt. A row without an id gets the first 12 hex digits
of its content's SHA-256, so ids survive reordering.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tailrisk.config import Config, PromptsConfig
from tailrisk.errors import ConfigError, InputError
from tailrisk.promptfiles import READERS, Problem, Row, bad_rows
from tailrisk.records import Prompt

PROMPT_COLUMNS = (
    "prompt", "forbidden_prompt", "goal", "behavior", "instruction", "input", "text", "question", "messages",
)  # fmt: skip
ID_COLUMNS = ("id", "behaviorid", "index")
CATEGORY_COLUMNS = ("category", "semanticcategory")
GROUP_COLUMNS = ("group",)
PERTURBATION_COLUMNS = ("perturbation",)
CONTEXT_COLUMN = "contextstring"
"""HarmBench's context column: a text the request refers to, put before it as in the benchmark's own code."""
ROLES = ("user", "assistant")
_ID = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,128}")


class _BadRow(Exception):  # noqa: N818 - a reason, turned into an InputError
    """Why a row is refused."""


def load_prompts(config: Config) -> list[Prompt]:
    """The audited prompts in file order, at most ``prompts.limit`` of them (the whole file is checked).

    ``ConfigError``: no such file, unknown suffix or no such column. ``InputError``: bad rows, all of them.
    """
    return read_prompts(config.resolve(config.prompts.path), config.prompts)


def read_prompts(path: Path, settings: PromptsConfig, name: str = "prompts.path") -> list[Prompt]:
    """The prompts of a file, as ``load_prompts``; ``name`` says in messages who named it."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"{name}: {path}: unknown suffix; one of {', '.join(READERS)}")
    if not path.is_file():
        raise ConfigError(f"{name}: {path}: no such file")
    prompts, problems = _collect(reader(path), settings, path)
    if problems:
        raise bad_rows(path, problems)
    if not prompts:
        raise InputError(f"{path}: no prompts in it")
    return prompts[: settings.limit]


def prompts_digest(prompts: Iterable[Prompt]) -> str:
    """SHA-256 over ids, messages and groups in order; categories and perturbations, which are labels, do not count.
    Groups do, because what is drawn depends on them."""
    digest = hashlib.sha256()
    for prompt in prompts:
        group = "" if prompt.group is None else f" {json.dumps(prompt.group)}"
        digest.update(f"{prompt.id} {prompt_digest(prompt)}{group}\n".encode())
    return digest.hexdigest()


def prompt_digest(prompt: Prompt) -> str:
    """SHA-256 of one prompt's messages."""
    return _content_hash(prompt.messages)


def _collect(
    rows: Iterable[Row | Problem], settings: PromptsConfig, path: Path
) -> tuple[list[Prompt], list[tuple[int, str]]]:
    prompts: list[Prompt] = []
    problems: list[tuple[int, str]] = []
    ids: dict[str, int] = {}
    contents: dict[str, int] = {}
    good: list[Row] = []
    for row in rows:
        if isinstance(row, Problem):
            problems.append((row.line, row.what))
        else:
            good.append(row)
    if not good:
        return [], problems
    columns = _Columns.find(list(dict.fromkeys(key for row in good for key in row.values)), settings, path)
    for row in good:
        try:
            prompt = _prompt(row.values, columns)
            content = prompt_digest(prompt)
            if content in contents:
                raise _BadRow(f"duplicate text (first at line {contents[content]})")
            contents[content] = row.line
            if prompt.id in ids:
                raise _BadRow(f"duplicate id {prompt.id!r} (first at line {ids[prompt.id]})")
            ids[prompt.id] = row.line
            prompts.append(prompt)
        except _BadRow as bad:
            problems.append((row.line, str(bad)))
    return prompts, sorted(problems)


class _Columns:
    """Which column is what, from the names of all columns."""

    def __init__(
        self,
        prompt: str,
        id: str | None,
        category: str | None,
        context: str | None,
        group: str | None,
        perturbation: str | None,
    ):
        self.prompt, self.id, self.category, self.context = prompt, id, category, context
        self.group, self.perturbation = group, perturbation

    @classmethod
    def find(cls, names: Sequence[str], settings: PromptsConfig, path: Path) -> _Columns:
        prompt = _named(settings.prompt, "prompt", names, path) or _first(PROMPT_COLUMNS, names)
        if prompt is None:
            raise ConfigError(
                f"{path}: no column of prompts: none of {', '.join(PROMPT_COLUMNS)} among {_names(names)}; "
                "name it with prompts.prompt"
            )
        context = None if settings.prompt else _first((CONTEXT_COLUMN,), names)
        return cls(
            prompt,
            _named(settings.id, "id", names, path) or _first(ID_COLUMNS, names),
            _named(settings.category, "category", names, path) or _first(CATEGORY_COLUMNS, names),
            context,
            _named(settings.group, "group", names, path) or _first(GROUP_COLUMNS, names),
            _named(settings.perturbation, "perturbation", names, path) or _first(PERTURBATION_COLUMNS, names),
        )


def _named(name: str | None, key: str, names: Sequence[str], path: Path) -> str | None:
    if name is None:
        return None
    found = _first((name,), names)
    if found is None:
        raise ConfigError(f"prompts.{key}: {path} has no column {name!r}; its columns: {_names(names)}")
    return found


def _first(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    for name in wanted:
        if name in names:
            return name
        for candidate in names:
            if candidate.lower() == name.lower():
                return candidate
    return None


def _names(names: Sequence[str]) -> str:
    return ", ".join(ascii(name[:40])[1:-1] for name in names[:20]) or "(none)"


def _prompt(row: Mapping[str, Any], columns: _Columns) -> Prompt:
    if row.get(columns.prompt) is None:
        raise _BadRow(f"no {columns.prompt!r}")
    messages = tuple(_messages(row[columns.prompt], columns.prompt))
    if columns.context is not None and row.get(columns.context):
        context = _text(row[columns.context], columns.context)
        messages = ({"role": "user", "content": f"{context}\n\n---\n\n{messages[-1]['content']}"},)
    return Prompt(
        id=_id(row.get(columns.id) if columns.id else None, messages),
        messages=messages,
        category=_label(row, columns.category),
        group=_label(row, columns.group),
        perturbation=_label(row, columns.perturbation),
    )


def _messages(value: Any, column: str) -> Iterator[dict[str, str]]:
    if not isinstance(value, list):
        yield {"role": "user", "content": _text(value, column)}
        return
    if not value:
        raise _BadRow(f"{column!r} is an empty list")
    for number, message in enumerate(value):
        at = f"{column}.{number}"
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise _BadRow(f"{at} is not a message with 'role' and 'content'")
        extra = [key for key, v in message.items() if key not in ("role", "content") and v is not None]
        if extra:
            raise _BadRow(f"{at} has an unknown key {_shown(extra[0])}; only 'role' and 'content' are used")
        role = message["role"]
        if role == "system":
            raise _BadRow(f"{at} has the role 'system'; set target.system_prompt instead")
        if role not in ROLES:
            raise _BadRow(f"{at} has an unknown role {_shown(role)}; one of {', '.join(ROLES)}")
        if number == len(value) - 1 and role != "user":
            raise _BadRow("the last message is not from the user")
        yield {"role": role, "content": _text(message["content"], at)}


def _text(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise _BadRow(f"{column!r} is {_type(value)}, not a text")
    if not value.strip():
        raise _BadRow(f"{column!r} is empty")
    if "\0" in value:
        raise _BadRow(f"{column!r} holds a NUL character")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _BadRow(f"{column!r} holds half of a surrogate pair at character {error.start}") from None
    return value


def _id(value: Any, messages: Sequence[Mapping[str, str]]) -> str:
    if value is None or value == "":
        return _content_hash(messages)[:12]
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise _BadRow(f"the id is {_type(value)}, not a text or a whole number")
    if not _ID.fullmatch(str(value)):
        raise _BadRow(f"the id {_shown(value)} is refused: 1 to 128 of the characters A-Z a-z 0-9 . _ -")
    return str(value)


def _label(row: Mapping[str, Any], column: str | None) -> str | None:
    value = row.get(column) if column else None
    if value is None or value == "":
        return None
    if isinstance(value, bool | list | dict):
        raise _BadRow(f"{column!r} is {_type(value)}, not a text")
    return _text(str(value), str(column))[:200]


def _content_hash(messages: Sequence[Mapping[str, str]]) -> str:
    pairs = [[m["role"], m["content"]] for m in messages]
    content = pairs[0][1] if len(pairs) == 1 else json.dumps(pairs, ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8")).hexdigest()


def _shown(value: Any) -> str:
    return ascii(str(value)[:40])


def _type(value: Any) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")
