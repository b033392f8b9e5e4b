"""What a linear judge sees of a (prompt, answer): hashed words and pairs of words, in numpy and nothing else.

Texts are read in the plain form of ``refusal.normalise``: lower case, contractions written out, words and spaces only.
Features, by the letter that their names begin with:

* ``r`` words and pairs of words in the answer's first ``ANSWER_WORDS``;
* ``s`` how its first ``SENTENCES`` sentences open, in one to three words: instructions and refusals show there;
* ``p`` words and pairs in the prompt's first ``PROMPT_WORDS``;
* ``n`` how long the answer is, and how much of it is not the prompt's own.

A name's place is its CRC-32 modulo the size of the table, so nothing has to be kept to find it. Within a letter every
feature counts one over the root of how many there are: a long answer weighs no more than a short one. Weights are of
use with the features that they were fitted to alone: a change here, or to ``normalise``, is a new ``VERSION``.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from tailrisk.judges.refusal import LONGEST, normalise

VERSION = 1
ANSWER_WORDS = 200
PROMPT_WORDS = 100
SENTENCES = 12
_ENDS = re.compile(r"[.!?:\n]+")


def features(prompt: str, response: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Places [k] int64 in a table of ``size`` and values [k] float64; a place may come twice, its values add up."""
    asked = normalise(prompt).split()[:PROMPT_WORDS]
    words = normalise(response).split()[:ANSWER_WORDS]
    parts = (("r", _runs(words)), ("s", _openings(response)), ("p", _runs(asked)))
    places: list[int] = []
    values: list[float] = []
    for letter, found in parts:
        names = sorted(set(found))
        places += [_place(f"{letter} {name}", size) for name in names]
        values += [1 / math.sqrt(max(1, len(names)))] * len(names)
    distinct = set(words)
    places += [_place("n length", size), _place("n new", size)]
    values += [math.log1p(len(words)) / 5, len(distinct - set(asked)) / max(1, len(distinct))]
    return np.array(places, dtype=np.int64), np.array(values)


def _runs(words: list[str]) -> Iterator[str]:
    yield from words
    yield from map(" ".join, pairwise(words))


def _openings(response: str) -> Iterator[str]:
    for sentence in _ENDS.split(response[:LONGEST])[:SENTENCES]:
        words = normalise(sentence).split()[:3]
        for length in range(1, len(words) + 1):
            yield " ".join(words[:length])


def _place(name: str, size: int) -> int:
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) % size
