"""The run folder: manifest, append-only log, replay, exports."""

from tailrisk.store.answers import BatchReading, second_readings, texts_of
from tailrisk.store.asked import Asked, Sample, Told
from tailrisk.store.atomic import write_json_atomic
from tailrisk.store.checkedlog import CheckedLog
from tailrisk.store.codec import Judgement, Note, OtherJudge, Record, Verdicts, decode, encode
from tailrisk.store.export import (
    export_draws,
    exported,
    final_numbers,
    final_results,
    judged_answers,
    judgements,
    other_judges,
)
from tailrisk.store.hits import hit_rows, write_hits
from tailrisk.store.log import read_log
from tailrisk.store.manifest import Manifest, listed_prompts, make_manifest, read_manifest
from tailrisk.store.numbers import LoggedNumbers
from tailrisk.store.runfolder import RunStore, replay

__all__ = [
    "Asked",
    "BatchReading",
    "CheckedLog",
    "Judgement",
    "LoggedNumbers",
    "Manifest",
    "Note",
    "OtherJudge",
    "Record",
    "RunStore",
    "Sample",
    "Told",
    "Verdicts",
    "decode",
    "encode",
    "export_draws",
    "exported",
    "final_numbers",
    "final_results",
    "hit_rows",
    "judged_answers",
    "judgements",
    "listed_prompts",
    "make_manifest",
    "other_judges",
    "read_log",
    "read_manifest",
    "replay",
    "second_readings",
    "texts_of",
    "write_hits",
    "write_json_atomic",
]
