"""Rows of a decoding step and packs of a scoring pass: bookkeeping, checked against plain replays."""

from __future__ import annotations

import numpy as np
import pytest

from tailrisk.models.tree import grow, packs


@pytest.mark.parametrize("share", [True, False])
def test_rows_follow_their_texts(share: bool) -> None:
    """Rows as lists of tokens, moved as ``grow`` says, are the texts of the draws at every step."""
    rng = np.random.default_rng(5)
    for _ in range(200):
        n = int(rng.integers(1, 12))
        texts: list[list[int]] = [[] for _ in range(n)]
        rows: list[list[int]] = [[]]
        alive, slot = np.arange(n), np.zeros(n, dtype=np.int64)
        for _ in range(8):
            drawn = rng.integers(0, 3, len(alive))
            for i, token in zip(alive, drawn, strict=True):
                texts[i].append(int(token))
            going = drawn != 0
            alive = alive[going]
            if not len(alive):
                break
            growth = grow(slot[going], drawn[going], share)
            assert not set(growth.sources) & set(growth.targets)
            count = len(growth.tokens)
            rows += [[] for _ in range(max(0, count - len(rows)))]
            for source, target in zip(growth.sources, growth.targets, strict=True):
                rows[target] = list(rows[source])
            rows = [[*row, int(t)] for row, t in zip(rows[:count], growth.tokens, strict=True)]
            slot = growth.slot
            assert all(rows[s] == texts[i] for s, i in zip(slot, alive, strict=True))
            assert len(rows) == (len({tuple(texts[i]) for i in alive}) if share else len(alive))


def test_rows_that_go_on_stay_where_they_are() -> None:
    growth = grow(np.array([0, 1, 2, 3]), np.array([5, 6, 7, 8]))
    assert growth.sources == [] and growth.tokens.tolist() == [5, 6, 7, 8]
    growth = grow(np.array([0, 2, 3]), np.array([5, 7, 8]))
    assert (growth.sources, growth.targets) == ([3], [1])


@pytest.mark.parametrize("limit", [1, 4, 1000])
def test_packs_are_the_responses(limit: int) -> None:
    rng = np.random.default_rng(limit)
    responses = sorted({tuple(rng.integers(0, 3, rng.integers(1, 7)).tolist()) for _ in range(60)})
    seen = []
    for pack in packs(responses, limit):
        count = len(pack.tokens)
        longest = max(len(responses[number]) for number, _ in pack.paths)
        assert count <= max(limit, longest - 1)
        texts = []
        for i in range(count):
            ancestors = np.flatnonzero(pack.mask[i])
            assert pack.depth[ancestors].tolist() == list(range(len(ancestors)))
            texts.append(tuple(pack.tokens[ancestors].tolist()))
        assert len(set(texts)) == count
        for number, path in pack.paths:
            seen.append(number)
            y = responses[number]
            assert tuple(pack.edge_token[path].tolist()) == y
            rows = pack.edge_row[path]
            assert [() if r == 0 else texts[r - 1] for r in rows] == [y[:j] for j in range(len(y))]
    assert seen == list(range(len(responses)))
