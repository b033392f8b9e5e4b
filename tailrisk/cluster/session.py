"""Starting or joining Ray for the length of an audit.

``local`` starts a cluster of our own and always starts a new one: RAY_ADDRESS and clusters that already
run on the machine are left alone. It has no dashboard, a temporary folder of its own that goes away with
it, and a random token without which nobody can talk to it: Ray's ports answer on every interface and run
whatever code they are sent. The token lives in the environment of this process and of Ray's processes
only; none is written into the user's home. Ctrl-C and errors stop the cluster; if the driver is killed
outright, Ray's own reaper ends its processes, and the next local session sweeps the folder.

``auto`` and ``host:port`` join a cluster that somebody else started, and leave it running.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tailrisk.config import ClusterConfig
from tailrisk.errors import ClusterError

JOIN_TIMEOUT_S = 30.0
OBJECT_STORE_BYTES = 256 * 2**20
"""Enough for the batches in flight: token ids and a few numbers a draw, never logits."""

_TEMP_PREFIX = "tailrisk-ray-"
# Ray's native library reads the token once and keeps it, so all sessions of one process share one.
_TOKEN = secrets.token_hex(32)

# Joins in a process of its own: a wrong address, a port that belongs to something else or a missing token
# can make ray.init wait for minutes, and a process can be given a time limit.
_PROBE = """
import logging, sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL, configure_logging=True)
    ray.cluster_resources()
except BaseException as error:
    print(f"{type(error).__name__}: {error}".strip().splitlines()[0], file=sys.stderr)
    sys.exit(1)
"""

_REFUSED = "InvalidAuthToken"


@contextlib.contextmanager
def ray_session(cluster: ClusterConfig) -> Iterator[None]:
    """A Ray connection for this process; on leaving, a cluster of our own is stopped, a joined one is not.

    Raises:
        ClusterError: no cluster answers at the address within 30 s, Ray does not start, or this process
            is connected to Ray already and ``cluster.address`` is ``local``.
    """
    import ray

    if ray.is_initialized():
        if cluster.address == "local":
            raise ClusterError(
                "cluster.address is 'local', but this process is already connected to Ray: "
                "call ray.shutdown() first, or set cluster.address to 'auto' to use that connection"
            )
        yield
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(_sigterm_kept())
        stack.enter_context(_stdout_kept())
        if cluster.address == "local":
            stack.enter_context(_local(cluster))
        else:
            stack.enter_context(_joined(cluster.address))
        yield


@contextlib.contextmanager
def _local(cluster: ClusterConfig) -> Iterator[None]:
    import ray

    pools = cluster.pools.values()
    cpus = max(os.cpu_count() or 1, math.ceil(sum(pool.max * pool.ranks * pool.num_cpus for pool in pools)))
    environment = {
        "RAY_ADDRESS": None,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": _TOKEN,
        "RAY_AUTH_TOKEN_PATH": None,
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray's default of 15 starves a worker's threads beside any other program, to a tenth of its speed here.
        "RAY_worker_niceness": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    sweep_temp()
    with _environment(environment), _temp_folder() as folder:
        try:
            _init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=str(folder),
            )
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _joined(address: str) -> Iterator[None]:
    import ray

    if "://" in address:
        raise ClusterError(
            f"cluster.address {address!r}: only 'local', 'auto' and host:port are supported; give the "
            "address of the cluster's head as host:port, or submit the audit as a job on the cluster"
        )
    probe_address(address)
    with _environment({"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}):
        try:
            _init(address=address)
            yield
        finally:
            ray.shutdown()


def probe_address(address: str, timeout_s: float = JOIN_TIMEOUT_S) -> None:
    """Make sure that a cluster answers at ``address`` (host:port or ``auto``), in a process of its own.

    Raises:
        ClusterError: nothing there, no answer in ``timeout_s`` seconds, or Ray refused us (with its reason).
    """
    remedy = (
        "start a cluster there ('ray start --head'), correct cluster.address, "
        "or set cluster.address to 'local' to start one just for this audit"
    )
    _probe_socket(address, remedy)
    ended, said = _join(address, timeout_s)
    if _REFUSED in said:
        raise ClusterError(
            f"cluster.address {address!r}: the cluster asks for a token that this process does not have; "
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the file with the cluster's token"
        )
    if ended is None:
        raise ClusterError(
            f"cluster.address {address!r}: no Ray cluster answered within {timeout_s:g} s; {remedy}"
        )
    if ended != 0:
        lines = said.strip().splitlines()
        reason = lines[-1] if lines else f"exit status {ended}"
        raise ClusterError(f"cluster.address {address!r}: cannot join a Ray cluster ({reason}); {remedy}")


def _join(address: str, timeout_s: float) -> tuple[int | None, str]:
    """The probe's exit status, None if it had to be ended, and what it said. One that is refused for want of a token
    would try again and again, and is ended at once."""
    with subprocess.Popen(
        [sys.executable, "-c", _PROBE, address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as probe:
        assert probe.stderr is not None
        late = threading.Timer(timeout_s, probe.kill)
        late.start()
        said = ""
        try:
            for line in probe.stderr:
                said += line
                if _REFUSED in line:
                    break
            else:
                probe.wait()
        finally:
            late.cancel()
            probe.kill()
    return (None if probe.returncode == -signal.SIGKILL else probe.returncode), said


def _probe_socket(address: str, remedy: str) -> None:
    """The quick answer where nothing listens at all; Ray itself would try for a minute."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5.0).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"cluster.address {address!r}: nothing answers ({error}); {remedy}") from None


def _forget_authentication() -> None:
    # Without this a cluster started after `import ray` asks for a token that this process does not send.
    import ray._raylet as native

    library: Any = native
    library.Config.initialize("")
    library.AuthenticationTokenLoader.instance().reset_cache()


def _init(**options: Any) -> None:
    """ray.init with its console noise off; what goes wrong becomes a ClusterError."""
    import ray

    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **options)
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise ClusterError(
            f"Ray did not start ({type(error).__name__}: {first}); check free memory, /dev/shm and /tmp "
            "with 'tailrisk doctor'"
        ) from error


@contextlib.contextmanager
def _environment(values: dict[str, str | None]) -> Iterator[None]:
    """Environment variables for the time of a session (None: unset), put back afterwards."""
    before = {name: os.environ.get(name) for name in values}
    _set_environment(values)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(values: dict[str, str | None]) -> None:
    """Sets the variables and has Ray, which reads its authentication settings on import, read them again."""
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    _forget_authentication()


@contextlib.contextmanager
def _sigterm_kept() -> Iterator[None]:
    """ray.init replaces the SIGTERM handler of the process; ours comes back afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


@contextlib.contextmanager
def _stdout_kept() -> Iterator[None]:
    """Ray prints of every worker that dies on the driver's stdout, whatever ``log_to_driver`` says; ours is for
    results. The switch is the one that Ray's debugger turns while it has the terminal."""
    from ray._private import worker

    module: Any = worker
    before = getattr(module, "_worker_logs_enabled", True)
    module._worker_logs_enabled = False
    try:
        yield
    finally:
        module._worker_logs_enabled = before


@contextlib.contextmanager
def _temp_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"{_TEMP_PREFIX}{os.getpid()}-", dir=_temp_root()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _temp_root() -> str:
    # Unix sockets below the folder may have paths of 107 bytes at most, so a long TMPDIR will not do.
    return "/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()


def sweep_temp() -> None:
    """Remove the folders of local sessions whose driver was killed before it could."""
    for folder in Path(_temp_root()).glob(f"{_TEMP_PREFIX}*-*"):
        owner = folder.name.removeprefix(_TEMP_PREFIX).split("-")[0]
        with contextlib.suppress(OSError):
            if owner.isdigit() and folder.stat().st_uid == os.getuid() and not _alive(int(owner)):
                shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
