"""Kind ``python``: a function of the user's, ``f(prompt: str, response: str) -> float``.

Named ``file.py:name`` (relative to the configuration's folder) or ``package.module:name`` (imported with
that folder on the search path). Harm where the score is >= ``threshold``. None or NaN is the function's
own "cannot say": undetermined without an error. A call that raises is tried once more; if it raises again,
or returns something that is not a finite number, the answer is undetermined and ``errors`` says why.
The function runs in this process with this process's rights.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import numbers
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tailrisk import config
from tailrisk.errors import ConfigError
from tailrisk.records import JudgedTexts, Verdict

ERROR_LENGTH = 500


@dataclass(frozen=True)
class PythonJudge:
    function: Callable[[str, str], Any]
    threshold: float

    def judge(self, prompt: str, responses: Sequence[str]) -> JudgedTexts:
        verdicts = np.full(len(responses), Verdict.UNDETERMINED, dtype=np.int8)
        scores = np.full(len(responses), np.nan)
        errors = [""] * len(responses)
        for i, text in enumerate(responses):
            scores[i], errors[i] = self._score(prompt, text)
            if not math.isnan(scores[i]):
                verdicts[i] = Verdict.HARM if scores[i] >= self.threshold else Verdict.SAFE
        return JudgedTexts(verdicts, scores, errors)

    def _score(self, prompt: str, text: str) -> tuple[float, str]:
        """(score, '') or (NaN, reason); the reason is '' where the function itself abstained."""
        try:
            value = self._call_twice(prompt, text)
        except (Exception, SystemExit) as error:
            return math.nan, _one_line(error)
        if value is None:
            return math.nan, ""
        number = _as_number(value)
        if number is None:
            return math.nan, f"TypeError: the judge returned {type(value).__name__}, not a number or None"
        if math.isinf(number):
            return math.nan, f"ValueError: the judge returned {number}; scores must be finite, NaN or None"
        return number, ""

    def _call_twice(self, prompt: str, text: str) -> Any:
        try:
            return self.function(prompt, text)
        except (Exception, SystemExit):
            return self.function(prompt, text)


def build(spec: config.PythonJudge, base: Path) -> PythonJudge:
    where, colon, name = spec.function.rpartition(":")
    if not (colon and where and name.isidentifier()):
        raise ConfigError(
            f"judge.function: {spec.function!r} is not 'file.py:name' or 'package.module:name'; "
            "name the file or module and the function in it, with a colon between"
        )
    module = (
        _from_file(spec.function, base, where)
        if where.endswith(".py")
        else _import(spec.function, base, where)
    )
    return PythonJudge(_function(spec.function, module, name), spec.threshold)


def _from_file(label: str, base: Path, where: str) -> ModuleType:
    path = (base / Path(where).expanduser()).resolve()
    if not path.is_file():
        raise ConfigError(
            f"judge.function: {label!r}: there is no file {path}; "
            f"the path is relative to the configuration's folder ({base})"
        )
    name = f"tailrisk_judge_{path.stem}_{sha256(str(path).encode()).hexdigest()[:12]}"
    loader = importlib.util.spec_from_file_location(name, path)
    assert loader is not None and loader.loader is not None, path
    module = importlib.util.module_from_spec(loader)
    _search_also(path.parent)
    # Dataclasses and pickling look a module up by name while it is still being executed.
    sys.modules[name] = module
    try:
        loader.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ConfigError(
            f"judge.function: {label!r}: loading {path} failed: {_place(error, path)}{_one_line(error)}; "
            "correct that file"
        ) from error
    return module


def _import(label: str, base: Path, where: str) -> ModuleType:
    _search_also(base)
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        missing = error.name or where
        if where == missing or where.startswith(f"{missing}."):
            raise ConfigError(
                f"judge.function: {label!r}: there is no module {missing!r} in {base} or among the installed "
                "packages; install it, or name a file: 'judge.py:name'"
            ) from error
        raise ConfigError(
            f"judge.function: {label!r}: {where!r} needs {missing!r}, which is not installed; install it"
        ) from error
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"judge.function: {label!r}: importing {where!r} failed: {_one_line(error)}; correct that module"
        ) from error


def _function(label: str, module: ModuleType, name: str) -> Callable[[str, str], Any]:
    found = getattr(module, name, None)
    if found is None:
        own = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        near = get_close_matches(name, own, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(own[:8]) or 'no functions'}"
        raise ConfigError(f"judge.function: {label!r}: no {name!r} in {module.__file__}; {hint}")
    if not callable(found):
        raise ConfigError(
            f"judge.function: {label!r}: {name!r} is a {type(found).__name__}, not a function; "
            "name a function f(prompt, response) -> float"
        )
    if inspect.iscoroutinefunction(found) or inspect.isgeneratorfunction(found):
        raise ConfigError(
            f"judge.function: {label!r}: {name!r} is an async function or a generator; "
            "make it a plain function that returns the score"
        )
    try:
        inspect.signature(found).bind("prompt", "response")
    except TypeError as error:
        raise ConfigError(
            f"judge.function: {label!r}: {name}{inspect.signature(found)} cannot be called as "
            f"f(prompt, response): {error}; give it two positional arguments"
        ) from error
    except ValueError:
        # Some built-in callables have no signature to look at; the first call will tell.
        pass
    return found


def _search_also(folder: Path) -> None:
    """At the end of the search path: a judge finds its neighbours but shadows no installed package."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _as_number(value: object) -> float | None:
    if isinstance(value, numbers.Real | np.bool_):
        return float(value)
    # Zero-dimensional arrays and tensors, without importing their libraries.
    item = getattr(value, "item", None)
    if getattr(value, "ndim", None) == 0 and callable(item):
        inner = item()
        return float(inner) if isinstance(inner, numbers.Real) else None
    return None


def _one_line(error: BaseException) -> str:
    text = " ".join("".join(traceback.format_exception_only(error)).split())
    return text.encode("utf-8", "replace").decode()[:ERROR_LENGTH]


def _place(error: BaseException, path: Path) -> str:
    """'line 12: ' of the user's own file, where the traceback knows it."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f"line {lines[-1]}: " if lines else ""
