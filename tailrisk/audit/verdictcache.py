"""Answers that were judged before keep their verdict: refusals repeat, and a dear judge need not read them again.

Kept by the driver, for all judge workers alike, by a digest of the judge, the prompt's text and the answer's. What
the judge failed on is never kept. A verdict depends on its own (prompt, answer) only, so with a judge that keeps to
that the results of an audit are the same with the cache and without.

Memory is bounded: about 110 bytes an entry (200 where the judge's scores all differ), so 55 to 100 MB for the ``MOST``
that there are at most. What was not asked for longest goes first, in halves: of the last ``MOST`` / 2 different
answers, none is lost.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tailrisk.config import Config
from tailrisk.judgeconfig import judge_identity
from tailrisk.records import JudgedTexts

MOST = 500_000
_DIGEST_BYTES = 16
_SCORES = 4096

Entry = tuple[int, float]


class LookUp(NamedTuple):
    """What is known of some answers to a prompt: ``entries`` [n], None where nothing is; ``texts``: those of which
    nothing is known, each once; ``places`` [n]: the answer's number among ``texts`` where its entry is None."""

    keys: list[bytes]
    entries: list[Entry | None]
    places: list[int]
    texts: list[str]


class VerdictCache:
    """``fingerprint``: of the judge; ``most``: entries at most."""

    def __init__(self, fingerprint: str, most: int = MOST) -> None:
        self._seed = hashlib.blake2b(fingerprint.encode(), digest_size=_DIGEST_BYTES)
        self._half = max(1, most // 2)
        self._new: dict[bytes, Entry] = {}
        self._old: dict[bytes, Entry] = {}
        self._same: dict[Entry, Entry] = {}

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def look_up(self, prompt: str, texts: Sequence[str]) -> LookUp:
        keys = self._keys(prompt, texts)
        entries = [self._get(key) for key in keys]
        asked: dict[bytes, int] = {}
        unknown: list[str] = []
        places = [-1] * len(keys)
        for i, (key, entry) in enumerate(zip(keys, entries, strict=True)):
            if entry is None:
                places[i] = asked.setdefault(key, len(unknown))
                if places[i] == len(unknown):
                    unknown.append(texts[i])
        return LookUp(keys, entries, places, unknown)

    def settle(self, asked: LookUp, judged: JudgedTexts | None = None) -> JudgedTexts:
        """Verdicts of all answers, from what was known and what the judge says of ``asked.texts`` (None where these
        are none), which is kept."""
        new = (
            []
            if judged is None
            else list(zip(*(np.asarray(part).tolist() for part in judged[:2]), strict=True))
        )
        errors = [] if judged is None else judged.errors
        entries: list[Entry] = []
        reasons: list[str] = []
        for key, entry, place in zip(asked.keys, asked.entries, asked.places, strict=True):
            if entry is None:
                entry = new[place]
                if not errors[place]:
                    self._put(key, entry)
                reasons.append(errors[place])
            else:
                reasons.append("")
            entries.append(entry)
        verdicts = np.array([verdict for verdict, _ in entries], dtype=np.int8)
        scores = np.array([score for _, score in entries], dtype=np.float64)
        return JudgedTexts(verdicts, scores, reasons, len(asked.texts))

    def learn(self, prompt: str, texts: Sequence[str], judged: JudgedTexts) -> None:
        """Keeps verdicts that were given before."""
        verdicts, scores = np.asarray(judged.verdicts).tolist(), np.asarray(judged.scores).tolist()
        for key, verdict, score, error in zip(
            self._keys(prompt, texts), verdicts, scores, judged.errors, strict=True
        ):
            if not error:
                self._put(key, (verdict, score))

    def _keys(self, prompt: str, texts: Sequence[str]) -> list[bytes]:
        data = prompt.encode("utf-8", "surrogatepass")
        start = self._seed.copy()
        start.update(len(data).to_bytes(8, "big"))
        start.update(data)
        keys = []
        for text in texts:
            digest = start.copy()
            digest.update(text.encode("utf-8", "surrogatepass"))
            keys.append(digest.digest())
        return keys

    def _get(self, key: bytes) -> Entry | None:
        entry = self._new.get(key)
        if entry is None and (entry := self._old.pop(key, None)) is not None:
            self._put(key, entry)
        return entry

    def _put(self, key: bytes, entry: Entry) -> None:
        if len(self._new) >= self._half and key not in self._new:
            self._new, self._old, self._same = {}, self._new, {}
        # Most judges give few different scores: equal entries are one object.
        same = self._same.get(entry)
        if same is None and len(self._same) < _SCORES:
            self._same[entry] = entry
        self._new[key] = same or entry


def cache_of(config: Config) -> VerdictCache | None:
    """The cache of the configuration's judge; None where its verdicts are not kept."""
    if not config.judge.cached:
        return None
    identity = json.dumps(judge_identity(config.judge.model_dump(mode="json")), sort_keys=True)
    return VerdictCache(identity)
