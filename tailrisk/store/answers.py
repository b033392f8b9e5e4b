"""The texts of some draws, read from the log: the driver keeps numbers only."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tailrisk.store.log import read_log

_HEAD = re.compile(rb'\{"kind":"batch","payload":\{"batch":\[("(?:[^"\\]|\\.)*"),(\d+),(\d+),')


def texts_of(folder: Path, wanted: Mapping[str, Sequence[int]]) -> dict[str, list[str]]:
    """Batch key -> the texts of these of its draws, in their order. Other batches are checked, but not parsed."""

    def asked_for(body: bytes) -> bool:
        match = _HEAD.match(body)
        if match is None:
            return True
        return f"{json.loads(match[1])}/{int(match[2])}/{int(match[3])}" in wanted

    found: dict[str, list[str]] = {}
    for _, payload in read_log(folder, {"batch"}, asked_for):
        prompt_id, component, index = payload["batch"][:3]
        key = f"{prompt_id}/{component}/{index}"
        if key in wanted and key not in found:
            found[key] = [payload["texts"][i] for i in wanted[key]]
    return found
