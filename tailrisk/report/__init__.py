"""From a run folder to what people and machines read: a terminal table, and a report as HTML, JSON or Markdown.

Reads the run folder only and changes nothing in it but ``report.html``. Names and texts that come from
prompts or models are data: made visible (``report.clean``), escaped in HTML, never printed to a terminal.
"""

from tailrisk.report.html import render_report
from tailrisk.report.material import read_summary

__all__ = ["read_summary", "render_report"]
