"""Near-exact probabilities that a long answer holds some characters at all, by masked sampling.

Let S be the tokens whose bytes hold one of the characters: the text holds one exactly where a token of S was
drawn. With h_t = sum_{a in S} p(a | x_<t), an answer keeps out of S with probability

    E[ prod_t (1 - h_t) ],  x from the masked law  p(a | x_<t, a not in S),

so mu = E[ 1 - prod_t (1 - h_t) ]. No answer of that average has to be a hit, so it
reaches any mu; its error depends on how much the hazards differ from answer to answer (compare the query
estimators of Boyd, Showalter, Mandt & Smyth, "Predictive querying for autoregressive neural sequence
models", 2022).

What masked answers seldom do, their average seldom sees: for "_" instead of brackets, one answer of 192 made
up 72 % of the sum. So the masked answers come from several contexts, weighted by the balance heuristic (Veach &
Guibas 1995): the target's own, the target at a higher temperature, and system prompts that lead there. The weights
are at most one over the target's share.

The answers of a context are spread evenly: each takes the tokens that its own point of [0, 1) falls on, and the
points are one to a stratum (Vilnis et al. 2023, "Arithmetic sampling"). Each answer is still a draw from
the masked law, but together they vary less, at low temperatures by a factor of twenty.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel
from truth.embeddedlm import Event, Plain, Steering, shots

from tailrisk.records import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True)
class FirstPassage(Event):
    """The answer holds at least one of the ASCII ``characters``. ``hotter``: the temperature of a quarter of the
    truth's masked answers; ``guides``: system prompts from which another quarter is drawn. They have nothing to do
    with the audit's proposals."""

    characters: str
    hotter: float = 0.8
    guides: tuple[str, ...] = ()
    max_new_tokens: int = 24

    @property
    def pattern(self) -> str:
        return f"[{re.escape(self.characters)}]"


class Reading(NamedTuple):
    """Where masked answers come from: prompt ids and a temperature."""

    ids: Sequence[int]
    temperature: float = 1.0


class Masked(NamedTuple):
    """``value``; its standard error as if the answers were independent, which is more than it is; ``heaviest``: the
    largest share of one answer in the sum."""

    value: float
    standard_error: float
    draws: int
    heaviest: float


def token_set(pieces: Sequence[bytes], characters: str) -> torch.Tensor:
    """[V] whether a token's bytes hold one of the characters. ASCII only: other bytes may be cut apart."""
    if not characters.isascii():
        raise ValueError(f"characters {characters!r}: only ASCII characters are whole in every token")
    wanted = set(characters.encode())
    return torch.tensor([not wanted.isdisjoint(piece) for piece in pieces])


def event_truth(event: FirstPassage, plain: Plain, *, draws: int, seed: int, guided: bool = True) -> Masked:
    """Masked sampling for one event; not ``guided``: all answers from the target itself."""
    own = plain.prompt_ids(event.prompt)
    readings, shares = [Reading(own, event.temperature)], [1.0]
    if guided:
        readings.append(Reading(own, event.hotter))
        readings += [Reading(plain.prompt_ids(event.prompt, g), event.temperature) for g in event.guides]
        each = [0.25 / len(event.guides) for _ in event.guides]
        shares = [0.75 - sum(each), 0.25, *each]
    banned = token_set(plain.pieces, event.characters)
    return masked_truth(
        plain.model,
        readings,
        banned,
        stops=plain.stops,
        steps=event.max_new_tokens,
        shares=shares,
        draws=draws,
        seed=seed,
    )


def masked_truth(
    model: PreTrainedModel,
    readings: Sequence[Reading],
    banned: torch.Tensor,
    *,
    stops: frozenset[int],
    steps: int,
    draws: int,
    seed: int,
    shares: Sequence[float] = (1.0,),
) -> Masked:
    """Probability that ``model``, having read ``readings[0]``, draws a token of ``banned`` [V] within ``steps``
    tokens; the masked answers come from all readings, a share of ``shares`` [K] each."""
    counts = np.diff(np.round(np.cumsum([0.0, *shares]) * draws).astype(np.int64))
    with torch.inference_mode():
        values = _masked_values(model, readings, banned, stops, steps, counts, np.random.default_rng(seed))
    groups = np.split(values, np.cumsum(counts)[:-1])
    variance = sum(len(g) * g.var(ddof=1) for g in groups if len(g) > 1) / draws**2
    total = float(values.sum())
    return Masked(total / draws, float(np.sqrt(variance)), draws, float(values.max()) / total)


class Points:
    """Points of [0, 1), one to each of ``counts[k]`` equal strata for every k, and the tokens they fall on.

    A token takes the part of the interval that is its probability, and the point goes on inside that part. Once a
    row's part lies within its stratum the point is uniform there whatever was drawn, so a new one serves as well and
    no digits run out.
    """

    def __init__(self, counts: IntArray, rng: np.random.Generator) -> None:
        size = np.repeat(counts, counts)
        place = np.concatenate([np.arange(c) for c in counts])
        self._rng = rng
        self._stratum = torch.from_numpy(place / size), torch.from_numpy((place + 1) / size)
        self._point = torch.from_numpy((place + rng.random(len(place))) / size)
        self._low = torch.zeros(len(place), dtype=torch.float64)
        self._width = torch.ones(len(place), dtype=torch.float64)

    def draw(self, law: torch.Tensor) -> torch.Tensor:
        """[rows, 1] tokens from probabilities [rows, V], float64."""
        inside = (self._low >= self._stratum[0]) & (self._low + self._width <= self._stratum[1])
        new = torch.from_numpy(self._rng.random(len(inside)))
        point = torch.where(inside, new, self._point)
        upto = law.cumsum(-1)
        total = upto[:, -1:].contiguous()
        drawn = torch.searchsorted(upto, point[:, None] * total, right=True)
        # Rounding must not lead past the last possible token.
        drawn = torch.minimum(drawn, torch.searchsorted(upto, total))
        share = law.gather(1, drawn)[:, 0] / total[:, 0]
        below = upto.gather(1, drawn)[:, 0] / total[:, 0] - share
        self._point = ((point - below) / share).clamp(0.0, 1.0 - 1e-12)
        self._low, self._width = self._low + self._width * below, self._width * share
        return drawn


def _masked_values(
    model: PreTrainedModel,
    readings: Sequence[Reading],
    banned: torch.Tensor,
    stops: frozenset[int],
    steps: int,
    counts: IntArray,
    rng: np.random.Generator,
) -> FloatArray:
    """[rows] weighted hit probabilities; the first ``counts[0]`` rows draw from the first reading, and so on."""
    rows = int(counts.sum())
    drawer = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    points = Points(counts, rng)
    caches, words = [], []
    for reading in readings:
        cache = model(torch.tensor([list(reading.ids[:-1])]), use_cache=True).past_key_values
        cache.batch_repeat_interleave(rows)
        caches.append(cache)
        words.append(torch.full((rows, 1), reading.ids[-1]))
    log_p = torch.zeros((rows, len(readings)), dtype=torch.float64)
    log_safe = torch.zeros(rows, dtype=torch.float64)
    alive = torch.ones(rows, dtype=torch.bool)
    ends = torch.tensor(sorted(stops))
    for _ in range(steps):
        mine = torch.empty(rows, len(banned), dtype=torch.float64)
        laws = []
        for k, (cache, reading) in enumerate(zip(caches, readings, strict=True)):
            logits = model(words[k], past_key_values=cache, use_cache=True).logits[:, -1].float()
            law = torch.log_softmax(logits / reading.temperature, dim=-1)
            hazard = law[:, banned].double().exp().sum(-1)
            if k == 0:
                log_safe += torch.log1p(-hazard) * alive
            laws.append(law.masked_fill_(banned, float("-inf")))
            log_p[:, k] -= torch.log1p(-hazard) * alive
            mine[drawer == k] = law[drawer == k].double().exp()
        drawn = points.draw(mine)
        for k, law in enumerate(laws):
            log_p[:, k] += law.gather(1, drawn)[:, 0].double() * alive
        alive &= ~torch.isin(drawn[:, 0], ends)
        if not alive.any():
            break
        words = [drawn] * len(readings)
    share = torch.from_numpy(counts / counts.sum())
    weight = torch.exp(log_p[:, 0] - torch.logsumexp(log_p + share.log(), dim=-1))
    return (weight * -torch.expm1(log_safe)).numpy()


WEATHER, COFFEE, SUM = (
    "What is the weather like?",
    "How do I make coffee?",
    "What is 2 plus 2?",
)

_TEMPLATE = "Write placeholders in square brackets, such as [city] or [date]."
_TAGGED = shots(COFFEE, *["To make <b>coffee</b>, you need a <b>pot</b>."] * 3)
_SHOWN = shots(WEATHER, *["The weather in [city] is sunny."] * 3)
_ABOUT = shots(SUM, *["2 plus 2 is ~4."] * 3)
_BRACKETED = (Steering("template", _TEMPLATE, mix=0.3), Steering("over", _SHOWN))

EVENTS: tuple[FirstPassage, ...] = (
    FirstPassage(
        name="brackets-cool",
        prompt=WEATHER,
        characters="[]",
        temperature=0.5,
        steering=_BRACKETED,
    ),
    FirstPassage(
        name="brackets-long",
        prompt=WEATHER,
        characters="[]",
        temperature=0.3,
        hotter=0.5,
        max_new_tokens=64,
        steering=_BRACKETED,
    ),
    FirstPassage(
        name="tags-cool",
        prompt=COFFEE,
        characters="<>",
        opening="<<",
        temperature=0.5,
        guides=(_TAGGED,),
        steering=(Steering("html", _TAGGED, mix=0.3), Steering("over", _TAGGED)),
    ),
    FirstPassage(
        name="tilde",
        prompt=SUM,
        characters="~",
        temperature=0.5,
        guides=(_ABOUT,),
        steering=(Steering("about", _ABOUT, mix=0.3), Steering("over", _ABOUT)),
    ),
)
"""From about 4e-4 to 4e-8, within 24 tokens or 64. ``over`` answers are nearly all hits and nearly all the same one:
the estimate from them alone is low by many decades. ``tags-cool`` happens mostly at the first token, with a tail of
answers that turn later."""
