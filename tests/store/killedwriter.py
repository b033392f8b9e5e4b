"""A driver that writes batches until it is killed, and keeps its own list of what the store accepted.

Usage: killedwriter.py FOLDER LIST SEED. A forked child writes and kills itself with SIGKILL at a random
moment, usually within a write; the parent starts the next one. The import cost is paid once. Nothing is synced to
the disk: what a process has written outlives the process, and some thousand syncs take minutes on a busy disk.
"""

import os
import random
import signal
import sys
from pathlib import Path

import storekit as kit

from tailrisk.store import RunStore
from tailrisk.store import writer as log_module

os.fsync = lambda fd: None
folder, ledger, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
MANIFEST = kit.manifest()


def write_until_killed(life: int) -> None:
    rng = random.Random(seed * 1000 + life)
    deadly = rng.randrange(1, 60)  # the write call that is cut
    real_write, calls = os.write, 0

    def write(fd, data):
        nonlocal calls
        calls += 1
        if calls == deadly:
            part = rng.choice([0, rng.randrange(len(data)), len(data) - 1, len(data)])
            real_write(fd, bytes(data)[:part])
            os.kill(os.getpid(), signal.SIGKILL)
        return real_write(fd, data)

    log_module.os.write = write  # os.write is used by the log alone here
    accepted = ledger.open("a")
    with RunStore.open(folder, MANIFEST) as store:
        if store.notes:
            with ledger.with_name("cuts.txt").open("a") as cuts:
                cuts.write(f"{store.notes[0]}\n")
        while True:
            missing = store.missing()
            if not missing:
                store.append_plan(kit.plan(len(store.plans), batches_each=5))
                continue
            batch = rng.choice(missing)
            if store.append_result(kit.result(batch)):
                accepted.write(f"{batch.key}\n")
                accepted.flush()


for life in range(int(sys.argv[4])):
    child = os.fork()
    if child == 0:
        write_until_killed(life)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        sys.exit(f"life {life} ended by itself: {status}")
