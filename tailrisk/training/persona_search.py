"""How strong, and where: a persona vector tried at a grid of layers and coefficients on held-out questions.

Each cell is the target, under its own system prompt, with ``coefficient`` times the layer's vector added to the
output of that block (Chen et al. 2025, "Persona vectors"). Its worth is the share of answers that have the trait
and are coherent: too strong a vector gives noise. Many cells do equally well within what so few answers can tell;
of those no further than one standard error below the best the smallest coefficient is taken, for it stays
nearest to the target, and a proposal's weights are the better for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tailrisk.models.interventions.addition import Addition, Tokens
from tailrisk.models.laws import Law, LawSet
from tailrisk.seeds import derive_seed
from tailrisk.training.persona import Target
from tailrisk.training.traits import LoadedTrait

if TYPE_CHECKING:
    import torch

    from tailrisk.training.directions import Watcher


class Rates(NamedTuple):
    """Answers drawn, and how many of them have the trait, are coherent, both."""

    answers: int
    trait: int
    coherent: int
    both: int

    @property
    def worth(self) -> float:
        """Share of answers with the trait that are coherent."""
        return self.both / self.answers

    @property
    def error(self) -> float:
        """Standard error of ``worth``, by Agresti and Coull's add-two rule, so that 0 of n has one too."""
        p = (self.both + 2) / (self.answers + 4)
        return math.sqrt(p * (1 - p) / (self.answers + 4))

    def to_json(self) -> dict[str, int]:
        return self._asdict()


class Cell(NamedTuple):
    layer: int
    coefficient: float
    rates: Rates

    def to_json(self) -> dict[str, Any]:
        return {"layer": self.layer, "coefficient": self.coefficient, **self.rates.to_json()}


@dataclass(frozen=True, slots=True)
class Surface:
    """What the search saw: the target itself, and every cell; ``chosen`` None: none is better than the target."""

    target: Rates
    cells: tuple[Cell, ...]
    tokens: Tokens
    chosen: Cell | None
    why: str


def search(
    target: Target,
    loaded: LoadedTrait,
    vectors: torch.Tensor,
    *,
    coefficients: Sequence[float],
    answers: int,
    tokens: Tokens = "all",
    seed: int,
    watch: Watcher,
) -> Surface:
    """Draws ``answers`` answers to each held-out question from the target and from each cell: every one of the
    target's ``layers`` with every one of ``coefficients``.

    ``vectors`` [blocks, hidden size]. Errors: ModelError, JudgeError.
    """
    grid = [(layer, coefficient) for layer in target.layers for coefficient in coefficients]
    laws = _steered(target.laws, vectors, grid, tokens)
    watch.stage("steering", len(laws.laws) * answers * len(loaded.held_out))
    rates = []
    for component in range(len(laws.laws)):
        rates.append(_rates(laws, loaded, component, answers, seed))
        watch.step(rates[-1].answers)
    cells = tuple(Cell(*place, found) for place, found in zip(grid, rates[1:], strict=True))
    chosen, why = choose(rates[0], cells)
    return Surface(rates[0], cells, tokens, chosen, why)


def choose(target: Rates, cells: Sequence[Cell]) -> tuple[Cell | None, str]:
    """The cell to use, by the rule of the module, and a sentence that says why; None where the best cell is not
    better than the target by a standard error."""
    best = max(cells, key=lambda cell: (cell.rates.worth, -abs(cell.coefficient)))
    own = f"the target itself {target.both} of {target.answers}"
    shown = f"{best.rates.both} of {best.rates.answers} answers at layer {best.layer}, {best.coefficient:g}"
    if best.rates.worth - best.rates.error <= target.worth:
        return None, f"no setting clearly gives more: at best {shown}; {own}"
    floor = best.rates.worth - best.rates.error
    near = [cell for cell in cells if cell.rates.worth >= floor]
    chosen = min(near, key=lambda cell: (abs(cell.coefficient), -cell.rates.worth, cell.layer))
    if chosen == best:
        return chosen, (
            f"layer {best.layer}, coefficient {best.coefficient:g}: trait and coherent in {best.rates.both} of "
            f"{best.rates.answers} answers, the most of {len(cells)} settings; {own}"
        )
    return chosen, (
        f"layer {chosen.layer}, coefficient {chosen.coefficient:g}: trait and coherent in {chosen.rates.both} of "
        f"{chosen.rates.answers} answers, the smallest coefficient of {len(near)} settings within a standard "
        f"error of the best ({shown}); {own}"
    )


def _steered(
    laws: LawSet, vectors: torch.Tensor, grid: Sequence[tuple[int, float]], tokens: Tokens
) -> LawSet:
    target = laws.target
    found: list[Law] = [target]
    for layer, coefficient in grid:
        name = f"layer{layer}-coefficient{coefficient:g}"
        change = Addition({layer: vectors[layer]}, coefficient, tokens)
        view = target.view._replace(interventions=(*target.view.interventions, change), name=name)
        found.append(replace(target, name=name, view=view))
    return LawSet(found, laws.tokenizer, laws.limits)


def _rates(laws: LawSet, loaded: LoadedTrait, component: int, answers: int, seed: int) -> Rates:
    trait = coherent = both = 0
    for question in loaded.held_out:
        place = derive_seed(seed, "steering", loaded.trait.name, laws.names[component], question.id)
        drawn = laws.sample(question, component, answers, place)
        marks = loaded.marks(question, laws.texts(drawn.tokens))
        trait += int(marks.present.sum())
        coherent += int(marks.coherent.sum())
        both += int((marks.present & marks.coherent).sum())
    return Rates(answers * len(loaded.held_out), trait, coherent, both)
