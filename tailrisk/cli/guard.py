"""From exceptions to one clear message on stderr and the right exit status.

| what                         | status                                     |
|------------------------------|--------------------------------------------|
| ``TailriskError``            | the error's own ``exit_code`` (1 or 2)     |
| Ctrl-C                       | 130, with the command that resumes         |
| anything else (a defect)     | 1, naming type and place, never the values |

Tracebacks go to ``run.log`` once a run folder is open, and to the terminal only with ``-v``: an unexpected
exception may carry prompt or response text in its message.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import typer

from tailrisk.errors import TailriskError

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("tailrisk")
log.addHandler(
    logging.NullHandler()
)  # without it Python prints warnings to the terminal before a run.log is open


class _State:
    """What the current command has told the guard: how loud to be, how to resume, where the log is."""

    verbose = False
    resume: str | None = None
    run_log: Path | None = None


state = _State()


def reset() -> None:
    state.verbose, state.resume, state.run_log = False, None, None


def _set_verbose(value: bool) -> bool:
    state.verbose = state.verbose or value
    return value


Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show the traceback of an error.", callback=_set_verbose)
]


def say(message: str) -> None:
    """One message for a person, on stderr."""
    typer.echo(message, err=True)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "?"


def _details() -> None:
    if state.verbose:
        traceback.print_exc(file=sys.stderr)


def guarded(verb: Callable[P, T]) -> Callable[P, T]:
    """Wrap a verb so that its errors end as described in the module's table."""

    @functools.wraps(verb)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return verb(*args, **kwargs)
        except typer.Exit:
            raise
        except TailriskError as error:
            log.error("stopped: %s: %s", type(error).__name__, error, exc_info=True)
            _details()
            say(f"error: {error}")
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            log.warning("interrupted")
            hint = f" Resume with:\n  {state.resume}" if state.resume else ""
            say(f"\ninterrupted.{hint}")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # The reader (head, less) has left; keep the interpreter from complaining at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except Exception as error:
            log.critical("defect: %s", type(error).__name__, exc_info=True)
            _details()
            where = (
                f"the traceback is in {state.run_log}" if state.run_log else "run again with -v to see it all"
            )
            say(f"error: unexpected {type(error).__name__} at {_place(error)}; {where}.")
            raise typer.Exit(1) from None

    return wrapper
