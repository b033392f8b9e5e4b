"""run.log as a time line: sittings, workers, what was lost; whatever else stands in the file."""

from __future__ import annotations

import numpy as np
import pytest

from tailrisk.report.eventlog import read_events
from tailrisk.report.timeline import MOST_WORKERS, STEPS, timeline

LOG = """\
2026-11-29T07:00:00Z INFO tailrisk event=opened folder="/tmp/a b" resumed=false rounds=0
2026-11-29T07:00:00Z INFO tailrisk event=command line="tailrisk audit \\"my file.yaml\\"" source="commit abc"
2026-11-29T07:00:10Z INFO tailrisk event=worker_ready pool=models worker=models-1 place=vm:1 seconds=9.5
2026-11-29T07:00:20Z INFO tailrisk event=batch_done key=p/0/0 round=0 component=0 draws=50 worker=vm:1 seconds=10.0
2026-11-29T07:00:40Z INFO tailrisk event=batch_done key="p q/0/1" round=0 component=0 draws=50 worker=vm:2 seconds=20.0
2026-11-29T07:00:50Z INFO tailrisk event=worker_gone pool=models worker=models-2 place=vm:2 cut_short=["p/0/2", "p/0/3"]
2026-11-29T07:00:50Z INFO tailrisk event=batch_retried pool=models key=p/0/4 place=vm:1 error=ValueError
2026-11-29T07:01:00Z ERROR tailrisk event=stopped error=SystemExit
Traceback (most recent call last):
  event=batch_done nothing of ours
2026-11-29T09:00:00Z INFO tailrisk event=opened folder=/tmp/a resumed=true rounds=1
2026-11-29T09:00:30Z INFO tailrisk event=batch_done key=p/0/2 round=0 component=0 draws=30 worker=vm:1 seconds=30.0
2026-11-29T09:00:30Z INFO tailrisk event=batch_done key=p/0/3 round=0 component=0 draws=x worker=vm:1 seconds=3
2026-11-29T09:00:40Z INFO tailrisk event=batch_do"""


@pytest.fixture
def events(tmp_path):
    (tmp_path / "run.log").write_bytes(LOG.encode() + b"\xff\xfe\n")
    return read_events(tmp_path)


def test_sittings_follow_one_another_without_the_time_between(events):
    assert [(s.begin, s.end, s.pause) for s in events.sittings] == [(0, 60, 0), (60, 100, 7140)]
    assert events.seconds == 100
    assert events.workers == ["vm:1", "vm:2"] and list(events.worker) == [0, 1, 0]
    assert (
        list(events.begin) == [10, 20, 60]
        and list(events.end) == [20, 40, 90]
        and list(events.draws) == [50, 50, 30]
    )


def test_what_was_lost_is_counted(events):
    assert events.counts == {"worker_gone": 1, "batch_retried": 1, "stopped": 1}
    assert events.cut_short == 2 and events.ready == [9.5]
    assert events.commands == [{"line": 'tailrisk audit "my file.yaml"', "source": "commit abc"}]


def test_the_lanes_hold_the_busy_time_and_the_rate_all_draws(events):
    found = timeline(events)
    assert found is not None and [lane.name for lane in found.lanes] == ["vm:1", "vm:2"]
    assert [lane.share for lane in found.lanes] == pytest.approx([40 / 100, 20 / 100])
    step = float(found.edges[1] - found.edges[0])
    assert found.rate.sum() * step == pytest.approx(130)
    middle = (found.edges[:-1] + found.edges[1:]) / 2
    assert (found.lanes[0].busy[(middle > 21) & (middle < 59)] == 0).all()
    assert found.rate[np.searchsorted(middle, 75)] == pytest.approx(1.0)
    assert found.left_out == 0 and len(found.rate) == STEPS


def test_of_many_workers_the_busiest_have_lanes(tmp_path):
    lines = [
        f"2026-11-29T07:{i // 60:02d}:{i % 60:02d}Z INFO tailrisk event=batch_done key=p/0/{i} round=0 draws=5 "
        f"worker=w{i % 40} seconds={1 + i % 40}"
        for i in range(400)
    ]
    (tmp_path / "run.log").write_text("\n".join(lines))
    found = timeline(read_events(tmp_path))
    assert found is not None and len(found.lanes) == MOST_WORKERS and found.left_out == 40 - MOST_WORKERS
    assert found.lanes[0].name == "w39"
    assert found.rate.sum() * (found.edges[1] - found.edges[0]) == pytest.approx(2000)


def test_without_a_file_there_is_no_time_line(tmp_path):
    events = read_events(tmp_path)
    assert events.seconds == 0 and timeline(events) is None
    (tmp_path / "run.log").write_text("nothing of the kind\n" * 3)
    assert timeline(read_events(tmp_path)) is None
