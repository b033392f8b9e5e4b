"""Names, numbers and addresses: no MLflow needed."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from trackingkit import estimate, make_config

from tailrisk.errors import ConfigError
from tailrisk.records import Status
from tailrisk.tracking import NullTracker, check_uri, open_tracker, resolve_uri
from tailrisk.tracking.metrics import finite, flat, params, plain_key, round_metrics


def test_round_metrics():
    rows = [
        estimate("a", relative_error=0.1),
        estimate("b", relative_error=0.5, status=Status.UNRELIABLE),
        estimate("c", relative_error=None, status=Status.BOUND_ONLY),
    ]
    figures = round_metrics(rows, tokens=77, judge_calls=20)
    assert figures["draws"] == 30 and figures["tokens"] == 77 and figures["hits"] == 9
    assert figures["relative_error_median"] == pytest.approx(0.3)
    assert figures["relative_error_max"] == 0.5
    assert figures["prompts_ok"] == 1 and figures["prompts_bound_only"] == 1
    assert figures["mean_weight"] == pytest.approx(1.1)
    assert all(math.isfinite(v) for v in figures.values())


def test_figures_that_are_not_finite_are_left_out():
    rows = [estimate(relative_error=math.inf)]
    assert "relative_error_max" not in round_metrics(rows, 0, 0)
    assert round_metrics([], 0, 0)["draws"] == 0
    assert finite({"a": math.nan, "b": -math.inf, "c": 1, "d": None, "e": True, "f": "x"}) == {"c": 1.0}


@pytest.mark.parametrize(
    ("key", "plain"),
    [
        ("../evil", "_/evil"),
        ("a\nb", "a_b"),
        ("/abs//x/", "abs/x"),
        ("…", "_"),
        ("", "_"),
        ("a.b-c_d/e", "a.b-c_d/e"),
    ],
)
def test_plain_key(key, plain):
    assert plain_key(key) == plain
    assert len(plain_key(key * 300)) <= 250


def test_params_are_flat_and_cut(tmp_path):
    assert flat({"a": [{"b": 1}, {}], "c": {"d": None}}) == {"a.0.b": 1, "a.1": {}, "c.d": None}
    got = params(make_config(tmp_path, None).model_dump(mode="json"))
    assert got["proposals.0.name"] == "rude"
    assert len(got["target.system_prompt"]) == 6000 and "manifest.json" in got["target.system_prompt"]


def test_addresses(tmp_path):
    def resolved(uri):
        return resolve_uri(make_config(tmp_path, uri))

    assert resolved(None) is None
    assert resolved("sqlite:///sub/mlflow.db") == f"sqlite:///{tmp_path}/sub/mlflow.db"
    assert resolved("sqlite:////var/x.db") == "sqlite:////var/x.db"
    assert resolved("http://127.0.0.1:5000") == "http://127.0.0.1:5000"
    assert resolved("postgresql+psycopg2://u:p@h/db") == "postgresql+psycopg2://u:p@h/db"


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("file:///tmp/mlruns", "migrate-filestore"),
        ("./mlruns", "sqlite:///mlflow.db"),
        ("sqlite://", "give the file"),
        ("ftp://user:hunter2@host/x", "unknown kind 'ftp'"),
    ],
)
def test_addresses_refused(tmp_path, uri, hint):
    with pytest.raises(ConfigError, match=r"^tracking\.uri") as caught:
        check_uri(make_config(tmp_path, uri))
    assert hint in str(caught.value) and "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError):
        open_tracker(make_config(tmp_path, uri), tmp_path)


def test_no_tracking_is_a_tracker_too(tmp_path):
    tracker = open_tracker(make_config(tmp_path, None), tmp_path)
    assert isinstance(tracker, NullTracker)
    with tracker as same:
        assert same is tracker
    assert list(tmp_path.iterdir()) == []


def test_importing_the_room_does_not_load_mlflow():
    code = "import sys, tailrisk.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
