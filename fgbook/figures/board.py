"""The verdict board: what the records say of every claim of the papers, on one page.
Links are written as ``page:book/feng#verdicts`` and become addresses when the page that
shows the board is built (``book/_ext/shown.py``).
"""

import html
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain

from .. import papers
from ..errors import count, enumerated
from ..evidence import records, units
from ..evidence.judged import Said, judged
from ..evidence.verdicts import OUTCOMES, Verdict, holds
from ..papers.spec import Paper
from .base import Shown, measured, sources, without_tags
from .forest import scale, strip, unit
from .summary import left_out, of_row, unchanged
from .tables import effect_field, place_of

CHAPTERS = ("golodov", "feng", "gautam", "liang", "peng")
"""The papers in the order of the book; the comparison's questions are ours."""

MEANT = {
    "holds": "the whole 95 % interval lies on the claim's side, also with allowance for"
    " all claims of the paper that are judged at once",
    "reversed": "it lies on the other side, also with that allowance",
    "no difference": "it contains zero, and the 90 % interval lies within a margin that"
    " was fixed before any run: 1 point, or half of the printed effect where that is"
    " larger. So where much is printed it means far less than that, not nothing",
    "inconclusive": "anything else, also an interval that leaves out zero as long as"
    " its claim is judged alone, but not among all; more seeds or images could tell",
    "not run": "not all trainings that were fixed beforehand are there",
}


def judged_papers(found: Sequence[dict]) -> dict[str, list[Said]]:
    """Key of a paper -> the verdicts on its claims, in the order of the book."""
    grouped = {}
    for name in CHAPTERS:
        grouped[name] = list(judged([papers.get(name)], found))
    return grouped


def outcomes(said: Iterable[Said]) -> dict[str, int]:
    """How often each outcome occurs, in the order of OUTCOMES, without zeros."""
    counted = Counter(one.verdict.outcome for one in said)
    return {name: counted[name] for name in OUTCOMES if counted[name]}


def in_words(counts: dict[str, int]) -> str:
    """As "8 hold, 5 inconclusive"."""
    said = []
    for name, number in counts.items():
        word = "hold" if name == "holds" and number != 1 else name
        said.append(f"{number} {word}")
    return ", ".join(said)


def authors(paper: Paper) -> str:
    """The last names: "Feng, Fu and Zhao"."""
    names = [name.split()[-1] for name in paper.authors.split(", ")]
    return enumerated(names)


# ---- the summary


def counts_table(grouped: dict[str, list[Said]]) -> Shown:
    """A line a paper: how many of the verdicts on its claims are which outcome."""
    heads = "".join(map(HEAD.format, OUTCOMES))
    lines = []
    for name, said in grouped.items():
        about, counts = papers.get(name), outcomes(said)
        cells = [
            f'<th scope="row"><a href="page:book/{name}">'
            f"{html.escape(authors(about))}</a></th>"
        ]
        for outcome in OUTCOMES:
            number = counts.get(outcome, 0)
            shade = f' class="{_slug(outcome)}"' if number else ""
            cells.append(f'<td{shade} data-label="{outcome}">{number or "–"}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    total = totals(grouped)
    head = f'<thead><tr><th scope="col">paper</th>{heads}</tr></thead>'
    return Shown(
        '<figure class="fgbook-counts"><figcaption>'
        f"{html.escape(total)}</figcaption><table>{head}<tbody>"
        f"{''.join(lines)}</tbody></table></figure>",
        total,
    )


def totals(grouped: dict[str, list[Said]]) -> str:
    """How many verdicts there are, on how many claims, and which."""
    said = list(chain.from_iterable(grouped.values()))
    claims = {(one.paper.key, one.verdict.claim) for one in said}
    ours = sum(claim.is_ours for _, claim in claims)
    verdicts = count(len(said), "verdict")
    text = f"{verdicts} on {count(len(claims), 'claim')} of {len(grouped)} papers"
    if ours:
        are = "is a control" if ours == 1 else "are controls"
        text += f" ({ours} of the claims {are} of our own)"
    text += f": {in_words(outcomes(said))}."
    if len(said) > len(claims):
        text += (
            " A claim that was run on two data sets has a verdict on each, and one on"
            " both together."
        )
    return text


def meanings() -> str:
    """What each outcome means, in one sentence as HTML."""
    words = [f"<b>{name}</b>: {meant}" for name, meant in MEANT.items()]
    return f"{'. '.join(words)}."


def outcomes_text() -> Shown:
    """The same as a paragraph of a chapter."""
    text = meanings()
    return Shown(f'<p class="fgbook-legend">{text}</p>', without_tags(text))


def legend() -> str:
    """What each outcome, sign and unit means, as HTML."""
    return (
        f'<p class="fgbook-legend">{meanings()}</p><p class="fgbook-legend">A dot is'
        " the measured effect with its 95 % interval, to the right of the line where it"
        " is on the claim's side; a diamond is what the paper prints, a triangle if"
        f" that lies beyond the axis. {units.LEGEND}</p>"
    )


def _slug(outcome: str) -> str:
    return outcome.replace(" ", "-")


# ---- the board


def board(grouped: dict[str, list[Said]], found: Sequence[dict]) -> Shown:
    """Every verdict: a table a paper, each with the records that it comes from."""
    parts, texts = [legend()], []
    for name, said in grouped.items():
        mine = records.select(list(found), paper=name)
        parts.append(_paper(papers.get(name), said, mine))
        texts.append(f"{name}: {in_words(outcomes(said))}")
    return Shown(f'<div class="fgbook-board">{"".join(parts)}</div>', "\n".join(texts))


HEAD = '<th scope="col">{}</th>'
SEEDS = "seeds × images"
HEADS = ("claim", "outcome", "effect", "printed", SEEDS, "data")


def _paper(paper: Paper, said: Sequence[Said], mine: Sequence[dict]) -> str:
    """The claims of a paper, unfolded."""
    alike: dict[str, list[Verdict]] = defaultdict(list)
    for one in said:
        alike[unit(one.verdict.claim)].append(one.verdict)
    kept = unchanged(mine)
    used: dict[str, dict] = {}
    lines = []
    for one in said:
        rows = claim_rows(one, kept)
        used |= by_key(chain(*rows))
        lines.append(_line(one, rows, scale(alike[unit(one.verdict.claim)])))
    heads = "".join(map(HEAD.format, HEADS))
    title = f"{html.escape(authors(paper))}: {in_words(outcomes(said))}"
    caption = f'<a href="page:book/{paper.key}#in-short">The chapter in short</a>.'
    caption += html.escape(left_out(mine))
    return (
        f'<details class="fgbook-paper" id="board-{paper.key}" open>'
        f"<summary>{title}</summary>"
        f'<figure class="fgbook-table"><figcaption>{caption}</figcaption>'
        f'<div tabindex="0"><table class="verdicts"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        f"{sources(list(used.values()))}</figure></details>"
    )


def by_key(found: Iterable[dict]) -> dict[str, dict]:
    """Key -> record."""
    return {record["key"]: record for record in found}


def _is_of(record: dict, said: Said) -> bool:
    """Whether a record is of the profile and the data that a verdict is about."""
    if said.datasets is None:
        return False
    return record["profile"] == said.profile and record["dataset"] in said.datasets


def claim_rows(said: Said, kept: Sequence[dict]) -> tuple[list[dict], list[dict]]:
    """Of the paper's records those that a verdict comes from: of the better row and of
    the worse one, where they hold the claim's metric.
    """
    claim = said.verdict.claim
    here = [record for record in kept if _is_of(record, said)]

    def row(name: str, metric: str) -> list[dict]:
        return [record for record in of_row(here, name) if holds(record, metric)]

    worse_metric = claim.worse_metric or claim.metric
    return row(claim.better, claim.metric), row(claim.worse, worse_metric)


def _line(said: Said, rows: tuple[list[dict], list[dict]], reach: float) -> str:
    verdict, claim = said.verdict, said.verdict.claim
    place = f"page:book/{said.paper.key}#{place_of(claim)}"
    cells = {
        "claim": f'<a href="{place}"><b>{html.escape(claim.key)}</b></a>'
        f" {html.escape(claim.text)}",
        "outcome": outcome_cell(verdict),
        "effect": _effect(said, rows, reach),
        "printed": _printed(verdict),
        SEEDS: "–",
        "data": _data(said),
    }
    if verdict.effect and verdict.outcome != "not run":
        effect = verdict.effect
        cells[SEEDS] = f"{effect.seeds_text} × {effect.images}"
    made = []
    for name, cell in cells.items():
        mark = f' class="outcome {_slug(verdict.outcome)}"' if name == "outcome" else ""
        made.append(f'<td{mark} data-label="{name}">{cell}</td>')
    return f"<tr>{''.join(made)}</tr>"


def outcome_cell(verdict: Verdict) -> str:
    """The word, and for "no difference" what is small enough for that."""
    word = f"<b>{verdict.outcome}</b>"
    if verdict.outcome != "no difference":
        return word
    return f"{word} {units.within(verdict.claim)}"


def effect_cells(
    said: Said, rows: tuple[list[dict], list[dict]]
) -> tuple[str, str] | None:
    """The effect and its interval as HTML with their records; None where there is
    none.
    """
    verdict, effect = said.verdict, said.verdict.effect
    if effect is None or verdict.outcome == "not run":
        return None
    field = effect_field(verdict.claim)
    if len(said.datasets or ()) > 1:
        field = field.replace("effect", "across", 1)
    metric = verdict.claim.metric
    number = units.number(effect.effect, metric)
    interval = units.interval(effect.low, effect.high, metric)
    return (
        measured(number, field, *rows),
        measured(interval, f"{field} interval", *rows),
    )


def _effect(said: Said, rows: tuple[list[dict], list[dict]], reach: float) -> str:
    """Picture, number, unit and interval."""
    picture = strip(said.verdict, reach)
    found = effect_cells(said, rows)
    if found is None:
        return picture or "–"
    number, interval = found
    of_unit = units.after(said.verdict.claim.metric)
    return f"{picture}{number} {html.escape(of_unit)} ({interval})"


def _printed(verdict: Verdict) -> str:
    """The printed effect, and whether its size is compatible with what was measured."""
    printed = verdict.claim.printed_effect
    if printed is None:
        return "–"
    size = verdict.size_text
    said = f": {size}" if size else ""
    return units.amount(printed, verdict.claim.metric) + said


def _data(said: Said) -> str:
    """Names of the data, with a link to the records of the claim's rows."""
    if not said.datasets:
        return "–"
    claim = said.verdict.claim
    rows = "|".join(dict.fromkeys((claim.better, claim.worse)))
    asked = f"paper={said.paper.key} row={rows} data={'|'.join(said.datasets)}"
    address = f"page:book/numbers?find={html.escape(asked.replace(' ', '+'))}"
    name = html.escape(" and ".join(said.datasets))
    return f'<a href="{address}">{name}</a>'


WORDS = "What the words mean stands [there](book/index.md#words)."


def summary_text(grouped: dict[str, list[Said]]) -> str:
    """The counts as a Markdown table, with links to the chapters' sources."""
    lines = [
        f"| paper | {' | '.join(OUTCOMES)} |",
        "|---|" + "---:|" * len(OUTCOMES),
    ]
    for name, said in grouped.items():
        counts = outcomes(said)
        cells = [str(counts.get(outcome, 0) or "–") for outcome in OUTCOMES]
        title = f"[{authors(papers.get(name))}](book/{name}.md)"
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines.append("")
    lines += textwrap.wrap(f"{totals(grouped)} {WORDS}", 88, break_on_hyphens=False)
    return "\n".join(lines) + "\n"
