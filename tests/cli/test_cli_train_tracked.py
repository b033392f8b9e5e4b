"""Trainings beside a tracking server that is slow or broken: as fast as without one, told once, all there."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Self

import pytest
from safetensors.torch import load_file
from training.lorakit import AUDIT, audit_in
from truth.exactllama import in_process

from tailrisk import tracking
from tailrisk.cli import run, wiring
from tailrisk.models.interventions.adapter import WEIGHTS
from tailrisk.tracking.client import connect
from tailrisk.tracking.trainingrun import TrainingRecord
from tailrisk.tracking.trouble import FLUSH_S
from tailrisk.tracking.uploads import Uploads


@pytest.fixture(scope="module")
def untracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the training makes without tracking; its draws are the other trainings' too."""
    folder = tmp_path_factory.mktemp("tracked")
    training = {**AUDIT["training"], "rounds": 1, "epochs": 4}
    audit_in(folder, training=training, tracking={"uri": None})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiring, "on_ray", in_process)
        connect("http://127.0.0.1:1")  # asks for nothing, but loads MLflow before anything is timed
        assert train(folder, folder / "untracked") == 0
    return folder / "untracked"


def train(folder: Path, out: Path, *overrides: str) -> int:
    settings = [word for override in overrides for word in ("--set", override)]
    return run(["train", "lora", str(folder / "audit.yaml"), "--out", str(out), *settings])


@contextmanager
def served(answer: Callable[[http.server.BaseHTTPRequestHandler], object]) -> Iterator[int]:
    """The port of a server on this machine that treats every request alike."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            answer(self)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    asked: list[str] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
    assert asked, "the server was never asked"


@contextmanager
def slow() -> Iterator[int]:
    over = threading.Event()
    with served(lambda request: bool(over.wait(30.0))) as port:
        yield port
        over.set()


def broken() -> AbstractContextManager[int]:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(500)
        request.end_headers()

    return served(answer)


class Timed(Uploads):
    """Remembers how long a training took, and how long it was held up on its way and at its end."""

    took = held = waited = 0.0

    def __enter__(self) -> Self:
        self._entered = time.monotonic()
        return super().__enter__()

    def put(self, record: TrainingRecord) -> None:
        began = time.monotonic()
        super().put(record)
        self.held += time.monotonic() - began

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        left = time.monotonic()
        self.took = left - self._entered
        super().__exit__(kind, error, trace)
        self.waited = time.monotonic() - left


@pytest.mark.parametrize(
    ("server", "limit", "reason"),
    [(slow, 1.5, "not everything was sent within 1.5 s"), (broken, FLUSH_S, "500 error")],
)
def test_a_bad_server_costs_a_training_nothing_but_a_wait_at_its_end(
    untracked: Path,
    tmp_path: Path,
    server: Callable[[], AbstractContextManager[int]],
    limit: float,
    reason: str,
    monkeypatch,
    capfd,
):
    made: list[Timed] = []

    def opened(*args, **options) -> Timed:
        made.append(Timed(*args, **options, flush_s=limit))
        return made[-1]

    monkeypatch.setattr(tracking, "Uploads", opened)
    out = tmp_path / "out"
    shutil.copytree(untracked / "draws-1", out / "draws-1")
    with server() as port:
        assert train(untracked.parent, out, f"tracking.uri=http://127.0.0.1:{port}") == 0
    (uploads,) = made
    assert uploads.held < 0.05 * uploads.took
    # A server that fails is given up long before the limit, one that hangs is at the limit.
    assert uploads.waited < min(limit, 12.0) + 0.5
    told = [line for line in capfd.readouterr().err.splitlines() if "warning: " in line]
    assert len(told) == 1 and reason in told[0] and "the training is not affected" in told[0], told
    own, others = (load_file(folder / "adapter-1" / WEIGHTS) for folder in (untracked, out))
    assert own.keys() == others.keys() and all(others[name].equal(v) for name, v in own.items())
    cards = [json.loads((folder / "adapter-1" / "card.json").read_text()) for folder in (untracked, out)]
    for card in cards:
        for epoch in card["epochs"]:
            del epoch["seconds"]
    assert cards[0] == cards[1] and cards[1]["divergence"]["epoch"] > 0
