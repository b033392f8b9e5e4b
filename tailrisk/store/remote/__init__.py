"""Run folders at an address of an object store: a working copy on this machine, kept up there as it grows."""

from tailrisk.store.remote.fetch import fetch_view
from tailrisk.store.remote.mirror import Mirror, check_address
from tailrisk.store.remote.objects import Objects

__all__ = ["Mirror", "Objects", "check_address", "fetch_view"]
