"""From prompts to groups: each prompt as it is and every perturbation that passed the checks.

What is proposed and not taken is counted by the reason and listed by id: ``unchanged`` (the text of the base),
``doubled`` (a text that the file has already), ``meaning`` (a check says that it asks something else), ``failed`` (a
model gave no text). A rule that has nothing to change in a prompt proposes nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any, Literal, NamedTuple

from tailrisk.errors import InputError
from tailrisk.perturbations.rules import RULES
from tailrisk.perturbations.rules.base import Chance
from tailrisk.perturbations.words import KEPT, words_kept
from tailrisk.prompts import prompt_digest
from tailrisk.records import Prompt

LONGEST_ID = 128
Why = Literal["unchanged", "doubled", "meaning", "failed"]
Same = Callable[[Sequence[tuple[str, str]]], Sequence[float]]
"""Pairs of base and changed text -> how alike their meaning is, 1 at most."""


class Proposed(NamedTuple):
    """A perturbation that is to be looked at. ``name``: what its id ends with; ``text`` None: there is none, for the
    ``reason``."""

    kind: str
    name: str
    text: str | None
    reason: str = ""


class LeftOut(NamedTuple):
    id: str
    kind: str
    why: Why
    detail: str = ""


class Made(NamedTuple):
    """``prompts``: the groups, each with its base first. ``compared``: how many were compared by an embedding."""

    prompts: list[Prompt]
    left_out: list[LeftOut]
    compared: int

    @property
    def kinds(self) -> Counter[str]:
        return Counter(p.perturbation for p in self.prompts if p.perturbation is not None)


def make_groups(
    bases: Sequence[Prompt],
    kinds: Sequence[str],
    *,
    seed: int,
    rate: float,
    more: Mapping[str, Sequence[Proposed]] | None = None,
    same: Same | None = None,
    least: float = 0.0,
) -> Made:
    """Groups of every base prompt, in the order of ``bases``; a pure function of its arguments.

    ``more``: proposals by base id that no rule makes. ``same``: compares meanings; what is below ``least`` is left out.

    Raises:
        InputError: a prompt is itself a perturbation.
    """
    already = [p.id for p in bases if p.perturbation is not None]
    if already:
        raise InputError(
            f"{len(already)} of the prompts are perturbations already (such as {already[0]!r}); give the prompts that "
            "they were made from"
        )
    texts = {prompt_digest(p) for p in bases}
    ids = {p.id for p in bases}
    found: list[tuple[Prompt, list[Prompt]]] = []
    left_out: list[LeftOut] = []
    for base in bases:
        members: list[Prompt] = []
        by_rule = [Proposed(k, k, text) for k in kinds if (text := _by_rule(base, k, seed, rate)) is not None]
        for proposed in [*by_rule, *(more or {}).get(base.id, ())]:
            member = _reworded(base, proposed, _new_id(base.id, proposed.name, ids))
            why = _objection(base, proposed, member, texts)
            if why is not None:
                left_out.append(LeftOut(member.id, proposed.kind, why, proposed.reason))
                continue
            texts.add(prompt_digest(member))
            ids.add(member.id)
            members.append(member)
        found.append((base, members))
    compared = sum(len(members) for _, members in found) if same is not None else 0
    if same is not None:
        found = _alike(found, same, least, left_out)
    return Made(list(_listed(found)), left_out, compared)


def row_of(prompt: Prompt) -> dict[str, Any]:
    """The prompt as a row of a file that ``tailrisk.prompts`` reads."""
    alone = len(prompt.messages) == 1
    row: dict[str, Any] = {
        "id": prompt.id,
        "prompt": prompt.text if alone else [dict(m) for m in prompt.messages],
        "category": prompt.category,
        "group": prompt.group,
        "perturbation": prompt.perturbation,
    }
    return {key: value for key, value in row.items() if value is not None}


def _listed(found: Iterable[tuple[Prompt, list[Prompt]]]) -> Iterable[Prompt]:
    for base, members in found:
        yield Prompt(id=base.id, messages=base.messages, category=base.category, group=base.id)
        yield from members


def _by_rule(base: Prompt, kind: str, seed: int, rate: float) -> str | None:
    """Chance depends on the kind and the text, not on which other prompts and kinds there are."""
    digest = hashlib.sha256(f"{seed} {kind} {prompt_digest(base)}".encode()).digest()
    return RULES[kind].apply(base.text, Chance(Random(int.from_bytes(digest[:8], "big")), rate))


def _reworded(base: Prompt, proposed: Proposed, id_: str) -> Prompt:
    last = {"role": base.messages[-1]["role"], "content": proposed.text or ""}
    return Prompt(
        id=id_,
        messages=(*base.messages[:-1], last),
        category=base.category,
        group=base.id,
        perturbation=proposed.kind,
    )


def _objection(base: Prompt, proposed: Proposed, member: Prompt, texts: set[str]) -> Why | None:
    if proposed.text is None or not proposed.text.strip():
        return "failed"
    if proposed.text == base.text:
        return "unchanged"
    if prompt_digest(member) in texts:
        return "doubled"
    if proposed.kind in RULES and words_kept(base.text, proposed.text) < KEPT:
        return "meaning"
    return None


def _alike(
    found: list[tuple[Prompt, list[Prompt]]], same: Same, least: float, left_out: list[LeftOut]
) -> list[tuple[Prompt, list[Prompt]]]:
    values = iter(same([(base.text, m.text) for base, members in found for m in members]))
    kept = []
    for base, members in found:
        good = []
        for member in members:
            value = next(values)
            if value >= least:
                good.append(member)
            else:
                why = f"cosine {value:.2f}"
                left_out.append(LeftOut(member.id, member.perturbation or "", "meaning", why))
        kept.append((base, good))
    return kept


def _new_id(base: str, name: str, taken: set[str]) -> str:
    """``BASE.NAME``, or with a number behind it where that is taken; a long base id is cut, with a hash of it all."""
    for number in range(1, len(taken) + 2):
        ending = f".{name}" if number == 1 else f".{name}-{number}"
        start = base
        if len(base) + len(ending) > LONGEST_ID:
            digest = hashlib.sha256(base.encode()).hexdigest()[:8]
            start = f"{base[: LONGEST_ID - len(ending) - 9]}-{digest}"
        if f"{start}{ending}" not in taken:
            return f"{start}{ending}"
    raise AssertionError("more ids are free than are taken")
