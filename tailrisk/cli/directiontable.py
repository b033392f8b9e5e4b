"""What ``tailrisk train direction`` tells a person: the prompt sets, the best candidates, and the choice.

Numbers and template tokens only; no prompt is shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tailrisk.training.directions import Surface
    from tailrisk.training.selection import Candidate, Choice, Limits

SHOWN = 12
_CUTS = {
    "depth": "last blocks",
    "finite": "not finite",
    "kl": "KL",
    "induce": "refusal not induced",
}


def sets(surface: Surface, console: Console) -> None:
    """Which tokens stand for refusal, and what became of the prompts."""
    tokens = ", ".join(
        f"{t.text!r} ({t.harmful:.2g} harmful, {t.harmless:.2g} harmless)" for t in surface.tokens
    )
    console.print(f"refusal tokens, with their mean probability: {tokens}", markup=False, soft_wrap=True)
    for name, score in (("harmful", surface.refused), ("harmless", surface.harmless_refused)):
        c = surface.counts[name]
        console.print(
            f"{name}: {c['fit']} prompts for the means, {c['validation']} for the choice (the target's refusal "
            f"score there: {score:.2f}), {c['left_out']} left out",
            markup=False,
            soft_wrap=True,
        )


def table(surface: Surface, limits: Limits, chosen: Choice | None, console: Console) -> None:
    """The best candidates, and how many each limit cut."""
    from tailrisk.training.selection import cut_counts

    console.print(_rows(surface, limits, chosen))
    counts = cut_counts(surface.candidates, limits)
    cut = ", ".join(f"{_CUTS[name]} {n}" for name, n in counts.items() if n) or "none"
    aside = f"; {surface.unscored} in the last blocks were not tried" if surface.unscored else ""
    same = f"; {surface.same} show no difference" if surface.same else ""
    console.print(
        f"{len(surface.candidates)} candidates; cut (one may fail several): {cut}{aside}{same}",
        markup=False,
        soft_wrap=True,
    )


def choice(found: Choice, sentence: str, out: Path, console: Console) -> None:
    """Why this one, and the proposals to paste into a configuration."""
    console.print(sentence, markup=False, soft_wrap=True)
    if found.candidate.bypass > 0:
        console.print(
            "note: with it ablated the target still begins most answers with a refusal; as an ablation it is a poor "
            "proposal. A larger --max-kl lets stronger candidates pass (in an audit a change of harmless answers "
            "costs nothing), or add it as a vector",
            markup=False,
            soft_wrap=True,
        )
    console.print(_proposals(out, found.candidate), markup=False, soft_wrap=True)


def _rows(surface: Surface, limits: Limits, chosen: Choice | None) -> Table:
    """The candidates with the lowest bypass scores, the chosen one in any case."""
    from rich import box
    from rich.table import Table

    out = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("layer", "position", "token", "bypass", "induce", "KL", ""):
        out.add_column(head, justify="left" if head in ("token", "") else "right", no_wrap=True)
    listed = sorted(surface.candidates, key=lambda c: (c.bypass != c.bypass, c.bypass))[:SHOWN]
    if chosen is not None and chosen.candidate not in listed:
        listed.append(chosen.candidate)
    for c in listed:
        verdict = ", ".join(_CUTS[name] for name in limits.cuts(c)) or "ok"
        if chosen is not None and c == chosen.candidate:
            verdict = f"chosen ({verdict})" if verdict != "ok" else "chosen"
        numbers = (f"{c.bypass:.2f}", f"{c.induce:.2f}", f"{c.kl:.3g}")
        # repr() shows a line break as such; brackets would be read as markup.
        out.add_row(str(c.layer), str(c.position), repr(c.token).replace("[", r"\["), *numbers, verdict)
    return out


def _proposals(out: Path, chosen: Candidate) -> str:
    return (
        f"written: {out}. As proposals:\n"
        f"  - {{name: no-refusal, kind: ablation, direction: {out.name}, form: writes, intensity: 0.3}}"
        "  # 1 removes it all\n"
        f"  - {{name: pushed, kind: vector, vector: {out.name}, coefficient: -1.0}}  # at layer {chosen.layer}"
    )
