"""How many prompts a direction needs, and how many of them are kept aside; decided before a model is loaded."""

from __future__ import annotations

from tailrisk.errors import ConfigError, InputError

LEAST_PROMPTS = 4


def aside_of(count: int, validation: float) -> int:
    """Prompts kept aside of so many: ``validation`` is a share below 1, else their number."""
    return int(validation) if validation >= 1 else round(validation * count)


def check_sizes(harmful: int, harmless: int, validation: float) -> None:
    """Errors: InputError for sets too small, ConfigError for a validation part that leaves nothing."""
    for name, count in (("harmful", harmful), ("harmless", harmless)):
        if count < LEAST_PROMPTS:
            raise InputError(f"--{name}: {count} prompts; a direction needs at least {LEAST_PROMPTS}")
        aside = aside_of(count, validation)
        if not 1 <= aside <= count - 2:
            raise ConfigError(
                f"--validation {validation:g}: keeps {aside} of {count} {name} prompts aside; at least 1 must be "
                "kept and 2 left for the means"
            )
