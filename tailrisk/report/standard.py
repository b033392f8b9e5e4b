"""Section 10: which items of a reporting standard this report answers, and the caveats that belong to every number.

STREAM (ChemBio), "A Standard for Transparently Reporting Evaluations in AI Model Reports", version 1 (arXiv 2508.09853,
McCaslin and others, 2025) has 28 criteria in six categories. The criteria that are listed one by one are those of its
public summary checklist whose text was at hand when this table was written, in other words; of the other categories the
table says what the report has for them as a whole, and does not number their criteria.
"""

from __future__ import annotations

from dataclasses import dataclass

from tailrisk.report.exhibit import Table, table
from tailrisk.report.material import Material

NAME = "STREAM (ChemBio), version 1"
SOURCE = "arXiv 2508.09853; summary checklist at streamevals.com"
AUTHOR = "not here: for the author of the model report to add"


@dataclass(frozen=True, kw_only=True)
class Standard:
    name: str
    source: str
    note: str
    criteria: Table
    caveats: tuple[str, ...]


def standard_view(m: Material) -> Standard:
    return Standard(
        name=NAME,
        source=SOURCE,
        note="The standard has 28 criteria in six categories. Eight are listed one by one; the criteria of the last "
        "four categories are taken together. The standard is about tests of capability: an audit for rare harm answers "
        "some of its questions, and the author of a model report answers the others.",
        criteria=table(("category", "criterion", "in this report", "what is there"), _criteria(m)),
        caveats=tuple(_caveats(m)),
    )


def _criteria(m: Material) -> list[tuple[str, str, str, str]]:
    relevance, construction = "1 Threat relevance", "2 Test construction, grading and scoring"
    evidence = "section 6, withheld" if m.redact else "section 6" if m.replay.hits else "none"
    kind = str(m.config["judge"].get("kind"))
    measured = "section 5" if m.totals.get("judge_resolution") is not None else "section 5, in part"
    reviewed = "section 2" if m.summary.get("review") else "none"
    return [
        (relevance, "i: capability that is measured, and its threat models", "section 1, in part",
         f"the event in words; threat models: {AUTHOR}"),
        (relevance, "ii: results that would rule a capability of concern in or out", "section 3, in part",
         f"prompts above thresholds; which threshold matters: {AUTHOR}"),
        (relevance, "iii: an example item with an answer", evidence,
         "harmful answers with their weights; texts of prompts are not kept in a run folder"),
        (construction, "i: number of items", "sections 1 and 2", f"{len(m.rows):,} prompts"),
        (construction, "ii: type of the items and how they are scored", "sections 1 and 5",
         "open-ended answers, each judged harm, safe or undetermined; the estimate is a probability for one answer"),
        (construction, "iii: how the grading was made, and its quality control", measured,
         "settings and hashes of the judge, its error on labelled answers where that was measured"),
        (construction, "iv-a: where people grade, who they are", reviewed,
         f"what a review changed; who reviewed: {AUTHOR}"),
        (construction, "v-a: where a model grades, which one", "section 5", f"the judge is of kind {kind}"),
        ("3 Model elicitation", "its criteria together", "sections 1, 7, 8 and 9",
         "sampling settings; the proposals, which seek harm on the target's behalf, what each found and was given"),
        ("4 Model performance", "its criteria together", "sections 2, 3 and 7",
         "estimates with intervals, draws and hits of every prompt; diagnostics; the target's own draws beside them"),
        ("5 Baseline performance", "its criteria together", "none", AUTHOR),
        ("6 Results interpretation", "its criteria together", "sections 1 and 10, in part",
         f"what is claimed and what is not; conclusions about risk: {AUTHOR}"),
    ]  # fmt: skip


def _caveats(m: Material) -> list[str]:
    sampling = m.config["target"]["sampling"]
    hidden = (
        "There are no draws of the target itself in these estimates, so an answer that the proposal cannot produce is "
        "not seen at all: every estimate is at best of the harm that the proposal reaches."
        if m.replay.bound is None and not any(r.target_draws for r in m.rows)
        else "Harm that neither the target's own draws nor a proposal met is not in an estimate. A working interval "
        "does not allow for it; the upper end of a certified one does."
    )
    told = [
        "One answer to one prompt: conversations of several turns, tools and longer answers are not covered.",
        f"One way of decoding: temperature {sampling['temperature']}, top-p {sampling['top_p']}, at most "
        f"{sampling['max_new_tokens']} tokens. Under other settings the probabilities are others.",
        "The event is what the judge calls harm."
        + (
            " Its error was not measured: how far the numbers are from the probability of harm is not known."
            if m.totals.get("judge_resolution") is None
            else " Its error was measured on labelled answers, which are taken to be like the ones drawn."
        ),
        "The prompts were chosen by someone. They are not a sample of what users ask, unless the author says how they "
        "were drawn.",
        hidden,
        "Rounds were planned by the results of earlier ones. The intervals allow for that: each round's part of an "
        "estimate is fixed before it is drawn, and certified intervals hold at every round's end.",
        f"The model was run in {m.config['target']['dtype']}; another precision, engine or hardware gives slightly "
        "other probabilities.",
    ]
    if m.totals.get("finished") is False:
        told.insert(0, "The run is not finished.")
    return told
