"""Chapters in short: what the records say of a paper's claims, in a few lines with a
small picture.
"""

import html
from collections.abc import Sequence
from itertools import chain

from .. import papers
from ..errors import count
from ..evidence import records, units
from ..evidence.judged import Said, judged
from ..papers.spec import Paper
from .base import Shown, distinct, measured, sources
from .board import by_key, claim_rows, effect_cells, in_words, outcome_cell, outcomes
from .forest import forest
from .summary import accuracy, accuracy_cells, by_row, unchanged
from .tables import place_of

LINES = 4  # claims that are told one by one
DRAWN = 10  # and in the picture
# What stands there until claims can be judged.
SO_FAR = " Of their rows there are so far, on test images:"
# Why the best tries are no answer yet.
CHOSEN = (
    " These are the best tries of tuning, on the validation images that settings are"
    " chosen on, and so no results:"
)
# Told in this order: what a reader would not expect first.
FIRST = ("reversed", "no difference", "holds", "inconclusive", "not run")


def answer(paper: Paper, found: Sequence[dict], tries: Sequence[dict] = ()) -> Shown:
    """How many claims hold, the strongest evidence claim by claim, and a picture of the
    effects, from the published records of all papers. Where nothing can be judged yet,
    what the rows reached that have been run; without these what the best of the `tries`
    (records of tuning) reached on validation images.
    """
    mine = records.select(unchanged(found), paper=paper.key)
    said = list(judged([paper], mine))
    told = sorted(said, key=_rank)[:LINES]
    used: dict[str, dict] = {}
    lines = []
    for one in told:
        if one.verdict.effect and one.verdict.outcome != "not run":
            rows = claim_rows(one, mine)
            used |= by_key(chain(*rows))
            lines.append(_line(one, rows))
    opening = _opening(said)
    if not lines:
        finished = _finished(paper, mine)
        best: list[dict] = [] if finished else _best_tries(tries)
        used |= by_key(chain(best, *finished.values()))
        lines = _reached(finished) or list(map(_try, best))
        if lines:
            opening += SO_FAR if finished else CHOSEN
    listed = f"<ul>{''.join(lines)}</ul>" if lines else ""
    picture = _picture(said)
    return Shown(
        f'<div class="fgbook-answer"><div><p><b>The answer.</b> {opening}</p>{listed}'
        f"</div>{picture}{sources(list(used.values()))}</div>",
        opening,
    )


def _rank(said: Said) -> tuple[int, float]:
    """Decided claims first, and of these the clearest."""
    verdict = said.verdict
    p = verdict.p if verdict.p is not None else 1.0
    several = len(said.datasets or ()) > 1  # the mean over data sets says it for all
    return FIRST.index(verdict.outcome), p - (1.0 if several else 0.0)


def _opening(said: Sequence[Said]) -> str:
    """The counts, and where the evidence is from."""
    claims = len({one.verdict.claim.key for one in said})
    run = [one for one in said if one.verdict.outcome != "not run"]
    asked = count(claims, "claim")
    if not run:
        return (
            f"None of {asked} can be judged yet: the trainings that were fixed"
            " beforehand are not all there."
        )
    places = distinct(name for one in run for name in one.datasets or ())
    several = len({one.datasets for one in said}) > 1
    verdicts = ""
    if several:
        verdicts = (
            f", {count(len(said), 'verdict')} (one for each data set, and one for both"
            " together)"
        )
    return (
        f"{asked.capitalize()}{verdicts} on photographs ({html.escape(places)}):"
        f" {in_words(outcomes(said))}. The clearest:"
    )


def _line(said: Said, rows: tuple[list[dict], list[dict]]) -> str:
    """A claim, its outcome, and the effect with its records."""
    verdict, claim = said.verdict, said.verdict.claim
    cells = effect_cells(said, rows)
    if cells is None:
        return ""
    number, interval = cells
    printed = ""
    if claim.printed_effect is not None:
        printed = f"; printed {units.amount(claim.printed_effect, claim.metric)}"
    unit = html.escape(units.after(claim.metric))
    said_of = f"{outcome_cell(verdict)}: {html.escape(claim.text)}."
    key = f'<a href="#{place_of(claim)}">{html.escape(claim.key)}</a>'
    where = html.escape(" and ".join(said.datasets or ()))
    return f"<li>{key} {said_of} {number} {unit} ({interval}{printed}; {where}).</li>"


def _finished(paper: Paper, found: Sequence[dict]) -> dict[str, list[dict]]:
    """Row -> records on photographs, of the data set with most rows."""
    photo = records.select(list(found), profile="photo")
    names = [row.name for row in paper.rows]
    by_set = [
        by_row(records.select(photo, dataset=name), names)
        for name in sorted({record["dataset"] for record in photo})
    ]
    return max(by_set, key=len, default={})


def _reached(rows: dict[str, list[dict]]) -> list[str]:
    """The best of these rows, with their intervals."""
    among = list(chain(*rows.values()))
    best = sorted(rows, key=lambda name: -accuracy(rows[name], among)[0])
    lines = []
    for name in best[:LINES]:
        mean, interval = accuracy_cells(rows[name], among)
        where = html.escape(rows[name][0]["dataset"])
        seeds = count(len(rows[name]), "seed")
        about = f"{mean} % ({interval}; {where}, {seeds})"
        lines.append(f"<li><i>{html.escape(name)}</i>: {about}.</li>")
    return lines


def _best_tries(tries: Sequence[dict]) -> list[dict]:
    """Of each row the record with the highest accuracy on validation images, on the
    data set that has most of them.
    """
    by_set: dict[str, dict[str, dict]] = {}
    for record in tries:
        rows = by_set.setdefault(record["dataset"], {})
        best = rows.get(record["row"], record)
        rows[record["row"]] = max(best, record, key=_validated)
    fullest: dict[str, dict] = max(by_set.values(), key=len, default={})
    return sorted(fullest.values(), key=_validated, reverse=True)[:LINES]


def _validated(record: dict) -> float:
    return float(record["metrics"]["val"]["top1"])


def _try(record: dict) -> str:
    number = measured(f"{100 * _validated(record):.1f}", "val top1", [record])
    row, data = html.escape(record["row"]), html.escape(record["dataset"])
    return f"<li><i>{row}</i>: {number} % of validation images ({data}, one try).</li>"


def _picture(said: Sequence[Said]) -> str:
    """The effects in points on the data set with the most of them; "" where none was
    measured.
    """
    by_place: dict[tuple[str, ...], list] = {}
    for one in said:
        verdict = one.verdict
        in_points = units.unit(verdict.claim.metric) is units.POINTS
        if in_points and verdict.effect and verdict.outcome != "not run":
            by_place.setdefault(one.datasets or (), []).append(verdict)
    if not by_place:
        return ""
    place, judged_there = max(by_place.items(), key=lambda item: len(item[1]))
    judged_there.sort(key=lambda v: -abs(v.effect.effect))
    kept = {id(v) for v in judged_there[:DRAWN]}
    drawn = [one.verdict for one in said if id(one.verdict) in kept]
    left_out = len(judged_there) - len(drawn)
    more = f" {left_out} smaller effects are left out." if left_out else ""
    return (
        f'<figure class="fgbook-small">{forest(drawn).html}<figcaption>Effects in'
        f" points on {html.escape(' and '.join(place))}: dots with 95 % intervals, on"
        " the claim's side right of the line; diamonds as printed, triangles where that"
        f" lies beyond the axis.{more}"
        "</figcaption></figure>"
    )


def chapter(name: str, found: Sequence[dict]) -> Shown:
    """The same for the paper of that key, from all published records."""
    results = records.select(list(found), purpose="result")
    tries = records.select(list(found), purpose="tuning", paper=name)
    return answer(papers.get(name), results, tries)
