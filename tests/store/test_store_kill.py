"""A writer killed with SIGKILL sixty times, most of them in the middle of a write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import storekit as kit

from tailrisk.store import RunStore, final_results, read_log

HERE = Path(__file__).parent
LIVES = 60


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
@pytest.mark.slow
def test_sixty_kills_lose_nothing_and_double_nothing(tmp_path):
    folder, ledger = tmp_path / "run", tmp_path / "accepted.txt"
    command = [sys.executable, str(HERE / "killedwriter.py"), str(folder), str(ledger), "7", str(LIVES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr

    cuts = ledger.with_name("cuts.txt").read_text().splitlines()
    assert len(cuts) > 15, "most kills hit a record in the middle"
    torn = not kit.last_segment(folder).read_bytes().endswith(b"\n")
    with RunStore.open(folder, kit.manifest()) as store:
        assert bool(store.notes) == torn
        assert store.duplicates == 0
        planned = {b.key: b for p in store.plans for b in p.batches}
        settled = set(store.settled)
    assert kit.last_segment(folder).read_bytes().endswith(b"\n")

    accepted = ledger.read_text().split()
    logged = [f"{p['batch'][0]}/{p['batch'][1]}/{p['batch'][2]}" for k, p in read_log(folder) if k == "batch"]
    assert len(accepted) > 500 and len(set(accepted)) == len(accepted)
    assert len(logged) == len(set(logged)), "nothing doubled"
    assert set(accepted) <= set(logged), "nothing that was accepted is lost"
    # A killed writer may have finished a record without living to say so, at most one a life.
    assert len(set(logged) - set(accepted)) <= LIVES
    assert set(logged) == settled <= set(planned)
    for result in final_results(folder):
        assert kit.same_result(result, kit.result(planned[result.batch.key]))
