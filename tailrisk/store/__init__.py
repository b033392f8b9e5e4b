"""The run folder: manifest, append-only log, replay, exports."""

from tailrisk.store.answers import BatchReading, second_readings, texts_of
from tailrisk.store.asked import Asked, Sample, Told
from tailrisk.store.atomic import write_json_atomic
from tailrisk.store.codec import Note, Record, Verdicts, decode, encode
from tailrisk.store.export import export_draws, exported, final_results
from tailrisk.store.hits import hit_rows, write_hits
from tailrisk.store.log import read_log
from tailrisk.store.manifest import Manifest, make_manifest, read_manifest
from tailrisk.store.runfolder import RunStore, replay

__all__ = [
    "Asked",
    "BatchReading",
    "Manifest",
    "Note",
    "Record",
    "RunStore",
    "Sample",
    "Told",
    "Verdicts",
    "decode",
    "encode",
    "export_draws",
    "exported",
    "final_results",
    "hit_rows",
    "make_manifest",
    "read_log",
    "read_manifest",
    "replay",
    "second_readings",
    "texts_of",
    "write_hits",
    "write_json_atomic",
]
