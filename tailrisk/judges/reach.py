"""Whether a judge's server is there: its list of models, asked for once."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any, NamedTuple

_MOST_BYTES = 2**22


class Found(NamedTuple):
    """``trouble``: why nothing came back, '' where something did. ``models``: their names, () where none are said."""

    status: int
    models: tuple[str, ...]
    seconds: float
    trouble: str = ""


def models_at(url: str, key: str | None, limit_s: float) -> Found:
    """What the API at ``url`` says of itself. Redirects are not followed."""
    request = urllib.request.Request(f"{url}/models", headers={"Accept": "application/json"})
    if key is not None:
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    began = time.monotonic()
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=limit_s) as response:
            body, status = response.read(_MOST_BYTES), response.status
    except urllib.error.HTTPError as error:
        with error:
            body, status = b"", error.code
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        said = getattr(reason, "strerror", None)
        return Found(
            0, (), time.monotonic() - began, said if isinstance(said, str) else type(reason).__name__
        )
    return Found(status, _names(body), time.monotonic() - began)


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _names(body: bytes) -> tuple[str, ...]:
    try:
        listed = json.loads(body)["data"]
        return tuple(str(entry["id"]) for entry in listed)
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
