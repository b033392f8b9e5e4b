"""The run folder as the driver sees it: plans and batches go in once, and come back in the order of the log.

``RunStore.open`` creates the folder or resumes it, holds its lock, and knows which batches are settled. It
keeps keys and checksums in memory, never draws; ``replay`` streams the records from disk.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, KeysView
from pathlib import Path
from types import TracebackType
from typing import Any

from tailrisk.errors import StoreError
from tailrisk.records import Batch, BatchFailure, BatchResult, JudgedTexts, RoundPlan
from tailrisk.store.asked import Asked, Told
from tailrisk.store.atomic import write_failed
from tailrisk.store.batchcodec import draws_crc, encode_result
from tailrisk.store.checkedlog import CheckedLog
from tailrisk.store.codec import Judgement, Note, OtherJudge, Record, Verdicts, decode, encode
from tailrisk.store.lock import RunLock
from tailrisk.store.log import read_log
from tailrisk.store.manifest import NAME, Manifest, check_resume, read_manifest, write_manifest
from tailrisk.store.writer import LogWriter

_TWIN = "late twin of a batch"


class RunStore:
    """An open run folder; use as a context manager.

    Attributes: ``folder``; ``manifest`` (as stored when the run began); ``resumed``; ``notes`` (what is
    worth telling the user about the resume); ``plans`` so far, in order; ``judges`` beside the run's own, by
    name; ``duplicates`` and ``mismatches`` (late twins of logged batches over the whole run, and those whose draws
    differed); ``guard``, called before a plan, a batch or a judgement is logged, may raise where this driver has lost
    the run.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, notes: list[str], resumed: bool, lock: RunLock
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.notes = notes
        self.resumed = resumed
        self.plans: list[RoundPlan] = []
        self.judges: dict[str, OtherJudge] = {}
        self.duplicates = 0
        self.mismatches = 0
        self.guard: Callable[[], None] = lambda: None
        self._lock = lock
        self._planned: dict[str, Batch] = {}
        self._settled: dict[str, int | None] = {}
        self._log = LogWriter(folder, self._visit)
        if self._log.cut:
            notes.append(f"a record of {self._log.cut} bytes that was cut short by a crash was removed")

    @classmethod
    def open(cls, folder: Path, manifest: Manifest) -> RunStore:
        """Begins the run, or resumes it if the folder holds one of the same identity.

        ``StoreError``: another driver is at work, the identity differs (each field is named), or the log
        is damaged.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_failed(folder, error) from error
        lock = RunLock(folder)
        try:
            resumed = (folder / NAME).exists()
            if resumed:
                stored = read_manifest(folder)
                notes = check_resume(folder, stored, manifest)
            else:
                stored, notes = manifest, []
                _refuse_strangers(folder)
                write_manifest(folder, manifest)
            return cls(folder, stored, notes, resumed, lock)
        except BaseException:
            lock.release()
            raise

    @property
    def settled(self) -> KeysView[str]:
        """Keys of the batches that are in the log, with draws or as failures (a live view)."""
        return self._settled.keys()

    def missing(self) -> list[Batch]:
        """Planned batches that are not in the log yet, in the order of the plans."""
        return [batch for key, batch in self._planned.items() if key not in self._settled]

    def replay(self) -> Iterator[Record]:
        """Every record of the log in order: plans, results, failures, verdicts, notes."""
        return replay(self.folder)

    def append_plan(self, plan: RoundPlan) -> None:
        """Logs the next round's plan; call it before the plan's first batch is dispatched."""
        self.guard()
        if plan.round != len(self.plans):
            raise StoreError(f"plan of round {plan.round} given, the log waits for round {len(self.plans)}")
        seen: set[str] = set()
        for batch in plan.batches:
            if batch.key in self._planned or batch.key in seen:
                raise StoreError(f"plan of round {plan.round}: batch {batch.key} is planned twice")
            seen.add(batch.key)
        self._log.append(*encode(plan))
        self._take_plan(plan)

    def append_result(self, result: BatchResult) -> bool:
        """Logs a finished batch; False (and nothing logged but a note) if the batch is settled already. It is synced
        soon, with others that come as fast."""
        self.guard()
        self._expect_planned(result.batch)
        if result.batch.key in self._settled:
            crc = self._settled[result.batch.key]
            self._twin(result.batch.key, same=None if crc is None else crc == draws_crc(result))
            return False
        text, crc = encode_result(result)
        self._log.append("batch", text, soon=True)
        self._settled[result.batch.key] = crc
        return True

    def append_failure(self, failure: BatchFailure) -> bool:
        """Logs a batch that could not be drawn; False if the batch is settled already."""
        self._expect_planned(failure.batch)
        if failure.batch.key in self._settled:
            self._twin(failure.batch.key, same=None)
            return False
        self._log.append(*encode(failure))
        self._settled[failure.batch.key] = None
        return True

    def append_verdicts(self, key: str, judged: JudgedTexts) -> None:
        """Logs a later judgement of all draws of the batch ``key``; it replaces the earlier one."""
        self._expect_drawn(key, judged)
        self._log.append(*encode(Verdicts(key=key, judged=judged)))

    def append_judge(self, judge: OtherJudge) -> None:
        """Logs that another judge reads the draws; nothing if it is known. A name is that of one judge for good."""
        known = self.judges.get(judge.name)
        if known is not None and known.digest != judge.digest:
            raise StoreError(
                f"{self.folder}: the run has another judge of the name {judge.name!r}; give this one its own (--name)"
            )
        if known is None:
            self._log.append(*encode(judge))
            self.judges[judge.name] = judge

    def append_judgement(self, judge: OtherJudge, key: str, judged: JudgedTexts) -> None:
        """Logs what another judge says of all draws of the batch ``key``."""
        self.guard()
        self._expect_drawn(key, judged)
        self._log.append(*encode(Judgement(judge=judge.name, digest=judge.digest, key=key, judged=judged)))

    def append_asked(self, asked: Asked) -> None:
        """Logs the sample of a second reader; call it before anything of it is judged."""
        self.guard()
        self._log.append(*encode(asked))

    def append_told(self, told: Told) -> None:
        """Logs what a second reader said of some of its sample."""
        self._log.append(*encode(told))

    def append_note(self, text: str, **data: Any) -> None:
        """Logs a remark that no estimate depends on."""
        self._log.append(*encode(Note(text=text, data=data)))

    def sync(self) -> None:
        """When this returns, all that was logged survives a crash. ``StoreError`` where it may not."""
        self._log.sync()

    def close(self) -> None:
        self._log.close()
        self._lock.release()

    def __enter__(self) -> RunStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _visit(self, kind: str, payload: dict[str, Any]) -> None:
        match decode_head(kind, payload):
            case RoundPlan() as plan:
                self._take_plan(plan)
            case str(key), crc:
                if key in self._settled:
                    raise StoreError(f"{self.folder}: batch {key} is in the log twice; use another run.name")
                self._settled[key] = crc
            case OtherJudge(name=name) as judge:
                self.judges[name] = judge
            case Note(text=text, data=data) if text == _TWIN:
                self._count_twin(data.get("same"))

    def _take_plan(self, plan: RoundPlan) -> None:
        self.plans.append(plan)
        self._planned.update((batch.key, batch) for batch in plan.batches)

    def _expect_planned(self, batch: Batch) -> None:
        if self._planned.get(batch.key) != batch:
            raise StoreError(
                f"batch {batch.key} of round {batch.round} is not in a logged plan; it is not logged"
            )

    def _expect_drawn(self, key: str, judged: JudgedTexts) -> None:
        if self._settled.get(key) is None:
            raise StoreError(f"batch {key} has no draws in the log, so no verdicts are taken for it")
        if len(judged.verdicts) != self._planned[key].size:
            raise StoreError(
                f"batch {key} has {self._planned[key].size} draws, {len(judged.verdicts)} were judged"
            )

    def _twin(self, key: str, *, same: bool | None) -> None:
        self.append_note(_TWIN, key=key, same=same)
        self._count_twin(same)

    def _count_twin(self, same: bool | None) -> None:
        self.duplicates += 1
        self.mismatches += same is False


def replay(source: Path | CheckedLog, kinds: Collection[str] | None = None) -> Iterator[Record]:
    """The records of a run folder, finished or in progress, without its lock; only of these ``kinds``."""
    found = source.records(kinds) if isinstance(source, CheckedLog) else read_log(source, kinds)
    for kind, payload in found:
        yield decode(kind, payload)


def decode_head(
    kind: str, payload: dict[str, Any]
) -> RoundPlan | OtherJudge | Note | tuple[str, int | None] | None:
    """What the index needs of a record: a plan, judge or note, or (key, checksum) of a settled batch."""
    if kind == "judgement":
        return None
    if kind == "batch":
        prompt_id, component, index = payload["batch"][:3]
        return f"{prompt_id}/{component}/{index}", payload["crc"]
    record = decode(kind, payload)
    if isinstance(record, BatchFailure):
        return record.batch.key, None
    return record if isinstance(record, RoundPlan | OtherJudge | Note) else None


def _refuse_strangers(folder: Path) -> None:
    if any((folder / "log").glob("*.jsonl")):
        raise StoreError(
            f"{folder}: there is a log but no {NAME}; restore it from a copy, or use another run.name"
        )
