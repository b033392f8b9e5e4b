"""Runs at an address of an object store, as the commands meet them: checked, kept up, looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from tailrisk.audit.protocols import Silent
from tailrisk.errors import ConfigError, StoreError
from tailrisk.runconfig import is_address, working_copies

if TYPE_CHECKING:
    from tailrisk.audit.state import AuditState
    from tailrisk.config import Config
    from tailrisk.stats import Estimate
    from tailrisk.store.remote import Mirror


def check_run_dir(config: Config) -> None:
    """Errors: ConfigError where ``run.dir`` is an address that cannot be written to, or that will not do."""
    if not config.run.remote:
        return
    if config.learned:
        raise ConfigError(
            f"proposals: {config.learned[0].name!r} is fitted beside the run folder, and run.dir "
            f"{config.run.dir!r} is an address; give a folder, or fit it before (tailrisk train lora)"
        )
    from tailrisk.store.remote import check_address

    try:
        check_address(config.run.dir)
    except StoreError as error:
        raise ConfigError(
            f"run.dir: {error}; correct the address, or set what the package for it reads from the environment "
            "(region, endpoint, credentials)"
        ) from error


def open_mirror(
    config: Config, warn: Callable[[str], None], say: Callable[[str], None]
) -> AbstractContextManager[Mirror | None]:
    """The run at its address, held and kept up; nothing where ``run.dir`` is a folder."""
    if config.run.address is None:
        return nullcontext()
    from tailrisk.cachedir import cache_dir
    from tailrisk.store.remote import Mirror

    cache_dir()
    return Mirror(config.run.address, config.run_folder, warn=warn, say=say)


class Sender(Silent):
    """Has each finished round sent."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    def round_finished(self, state: AuditState, estimates: Sequence[Estimate]) -> None:
        self._mirror.send()


def to_look_at(run: str) -> Path:
    """The folder behind what was given as a run: itself, or a copy of what is at an address.

    Errors: StoreError where there is no run, or the store does not answer.
    """
    if not is_address(run):
        return Path(run)
    from tailrisk.cachedir import cache_dir
    from tailrisk.store.remote import Objects, fetch_view

    home, _, name = run.rstrip("/").rpartition("/")
    if name in ("", ".", ".."):
        raise StoreError(f"{run}: give the address of a run folder, such as s3://BUCKET/runs/NAME")
    cache_dir()
    copies = working_copies(home)
    # Not the working copy: an audit of this machine may be writing to it.
    folder = copies.with_name(f"{copies.name}-seen") / name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    fetch_view(Objects(run), folder)
    return folder


@contextmanager
def to_add_to(
    run: str, warn: Callable[[str], None], say: Callable[[str], None]
) -> Iterator[tuple[Path, Mirror | None]]:
    """The folder behind what was given as a run, to write to: itself, or the working copy of what is at an address,
    held for the time, with what is added sent there. Errors: as ``to_look_at``; another driver is at work there."""
    if not is_address(run):
        yield Path(run), None
        return
    from tailrisk.cachedir import cache_dir
    from tailrisk.store.remote import Mirror, Objects

    home, _, name = run.rstrip("/").rpartition("/")
    if name in ("", ".", ".."):
        raise StoreError(f"{run}: give the address of a run folder, such as s3://BUCKET/runs/NAME")
    if "manifest.json" not in Objects(run.rstrip("/")).list():
        raise StoreError(f"{run}: there is no run folder, it has no manifest.json")
    cache_dir()
    with Mirror(run.rstrip("/"), working_copies(home) / name, warn=warn, say=say) as mirror:
        yield working_copies(home) / name, mirror


def send_report(run: str, path: Path) -> str:
    """Put a report that was written for the run where the run is; its place. Errors: StoreError."""
    if not is_address(run):
        return str(path)
    from tailrisk.store.remote import Objects

    objects = Objects(run)
    objects.send(path.name, path)
    return f"{objects.address}/{path.name}"
