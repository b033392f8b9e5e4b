"""A driver that opens a run folder, says so, and sleeps until it is killed."""

import sys
import time
from pathlib import Path

import storekit as kit

from tailrisk.store import RunStore

store = RunStore.open(Path(sys.argv[1]), kit.manifest())
store.append_plan(kit.plan(0))
print("held", flush=True)
time.sleep(120)
