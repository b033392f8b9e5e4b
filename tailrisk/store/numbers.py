"""Logged batches read fast: their JSON text is cut at its keys, and all numbers of many batches are parsed at once.

A report looks at the numbers of every draw of a run and shows the words of a few, so words stay text until somebody
asks for them. A record whose keys stand in another order than they are written in now is read as any other record.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from tailrisk.errors import StoreError
from tailrisk.records import Batch, BatchResult, FloatArray, cut
from tailrisk.store.plancodec import decode_batch

AT_ONCE = 64
"""Batches whose numbers are parsed together."""
MANY = 16
"""Times ``AT_ONCE`` batches from which on it pays to load pyarrow for their numbers."""
_BEGIN = b'{"kind":"batch","payload":{"batch":['
# A quote inside of a string is written with a backslash before it, so these stand where a key begins.
_KEYS = (
    b'],"tokens":[', b'],"texts":[', b'],"finished":[', b'],"log_q":[', b',"log_q_sample":[', b'],"verdicts":[',
    b'],"scores":[', b'],"errors":[',
)  # fmt: skip
_REST = re.compile(
    rb'\](?:,"calls":(?P<calls>\d+))?,"seconds":(?P<seconds>[^,]+),"worker":(?P<worker>"(?:[^"\\]|\\.)*"),"crc":\d+\}\}$'
)
_HEAD = re.compile(rb'\{"kind":"batch","payload":\{"batch":\[("(?:[^"\\]|\\.)*"),(\d+),(\d+),')
_DECODER = json.JSONDecoder()
_ORDER = (
    "batch", "tokens", "texts", "finished", "log_q", "columns", "log_q_sample", "verdicts", "scores", "errors", "calls",
    "seconds", "worker", "crc",
)  # fmt: skip


@dataclass(slots=True)
class LoggedNumbers:
    """A batch of n draws; ``log_q`` [n, K], ``log_q_sample`` [n], ``verdicts`` [n], ``scores`` [n], ``judge_errors``,
    ``seconds`` and ``generated_tokens`` as in ``BatchResult``. ``token_rows``: JSON text of the draws' token ids."""

    batch: Batch
    log_q: FloatArray
    log_q_sample: FloatArray
    verdicts: NDArray[np.int8]
    scores: FloatArray
    judge_errors: list[str]
    seconds: float
    token_rows: bytes

    @property
    def n(self) -> int:
        return len(self.log_q)

    @property
    def generated_tokens(self) -> int:
        return self.token_rows.count(b",") + 1 - self.token_rows.count(b"[]")

    def answers(self) -> list[bytes]:
        """What tells each draw's answer from others: its token ids, as text."""
        return self.token_rows[2:-2].split(b"],[")


class _Record(NamedTuple):
    """A batch's record, cut: JSON texts of its parts, lists with their brackets."""

    batch: Batch
    tokens: bytes
    texts: bytes
    finished: bytes
    log_q: bytes
    columns: int
    sample: bytes
    verdicts: bytes
    scores: bytes
    errors: bytes
    seconds: float
    worker: bytes
    calls: int | None

    def result(self, numbers: LoggedNumbers, tokens: list[NDArray[np.int32]]) -> BatchResult:
        return BatchResult(
            batch=self.batch,
            tokens=tokens,
            texts=_json(self.texts),
            finished=_digits(self.finished).astype(np.bool_),
            log_q=numbers.log_q,
            log_q_sample=numbers.log_q_sample,
            verdicts=numbers.verdicts,
            scores=numbers.scores,
            judge_errors=numbers.judge_errors,
            seconds=numbers.seconds,
            worker=_json(self.worker),
            judge_calls=self.calls,
        )


def numbers_of(bodies: Iterable[bytes]) -> Iterator[LoggedNumbers]:
    """From the JSON texts of batch records, in their order. ``StoreError``: one cannot be read."""
    return _read(iter(bodies), _Group.numbers)


def results_of(bodies: Iterable[bytes]) -> Iterator[BatchResult]:
    """The same with what was said."""
    return _read(iter(bodies), _Group.results)


def key_of(body: bytes) -> str:
    """The key of the batch that a record is of."""
    match = _HEAD.match(body)
    prompt_id, component, index = (
        json.loads(body)["payload"]["batch"][:3]
        if match is None
        else (_json(match[1]), int(match[2]), int(match[3]))
    )
    return f"{prompt_id}/{component}/{index}"


def texts_in(body: bytes) -> list[str]:
    """The answers of the batch that a record is of."""
    begin = body.find(_KEYS[1])
    end = body.find(_KEYS[2], begin)
    if min(begin, end) < 0:
        return json.loads(body)["payload"]["texts"]
    return _json(body[begin + len(_KEYS[1]) - 1 : end + 1])


class _Group:
    """Some records whose numbers are parsed together."""

    def __init__(self, bodies: Sequence[bytes], *, many: bool) -> None:
        self._records = [_record(body) for body in bodies]
        self._parse = _by_arrow if many or "pyarrow" in sys.modules else _one_by_one

    def numbers(self) -> list[LoggedNumbers]:
        lists = [
            text
            for r in self._records
            for text in (r.log_q.replace(b"null", b"-inf"), r.sample, r.scores.replace(b"null", b"nan"))
        ]
        sizes = [text.count(b",") + 1 for text in lists]
        flat = cut(self._parse(b",".join(lists).translate(None, b'[]"'), np.float64), sizes)
        found = zip(self._records, flat[::3], flat[1::3], flat[2::3], strict=True)
        return [_of_record(r, log_q, sample, scores) for r, log_q, sample, scores in found]

    def results(self) -> list[BatchResult]:
        tokens = iter(self._tokens())
        found = zip(self._records, self.numbers(), strict=True)
        return [r.result(numbers, list(itertools.islice(tokens, r.batch.size))) for r, numbers in found]

    def _tokens(self) -> list[NDArray[np.int32]]:
        """Of all draws of all records."""
        text = b",".join(r.tokens[1:-1] for r in self._records)
        characters = np.frombuffer(text, dtype=np.uint8)
        begins, ends = (np.flatnonzero(characters == ord(bracket)) for bracket in "[]")
        commas = np.searchsorted(np.flatnonzero(characters == ord(",")), np.stack([begins, ends]))
        lengths = commas[1] - commas[0] + 1
        lengths[ends - begins == 1] = 0
        if not lengths.all():
            text = text.replace(b"[],", b"").replace(b",[]", b"")
        flat = self._parse(text.translate(None, b"[]"), np.int32) if lengths.any() else np.empty(0, np.int32)
        return cut(flat, lengths.tolist())


T = TypeVar("T")


def _read(bodies: Iterator[bytes], parse: Callable[[_Group], list[T]]) -> Iterator[T]:
    for number in itertools.count():
        some = list(itertools.islice(bodies, AT_ONCE))
        if not some:
            return
        try:
            found = parse(_Group(some, many=number >= MANY))
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"a log record of kind 'batch' cannot be read ({type(error).__name__}: {error}); it was written "
                "by another version of tailrisk: use that version, or another run.name"
            ) from error
        yield from found


def _record(body: bytes) -> _Record:
    return _cut(body) or _cut(_in_order(body)) or _unknown()


def _unknown() -> NoReturn:
    raise ValueError("its keys are not those of a batch")


def _in_order(body: bytes) -> bytes:
    """The record as it would be written now."""
    payload = json.loads(body)["payload"]
    ordered = {key: payload[key] for key in _ORDER if key in payload}
    return json.dumps({"kind": "batch", "payload": ordered}, separators=(",", ":")).encode()


def _cut(body: bytes) -> _Record | None:
    """None where the keys stand in another order."""
    at = len(_BEGIN) - 1 if body.startswith(_BEGIN) else -1
    parts = []
    for key in _KEYS:
        end = body.find(key, at) if at >= 0 else -1
        if end < 0:
            return None
        # From the bracket that opens a list to the one that closes it.
        parts.append(body[at : end + 1])
        at = end + len(key) - 1
    rest = _REST.search(body, at)
    if rest is None:
        return None
    head, tokens, texts, finished, log_q, sample, verdicts, scores = parts
    log_q, _, columns = log_q.rstrip(b",").partition(b',"columns":')
    return _Record(
        decode_batch(_json(head)),
        tokens,
        texts,
        finished,
        log_q,
        int(columns or 0),
        sample,
        verdicts,
        scores,
        body[at : rest.start() + 1],
        float(rest["seconds"]),
        rest["worker"],
        None if rest["calls"] is None else int(rest["calls"]),
    )


def _of_record(r: _Record, log_q: FloatArray, sample: FloatArray, scores: FloatArray) -> LoggedNumbers:
    n = r.batch.size
    log_q = log_q.reshape(n, -1)
    if r.batch.components is not None:
        scored, log_q = log_q, np.full((n, r.columns), np.nan)
        log_q[:, list(r.batch.components)] = scored
    none = r.errors.count(b'""') == n and len(r.errors) == 3 * n + 1
    return LoggedNumbers(
        batch=r.batch,
        log_q=log_q,
        log_q_sample=sample,
        verdicts=_digits(r.verdicts).astype(np.int8),
        scores=scores,
        judge_errors=[""] * n if none else _json(r.errors),
        seconds=r.seconds,
        token_rows=r.tokens,
    )


def _digits(text: bytes) -> NDArray[np.uint8]:
    """From a JSON list of numbers of one digit."""
    return np.frombuffer(text, dtype=np.uint8)[1::2] - 48


def _json(text: bytes) -> Any:
    """``json.loads`` spends more on what it is given than on short texts."""
    return _DECODER.raw_decode(text.decode("ascii"))[0]


def _one_by_one(text: bytes, kind: type[Any]) -> NDArray[Any]:
    return np.array([*map(int if kind is np.int32 else float, text.split(b","))], dtype=kind)


def _by_arrow(text: bytes, kind: type[Any]) -> NDArray[Any]:
    """The same numbers, bit for bit: both round correctly."""
    import pyarrow as pa

    commas = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord(","))
    offsets = np.empty(len(commas) + 2, dtype=np.int32)
    offsets[0], offsets[-1] = 0, len(text) - len(commas)
    offsets[1:-1] = commas - np.arange(len(commas))
    data = pa.py_buffer(text.translate(None, b","))
    texts = pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), data)
    # Not to_numpy, which loads pandas wherever that is installed.
    return np.frombuffer(texts.cast(pa.from_numpy_dtype(kind)).buffers()[1], kind, len(texts)).copy()
