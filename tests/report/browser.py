"""A report's page in a real browser: no errors, no requests, nothing that axe-core objects to, light and dark.

    python tests/report/browser.py PAGE [FOLDER_FOR_PICTURES]

Needs chromium (Debian: apt-get install chromium) and axe-core (npm install --prefix /tmp/axe axe-core), whose file may
be named by AXE_CORE. The page is looked at as it is, and with all folded parts open, at 1100 pixels. Chromium is spoken
to through its own protocol on a pipe, so nothing listens on the network.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

AXE = Path(os.environ.get("AXE_CORE", "/tmp/axe/node_modules/axe-core/axe.min.js"))
WIDTH = 1100
WAIT = 240.0


def chromium() -> str | None:
    """The browser's program, where there is one."""
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))),
        None,
    )


class Browser:
    """One tab, by the DevTools protocol: ``call`` a method, and look at the ``events`` that came."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = send, receive
        self._buffer, self._number = b"", 0
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session: str | None = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]

    session: str | None = None

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + WAIT
        while time.monotonic() < until:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)
        raise TimeoutError(method)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._receive], [], [], WAIT)[0]:
                raise TimeoutError("the browser says nothing")
            data = os.read(self._receive, 1 << 16)
            if not data:
                raise RuntimeError("the browser has gone")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page, awaited."""
        done = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            raise RuntimeError(str(done["exceptionDetails"]))
        return done["result"].get("value")


@contextmanager
def browser() -> Iterator[Browser]:
    program = chromium()
    assert program is not None, "no chromium"
    to_read, to_write = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory() as profile:

        def as_three_and_four() -> None:
            # By way of high numbers: the pipes' own may be 3 and 4.
            ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 100) for end in (to_read[0], to_write[1])]
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        words = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--disable-dev-shm-usage",
        ]
        process = subprocess.Popen(
            [program, *words, "--remote-debugging-pipe", f"--user-data-dir={profile}"],
            preexec_fn=as_three_and_four, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read[0])
        os.close(to_write[1])
        try:
            yield Browser(to_read[1], to_write[0])
        finally:
            process.terminate()
            process.wait(30)
            for end in (to_read[1], to_write[0]):
                os.close(end)


def look(page: Path, pictures: Path | None = None) -> dict[str, Any]:
    """What was found: console ``errors``, ``requests`` beside the page itself, ``violations`` by axe-core as ``state:
    rule: where``, the numbers of ``figures`` and ``sections``, and whether a click ``sorted`` the first table."""
    found: dict[str, Any] = {"errors": [], "requests": [], "violations": []}
    with browser() as tab:
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        tab.call(
            "Emulation.setDeviceMetricsOverride", width=WIDTH, height=900, deviceScaleFactor=1, mobile=False
        )
        tab.call("Page.navigate", url=page.resolve().as_uri())
        while tab.evaluate("document.readyState") != "complete":
            time.sleep(0.1)
        found["sections"] = tab.evaluate("document.querySelectorAll('main > section').length")
        found["figures"] = tab.evaluate("document.querySelectorAll('svg.figure').length")
        found["wide"] = tab.evaluate("document.documentElement.scrollWidth > innerWidth")
        found["sorted"] = tab.evaluate(
            "(() => { const b = document.querySelector('table.sortable th button'); b.click();"
            " return b.parentNode.getAttribute('aria-sort') })()"
        )
        tab.evaluate(AXE.read_text(encoding="utf-8") + ";0")
        for opened in (False, True):
            if opened:
                tab.evaluate("document.getElementById('folds').click()")
            for scheme in ("light", "dark"):
                features = [{"name": "prefers-color-scheme", "value": scheme}]
                tab.call("Emulation.setEmulatedMedia", features=features)
                state = f"{scheme}{', open' if opened else ''}"
                rules = tab.evaluate(
                    "axe.run(document).then(r => r.violations.map(v => [v.id, v.nodes.map(n => n.html)]))"
                )
                found["violations"] += [
                    f"{state}: {rule}: {nodes[0][:200]} ({len(nodes)})" for rule, nodes in rules
                ]
                if pictures is not None and not opened:
                    _pictures(tab, pictures, scheme)
        tab.evaluate("0")
        for event in tab.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Network.requestWillBeSent" and not params["request"]["url"].startswith(
                page.resolve().as_uri()
            ):
                found["requests"].append(params["request"]["url"])
            if method == "Runtime.exceptionThrown" or (
                method == "Log.entryAdded" and params["entry"]["level"] == "error"
            ):
                found["errors"].append(json.dumps(params)[:500])
            if method == "Runtime.consoleAPICalled" and params["type"] == "error":
                found["errors"].append(json.dumps(params)[:500])
    return found


def _pictures(tab: Browser, folder: Path, scheme: str) -> None:
    """One of every figure, and one of the top of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    boxes = tab.evaluate(
        "[...document.querySelectorAll('.exhibit'), document.getElementById('headline')].map(e => {"
        " const b = e.getBoundingClientRect(); return [e.id, b.x + scrollX, b.y + scrollY, b.width, b.height] })"
    )
    for name, x, y, width, height in boxes:
        clip = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
        made = tab.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        (folder / f"{name}-{scheme}.png").write_bytes(base64.b64decode(made["data"]))


if __name__ == "__main__":
    result = look(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    print(json.dumps(result, indent=1))
    sys.exit(bool(result["errors"] or result["requests"] or result["violations"]))
