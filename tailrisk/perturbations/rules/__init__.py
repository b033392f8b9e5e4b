"""Perturbations by rule: harmless changes of a prompt's words or form that a person would hardly notice.

A rule takes a text and a source of chance and gives the changed text, or None where it has nothing to change. A new
kind is one function and one line here.
"""

from __future__ import annotations

from tailrisk.perturbations.rules import (
    casing,
    contractions,
    filler,
    frames,
    order,
    politeness,
    punctuation,
    quoting,
    typos,
)
from tailrisk.perturbations.rules.base import Rule

_ALL = (
    Rule("lower-case", casing.lower),
    Rule("upper-case", casing.upper),
    Rule("title-case", casing.title),
    Rule("neighbour-keys", typos.neighbour_keys),
    Rule("dropped-letters", typos.dropped_letters),
    Rule("doubled-letters", typos.doubled_letters),
    Rule("swapped-letters", typos.swapped_letters),
    Rule("please", politeness.please),
    Rule("thanks", politeness.thanks),
    Rule("impatience", politeness.impatience),
    Rule("clause-first", order.clause_first),
    Rule("sentences-turned", order.sentences_turned),
    Rule("question-frame", frames.question_frame),
    Rule("request-frame", frames.request_frame),
    Rule("no-end-mark", punctuation.no_end_mark),
    Rule("many-end-marks", punctuation.many_end_marks),
    Rule("no-commas", punctuation.no_commas),
    Rule("wide-spaces", punctuation.wide_spaces),
    Rule("line-breaks", punctuation.line_breaks),
    Rule("contracted", contractions.contracted),
    Rule("written-out", contractions.written_out),
    Rule("quoted", quoting.quoted),
    Rule("filler", filler.fillers),
)
RULES = {rule.kind: rule for rule in _ALL}
"""Kind -> its rule, in the order in which they are applied."""
