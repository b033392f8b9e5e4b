"""Where converted models and file digests are kept between runs.

``TAILRISK_CACHE`` overrides the user's cache folder. Everything in it can be deleted at any time.
"""

from __future__ import annotations

import os
from pathlib import Path

from tailrisk.errors import ModelError


def cache_dir() -> Path:
    """The cache folder, created when missing. Errors: ModelError where it cannot be written."""
    from platformdirs import user_cache_dir

    folder = Path(os.environ.get("TAILRISK_CACHE") or user_cache_dir("tailrisk")).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"the cache folder {folder} cannot be created ({error.strerror}); set TAILRISK_CACHE to a "
            "folder that can be written"
        ) from error
    return folder
