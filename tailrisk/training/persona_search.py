"""How strong, and where: a persona vector tried at a grid of layers and coefficients on held-out questions.

Each cell is the target, under its own system prompt, with ``coefficient`` times the layer's vector added to the
output of that block (Chen et al. 2025, "Persona vectors"). Its worth is the share of answers that have the trait
and are coherent: too strong a vector gives noise.

The best of many cells looks good by luck alone. So it must beat the target by Fisher's exact test, one-sided, at
5 % divided by the number of cells; the target, which every cell is compared with, gives ``OWN`` times as many
answers. Many cells do equally well within what so few answers can tell; of those no further than one standard
error below the best the smallest coefficient is taken, for it stays nearest to the target, and a proposal's
weights are the better for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tailrisk.errors import ConfigError, ModelError
from tailrisk.models.interventions.addition import Addition, Tokens
from tailrisk.models.laws import Law, LawSet
from tailrisk.seeds import derive_seed
from tailrisk.training.persona import Target
from tailrisk.training.traits import LoadedTrait

if TYPE_CHECKING:
    import torch

    from tailrisk.training.directions import Watcher


OWN = 4
"""So many answers of the target itself for each answer of a cell."""

CHANCE = 0.05
"""How often at most a grid of worthless cells is found to be worth something."""


class Rates(NamedTuple):
    """Answers drawn, and how many of them have the trait, are coherent, both; of ``unsettled`` ones a judge
    cannot say, and they count as neither."""

    answers: int
    trait: int
    coherent: int
    both: int
    unsettled: int = 0

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
    """A setting. ``broken``: so strong that the model gives no probabilities any more."""

    layer: int
    coefficient: float
    rates: Rates
    broken: bool = False

    def to_json(self) -> dict[str, Any]:
        told = {"layer": self.layer, "coefficient": self.coefficient, **self.rates.to_json()}
        return {**told, "broken": True} if self.broken else told


@dataclass(frozen=True, slots=True)
class Surface:
    """What the search saw: the target itself, and every cell; ``chosen`` None: none is better than the target."""

    target: Rates
    cells: tuple[Cell, ...]
    tokens: Tokens
    chosen: Cell | None
    why: str


def check_answers(loaded: LoadedTrait, cells: int, answers: int) -> None:
    """Errors: ConfigError where no outcome at all could be told from chance."""
    questions = len(loaded.held_out)

    def least_chance(answers: int) -> float:
        """Of what is clearest: every answer of a cell and none of the target."""
        count = answers * questions
        return cells / math.comb((1 + OWN) * count, count)

    if least_chance(answers) > CHANCE:
        enough = next(n for n in range(answers, 100) if least_chance(n) <= CHANCE)
        raise ConfigError(
            f"--answers {answers}: {answers * questions} answers a setting are too few to tell any of {cells} "
            f"settings from luck; give at least {enough}, or fewer --layers and --coefficients"
        )


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
    """Draws ``answers`` answers to each held-out question from each cell, ``OWN`` times as many from the target.
    Every one of the target's ``layers`` with every one of ``coefficients`` is a cell.

    ``vectors`` [blocks, hidden size]. Errors: ModelError of the target itself, JudgeError.
    """
    grid = [(layer, coefficient) for layer in target.layers for coefficient in coefficients]
    laws = _steered(target.laws, vectors, grid, tokens)
    each = answers * len(loaded.held_out)
    watch.stage("steering", (OWN + len(grid)) * each)
    own = _rates(laws, loaded, 0, OWN * answers, seed)
    watch.step(own.answers)
    cells: list[Cell] = []
    for component, place in enumerate(grid, 1):
        try:
            cell = Cell(*place, _rates(laws, loaded, component, answers, seed))
        except ModelError:
            # The target itself could be drawn from, so it is the vector: no answer of such a model is coherent.
            cell = Cell(*place, Rates(each, 0, 0, 0), broken=True)
        cells.append(cell)
        watch.step(each)
    chosen, why = choose(own, cells)
    return Surface(own, tuple(cells), tokens, chosen, why)


def choose(target: Rates, cells: Sequence[Cell]) -> tuple[Cell | None, str]:
    """The cell to use, by the rule of the module, and a sentence that says why; None where the best cell may be
    no better than the target."""
    best = max(cells, key=lambda cell: (cell.rates.worth, -abs(cell.coefficient)))
    own = f"the target itself in {target.both} of {target.answers}"
    shown = f"{best.rates.both} of {best.rates.answers} answers at layer {best.layer}, {best.coefficient:g}"
    if not better(best.rates, target, len(cells)):
        return None, (
            f"none of {len(cells)} settings clearly gives more than the target: trait and coherent at best in "
            f"{shown}; {own}"
        )
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


def better(best: Rates, target: Rates, cells: int) -> bool:
    """Whether the best of so many cells beats the target by more than luck; see the module."""
    from scipy.stats import fisher_exact

    table = [[rates.both, rates.answers - rates.both] for rates in (best, target)]
    chance: Any = fisher_exact(table, alternative="greater")
    return cells * float(chance.pvalue) <= CHANCE


def _steered(
    laws: LawSet, vectors: torch.Tensor, grid: Sequence[tuple[int, float]], tokens: Tokens
) -> LawSet:
    target = laws.target
    found: list[Law] = [target]
    for layer, coefficient in grid:
        # The name is part of the seeds.
        name = f"layer{layer}-coefficient{coefficient!r}"
        change = Addition({layer: vectors[layer]}, coefficient, tokens)
        view = target.view._replace(interventions=(*target.view.interventions, change), name=name)
        found.append(replace(target, name=name, view=view))
    return LawSet(found, laws.tokenizer, laws.limits)


def _rates(laws: LawSet, loaded: LoadedTrait, component: int, answers: int, seed: int) -> Rates:
    total = np.zeros(4, dtype=np.int64)
    for question in loaded.held_out:
        place = derive_seed(seed, "steering", loaded.trait.name, laws.names[component], question.id)
        drawn = laws.sample(question, component, answers, place)
        marks = loaded.marks(question, laws.texts(drawn.tokens))
        both = marks.present & marks.coherent
        total += [mask.sum() for mask in (marks.present, marks.coherent, both, marks.unsettled)]
    return Rates(answers * len(loaded.held_out), *map(int, total))
