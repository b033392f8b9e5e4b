"""Where tracking goes: reading and checking ``tracking.uri``. MLflow is not needed for it."""

from __future__ import annotations

import re
from pathlib import Path

from tailrisk.config import Config
from tailrisk.errors import ConfigError

_SERVERS = ("http", "https", "databricks", "postgresql", "mysql", "mssql")


def check_uri(config: Config) -> None:
    """ConfigError if ``tracking.uri`` is of a kind that cannot be used; nothing is opened."""
    resolve_uri(config)


def resolve_uri(config: Config) -> str | None:
    """The address as MLflow takes it, a sqlite path made absolute (relative: to the configuration file)."""
    uri = config.tracking.uri
    if uri is None:
        return None
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme == "sqlite":
        path = uri.partition(":///")[2]
        if not path or path.startswith(":memory:"):
            raise ConfigError(
                f"tracking.uri {uri!r}: give the file of the database, as in sqlite:///mlflow.db"
            )
        return f"sqlite:///{config.resolve(path)}"
    if scheme in _SERVERS and (":" in uri or uri == "databricks"):
        return uri
    if scheme == "file" or ":" not in uri:
        raise ConfigError(
            f"tracking.uri {uri!r}: MLflow no longer writes to plain folders; use sqlite:///mlflow.db "
            "(an old folder can be converted with 'mlflow migrate-filestore'), a server's http address, "
            "or null for no tracking"
        )
    raise ConfigError(
        f"tracking.uri {masked(uri)!r}: unknown kind {scheme!r}; use sqlite:///FILE, http(s)://HOST:PORT, "
        "a database address, or null for no tracking"
    )


def database(uri: str) -> Path | None:
    """The file behind a resolved sqlite address."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def masked(text: str) -> str:
    """Passwords in addresses hidden."""
    return re.sub(r"(://[^/@:\s]*):[^/@\s]*@", r"\1:***@", text)
