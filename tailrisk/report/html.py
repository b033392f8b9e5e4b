"""``report.html``: one self-contained page from a run folder; no network, no script but a small sorter.

Every foreign text goes through ``clean.visible`` and the template's automatic escaping. A content security
policy names the hash of the page's only script, so that markup which slipped through could still run nothing.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from tailrisk.garbage import collected_seldom
from tailrisk.records import Status
from tailrisk.report import tables
from tailrisk.report.clean import visible
from tailrisk.report.judge import FLOOR_TRUTHS, VERDICTS
from tailrisk.report.material import Material, gather
from tailrisk.report.sections import Report, report_of
from tailrisk.store.atomic import replacing


def render_report(
    run_folder: Path,
    *,
    redact: bool = False,
    summary: Mapping[str, Any] | None = None,
    out: Path | None = None,
) -> Path:
    """Write ``report.html`` into the run folder, or ``out``, and return its path.

    ``redact`` puts a hash and a length in place of every answer. ``summary`` is what estimates.json holds;
    give it for a run that has none yet because it is still going on.

    Raises:
        StoreError: not a run folder, no estimates yet, or a damaged log.
    """
    with collected_seldom():
        material = gather(run_folder, redact=redact, summary=summary)
        text = page(material, report_of(material))
    path = material.folder / "report.html" if out is None else out
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def page(m: Material, report: Report) -> str:
    """The whole page; each section's template finds its view under the name that it has in ``Report``."""
    script = _asset("page.js")
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            **vars(report),
            style=_asset("style.css"),
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            config=m.config,
            totals=m.totals,
            rows=m.shown,
            method=m.method,
            version=visible(m.manifest.versions.get("tailrisk", "")),
            floor_truths=FLOOR_TRUTHS,
            verdicts=VERDICTS,
            clean=visible,
            t=tables,
            Status=Status,
        )
    )


def _asset(name: str) -> str:
    return resources.files("tailrisk.report").joinpath("templates", name).read_text(encoding="utf-8")


def _template(name: str) -> str | None:
    """None where there is no such template."""
    place = resources.files("tailrisk.report").joinpath("templates", name)
    return place.read_text(encoding="utf-8") if place.is_file() else None


@functools.cache
def _environment() -> Any:
    """Templates are compiled once a process."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
