"""One tree of errors; every message says what was seen, where, and what to do.

TailriskError                 exit code 1
├── ConfigError               2   a key, a value or a file named by the configuration
├── InputError                2   prompts or other data given by the user
├── ModelError                1   a model, tokenizer or adapter that cannot be used, non-finite numbers
├── JudgeError                1   a judge that cannot be loaded or keeps failing
├── StoreError                1   the run folder: damaged, locked, or of another configuration
└── ClusterError              1   Ray: no resources, actors that keep dying
"""

from __future__ import annotations


class TailriskError(Exception):
    """Base of all errors that a user can cause or fix; ``exit_code`` is the process's exit status."""

    exit_code = 1


class ConfigError(TailriskError):
    exit_code = 2


class InputError(TailriskError):
    exit_code = 2


class ModelError(TailriskError):
    pass


class JudgeError(TailriskError):
    pass


class StoreError(TailriskError):
    pass


class ClusterError(TailriskError):
    pass
