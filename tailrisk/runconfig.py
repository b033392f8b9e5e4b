"""Where a run is kept: a folder, or the address of one on object storage."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pydantic import Field, field_validator

from tailrisk.cachedir import cache_folder
from tailrisk.proposalconfig import Name, Section


def is_address(text: str) -> bool:
    """Whether it is to be read as the address of an object store, not as a path."""
    return "://" in text


def working_copies(address: str) -> Path:
    """Where run folders below this address are worked on, on this machine."""
    return cache_folder() / "runs" / hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:16]


class RunConfig(Section):
    """The run folder and the seed; with the configuration they are the run's identity."""

    name: Name = "audit"
    """Name of the run folder."""
    dir: str = "runs"
    """A folder, or the address of one that fsspec writes to (``s3://BUCKET/runs``)."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """The same seed and the same configuration give the same draws."""

    @field_validator("dir")
    @classmethod
    def _no_secrets(cls, value: str) -> str:
        scheme, remote, rest = value.partition("://")
        if not remote:
            return value
        if (
            not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme)
            or not rest.strip("/")
            or set(rest) & set("?#\n\t ")
        ):
            raise ValueError(f"{scheme}://...: write an address such as s3://BUCKET/runs, nothing behind it")
        if re.match(r"[^/@]*:[^/]*@", rest):
            raise ValueError(
                f"{scheme}://...: no keys or passwords in an address; set them in the environment, as the "
                "package for such addresses reads them (AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS)"
            )
        return value.rstrip("/")

    @property
    def remote(self) -> bool:
        """Whether runs are kept at an address; they are then worked on in a copy on this machine."""
        return is_address(self.dir)

    @property
    def address(self) -> str | None:
        """The address that the run folder is kept at; None where it is a folder of its own."""
        return f"{self.dir}/{self.name}" if self.remote else None
