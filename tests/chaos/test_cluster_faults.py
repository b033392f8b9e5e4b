"""A whole audit on a cluster of three nodes that loses workers, a node and its driver: the numbers do not notice.

The invariant: the keys in the log are the planned keys, each once, and every estimate is bit-equal to that of
an undisturbed audit in one process.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from chaos.audits import calm, check_accounts, check_same
from chaos.cluster_child import Order
from chaos.nodes import Nodes

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

CHILD = Path(__file__).with_name("cluster_child.py")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with Nodes(count=2, cpus=2) as nodes:
        yield nodes


def drive(nodes: Nodes, order: Order) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(CHILD), json.dumps(asdict(order))],
        env=nodes.variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(
    true: Callable[[], bool], within_s: float, driver: subprocess.Popen[str] | None = None
) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        if driver is not None:
            assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def log_bytes(folder: Path) -> int:
    return sum(p.stat().st_size for p in (folder / "log").glob("*.jsonl")) if folder.exists() else 0


# Each worker that is killed costs some seconds of starting another.
@pytest.mark.parametrize(
    ("draws", "sleep", "least"), [(900, 0.04, 5), pytest.param(1800, 0.02, 10, marks=pytest.mark.nightly)]
)
def test_lost_workers_a_lost_node_and_a_killed_driver(
    nodes: Nodes, tmp_path: Path, draws: int, sleep: float, least: int
):
    """At least ``least`` workers are killed, one after ten batches of ten draws each."""
    order = Order(
        address=nodes.address,
        folder=str(tmp_path / "chaos"),
        marks=str(tmp_path),
        gates=(0.3, 1e-2, 1e-4),
        draws=draws,
        sleep=sleep,
        every=10,
        judge_rate=0.02,
        timeout_s=10.0,
    )
    chaos, undisturbed = Path(order.folder), tmp_path / "calm"
    calm(order, undisturbed)
    whole = log_bytes(undisturbed)

    driver = drive(nodes, order)
    try:
        # Points are places in the log, not moments: a busy machine changes nothing.
        wait_until(lambda: log_bytes(chaos) > 0.2 * whole, 120, driver)
        _, lost = nodes.remove()
        assert lost > 0, "the node had workers"
        nodes.add()
        wait_until(lambda: log_bytes(chaos) > 0.5 * whole, 120, driver)
        driver.kill()
        assert driver.wait(timeout=30) == -signal.SIGKILL
        assert log_bytes(chaos) < 0.9 * whole
        wait_until(lambda: nodes.workers() == [] and nodes.free() == 4.0, 30)
        driver = drive(nodes, order)
        said, errors = driver.communicate(timeout=240)
    finally:
        driver.kill()
        driver.communicate()
    assert driver.returncode == 3, errors
    assert said == "ready\nexit 3\n"
    assert len(set((tmp_path / "killed").read_text().split())) >= least
    assert check_accounts(chaos) == {}
    check_same(chaos, undisturbed)
    wait_until(lambda: nodes.workers() == [] and nodes.free() == 4.0, 30)
