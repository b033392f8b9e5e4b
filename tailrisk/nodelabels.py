"""What a worker may ask of its node in words: an amount of memory, and labels, as Ray reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_UNITS = {"B": 1} | {f"{p}{b}": n**e for e, p in enumerate("KMGT", 1) for b, n in (("B", 1000), ("iB", 1024))}
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"(?:[a-z0-9](?:[a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_WORD}")
_SELECTOR = re.compile(rf"!?(?:{_WORD}|in\({_WORD}(?:,{_WORD})*\))")


def as_bytes(value: Any) -> Any:
    """A text such as ``40GiB`` or ``1.5 TB`` as a number of bytes; anything else as it is."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?B|B)\s*", value)
    if found is None:
        raise ValueError(f"{value!r} is no amount of memory; write it as 40GiB or 500MB, or in bytes")
    return int(float(found[1]) * _UNITS[found[2]])


def checked_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """The labels, if Ray can read them. Errors: ValueError names the one that it cannot."""
    for key, value in labels.items():
        if not _KEY.fullmatch(key):
            raise ValueError(
                f"{key!r} is no label's name; one has letters, digits and -_. with a domain before / at most"
            )
        if not _SELECTOR.fullmatch(value):
            raise ValueError(
                f"{key}: {value!r} says no value of a label; give one word (spot), !spot, in(a,b) or !in(a,b)"
            )
    return labels


def fits(labels: Mapping[str, str], node: Mapping[str, str]) -> bool:
    """Whether a node with the labels ``node`` is one that ``labels`` ask for."""
    return all(_holds(value, node.get(key)) for key, value in labels.items())


def _holds(selector: str, value: str | None) -> bool:
    wanted = selector.removeprefix("!")
    words = wanted[3:-1].split(",") if wanted.startswith("in(") else [wanted]
    return (value in words) != selector.startswith("!")
