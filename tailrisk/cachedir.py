"""Where converted models, file digests and working copies of runs are kept on this machine.

``TAILRISK_CACHE`` overrides the user's cache folder. Everything in it can be deleted at any time, but for working
copies (``runs``) of audits that go on, or whose last upload failed.
"""

from __future__ import annotations

import os
from pathlib import Path

from tailrisk.errors import ConfigError


def cache_folder() -> Path:
    """The cache folder, whether it is there or not."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("TAILRISK_CACHE") or user_cache_dir("tailrisk")).expanduser()


def cache_dir() -> Path:
    """The cache folder, created when missing. Errors: ConfigError where it cannot be written."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the cache folder {folder} cannot be created ({error.strerror}); set TAILRISK_CACHE to a "
            "folder that can be written"
        ) from error
    return folder
