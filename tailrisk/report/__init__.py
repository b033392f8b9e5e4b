"""From a run folder to what people read: a terminal table and one self-contained HTML page.

Reads the run folder only and changes nothing in it but ``report.html``. Names and texts that come from
prompts or models are data: made visible (``report.clean``), escaped in HTML, never printed to a terminal.
"""

from tailrisk.report.html import render_report

__all__ = ["render_report"]
