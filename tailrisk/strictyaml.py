"""YAML without surprises: plain data plus the line of every key.

Differences from PyYAML's SafeLoader: a doubled key is an error; only ``true`` and ``false`` are booleans
(``no``, ``on`` are strings); ``1e-6`` and ``200_000`` are numbers; dates and ``1:30`` are strings; tags,
anchors and aliases are refused; a number that is not finite is refused. Size and nesting are bounded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import yaml
from yaml.events import AliasEvent, MappingEndEvent, MappingStartEvent, ScalarEvent, SequenceEndEvent
from yaml.events import SequenceStartEvent as ListStartEvent
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.scanner import Scanner

from tailrisk.errors import ConfigError

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_VALUES = 5_000
Place = tuple[str | int, ...]

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+(_[0-9]+)*")
_FLOAT = re.compile(r"[-+]?([0-9]+(_[0-9]+)*(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class Document(NamedTuple):
    """``data`` as dicts, lists, strings, numbers, booleans and None; ``lines`` maps the path of each key
    and list item to its line, from 1."""

    data: Any
    lines: dict[Place, int]


def parse(text: str, source: str) -> Document:
    """The one document in ``text``; ``ConfigError`` beginning with ``source:line`` for what is refused."""
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{source}: {len(text):,} characters; a configuration has at most {MAX_BYTES:,}")
    try:
        reader = _Reader(text, source)
        return Document(reader.document(), reader.lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if mark else source
        raise ConfigError(f"{where}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None


class _Events(Reader, Scanner, Parser):
    """PyYAML's event stream alone: nothing is composed, constructed or resolved."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)


class _Reader:
    def __init__(self, text: str, source: str) -> None:
        self._events = _Events(text)
        self._source = source
        self._values = 0
        self.lines: dict[Place, int] = {}

    def document(self) -> Any:
        self._events.get_event()  # start of the stream
        if self._events.check_event(yaml.StreamEndEvent):
            return None
        self._events.get_event()  # start of the document
        data = self._value((), self._events.get_event())
        self._events.get_event()  # end of the document
        extra = self._events.get_event()
        if not isinstance(extra, yaml.StreamEndEvent):
            self._refuse(extra, "a second document begins; a configuration is one document")
        return data

    def _value(self, path: Place, event: Any) -> Any:
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            self._refuse(event, "anchors and aliases (& and *) are not used here; write the value out")
        if getattr(event, "tag", None):
            self._refuse(
                event, f"the tag {event.tag!r} is refused; write a plain value, quoted if it is a text"
            )
        self._values += 1
        if self._values > MAX_VALUES:
            self._refuse(event, f"more than {MAX_VALUES:,} values")
        if len(path) > MAX_DEPTH:
            self._refuse(event, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, ScalarEvent):
            return self._scalar(event)
        if isinstance(event, MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, ListStartEvent):
            return self._list(path)
        return self._refuse(event, "a value was expected")

    def _mapping(self, path: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := self._events.get_event(), MappingEndEvent):
            if not isinstance(event, ScalarEvent):
                self._refuse(event, "a key must be a plain word")
            if event.anchor or event.tag:
                self._refuse(event, "anchors and tags are refused")
            key, line = event.value, _line(event)
            if key in found:
                self._refuse(event, f"doubled key {key!r} (first at line {self.lines[(*path, key)]})")
            self.lines[(*path, key)] = line
            found[key] = self._value((*path, key), self._events.get_event())
        return found

    def _list(self, path: Place) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := self._events.get_event(), SequenceEndEvent):
            place = (*path, len(found))
            self.lines[place] = _line(event)
            found.append(self._value(place, event))
        return found

    def _scalar(self, event: ScalarEvent) -> Any:
        text = event.value
        if event.style is not None:  # quoted or block: a text
            return text
        if _NULL.fullmatch(text):
            return None
        if _BOOL.fullmatch(text):
            return text.lower() == "true"
        if _NOT_FINITE.fullmatch(text):
            self._refuse(event, f"{text} is not a finite number")
        if _INT.fullmatch(text) and len(text) < 100:
            return int(text)
        if _FLOAT.fullmatch(text):
            value = float(text)
            if not math.isfinite(value):
                self._refuse(event, f"{text[:20]} is too large for a number")
            return value
        return text

    def _refuse(self, event: Any, what: str) -> NoReturn:
        raise ConfigError(f"{self._source}:{_line(event)}: {what}")


def _line(event: Any) -> int:
    return event.start_mark.line + 1


def set_value(document: Document, key: str, value: Any) -> Place:
    """Puts ``value`` at the dotted ``key`` (list items by their index) and returns its path; sections that
    are not there are made. ``ValueError`` says why a key leads nowhere."""
    *parents, last = key.split(".")
    if "" in (*parents, last):
        raise ValueError(f"{key!r} is not a key of the form section.key")
    here, path = document.data, ()
    for part in parents:
        step = _step(here, part, path)
        if isinstance(here, dict) and here.get(step) is None:
            here[step] = {}
        here, path = here[step], (*path, step)
    step = _step(here, last, path)
    here[step] = value
    return (*path, step)


def _step(here: Any, part: str, path: Place) -> str | int:
    at = ".".join(map(str, path)) or "the configuration"
    if isinstance(here, Mapping):
        return part
    if not isinstance(here, list):
        raise ValueError(f"{at} is a single value and has no key {part!r}")
    if not part.isdecimal() or int(part) >= len(here):
        raise ValueError(f"{at} is a list of {len(here)} items, numbered from 0; there is no item {part!r}")
    return int(part)
