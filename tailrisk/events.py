"""What happened in a run, one line each: ``event=NAME key=value ...`` in the package's log. Ids and numbers only."""

from __future__ import annotations

import json
import logging
from typing import Any

_log = logging.getLogger("tailrisk")


def event(name: str, **fields: Any) -> None:
    """One structured line; values are JSON where they are not plain words."""
    if not _log.isEnabledFor(logging.INFO):
        return
    parts = [f"event={name}"]
    for key, value in fields.items():
        plain = isinstance(value, str) and value and not set(value) & set(' "=\n\t')
        parts.append(f"{key}={value if plain else json.dumps(value)}")
    _log.info("%s", " ".join(parts))
