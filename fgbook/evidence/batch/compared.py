"""What the report of a comparison says besides its runs: the advice, the table of rows,
and what was planned.
"""

import contextlib
import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from ...errors import InputError
from ...evaluation import cost
from ...papers.spec import Paper
from ...training import devices
from .. import advice, models, records, sortable
from ..advice import Advice, Difference, Line
from ..estimate import duration
from ..plan import Run
from .grid import Entry
from .report import Extra

TIMES = "times.json"  # of predictions, beside the report
REPEATS = 7  # timed predictions, of which the median counts

# Of a drawn interval, in its own units.
WIDTH, HEIGHT, DOT = 180, 16, 3.5

STYLE = """
body { max-width: 80rem; } h1 { overflow-wrap: anywhere; }
figure table { font-size: .85rem; }
figure th, figure td { padding: .3rem .45rem; }
td:first-child { min-width: 8rem; }
.advice { border-left: .3rem solid var(--good); padding: .2rem 1rem; }
.undecided { border-color: var(--line); }
figure { margin: 1rem 0; } figcaption { margin-bottom: .5rem; }
tr[hidden] { display: none; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
th[aria-sort="ascending"] button::after { content: " \\25B2"; }
th[aria-sort="descending"] button::after { content: " \\25BC"; }
.fgbook-find { display: flex; flex-wrap: wrap; gap: .5rem 1rem; margin-bottom: .6rem; }
.fgbook-find .sort { display: none; } .fgbook-find input { width: 17rem; }
td { white-space: nowrap; } td:first-child { white-space: normal; }
.better { color: var(--good); } .worse { color: var(--bad); }
svg.interval { width: 8rem; max-width: none; }
.interval rect { fill: var(--line); opacity: .5; }
.interval .zero { stroke: var(--line); } .interval .whole { stroke: currentColor; }
.interval circle { fill: currentColor; }
"""


@dataclass(frozen=True)
class Comparison:
    """A call of `fgbook compare`: its runs and what was said before them."""

    paper: Paper
    entries: Sequence[Entry]
    margin: float  # points
    dataset: str
    said: Sequence[str]  # the plan: data, split, settings
    left_out: Sequence[str]  # rows that do not fit into the budget
    place: Path
    device: str | None = None
    # the margin that was fixed before the runs; None: some were there already
    begun_with: float | None = None

    def found(self) -> dict[str, list[dict]]:
        """Row -> records, so far."""
        rows: dict[str, list[dict]] = {}
        for entry in self.entries:
            for record in entry.found():
                rows.setdefault(record["row"], []).append(record)
        return rows

    def lines(self) -> list[Line]:
        """The table, so far."""
        return advice.lines(self.paper, self.found(), self.margin)

    def advice(self) -> Advice:
        """What to use, so far."""
        return advice.advise(self.found(), self.margin)

    def rule(self) -> str:
        """How the advice is found, and when its margin was fixed."""
        return advice.rule(self.margin, self.begun_with)

    def left(self) -> int:
        """Runs without a record."""
        return sum(entry.record is None for entry in self.entries)

    def extra(self, over: bool) -> Extra:
        """What the report says besides its runs; the advice only when no more is
        run.
        """
        lines = self.lines()
        times = milliseconds(self) if over else {}
        advised = self.advice() if over else None
        parts = [f"<style>{STYLE}</style>\n"]
        if advised is not None:
            parts.append(_advice(advised, self))
        parts.append(_table(lines, times, self))
        parts.append(_plan(self))
        parts.append(sortable.script())
        return Extra(
            f"Comparison on {self.dataset}",
            "".join(parts),
            self._facts(lines, times, advised),
        )

    def _facts(
        self, lines: Sequence[Line], times: Mapping[str, float], advised: Advice | None
    ) -> dict:
        """For programs."""
        return {
            "dataset": self.dataset,
            "margin": self.margin,
            "margin_begun_with": self.begun_with,
            "plan": list(self.said),
            "left_out": list(self.left_out),
            "rule": self.rule(),
            "advice": asdict(advised) if advised else None,
            "rows": [
                asdict(line) | {"milliseconds": times.get(line.row)} for line in lines
            ],
        }


# ---- how long a prediction takes


def milliseconds(comparison: Comparison) -> dict[str, float]:
    """Row -> ms that its trained model takes for one image, one at a time; without the
    rows whose model is not here. Measured once, and kept beside the report.
    """
    path = comparison.place / TIMES
    try:
        kept = records.read_json(path)
    except (OSError, ValueError):
        kept = {}
    times = {}
    for entry in comparison.entries:
        run = entry.run
        if entry.record is None or run.row in times:
            continue
        if run.key not in kept:
            with contextlib.suppress(InputError):  # the model is not here
                kept[run.key] = _milliseconds(run, comparison.device)
        if run.key in kept:
            times[run.row] = kept[run.key]
    kept.pop(records.DIGEST, None)
    with FileLock(f"{path}.lock"):
        records.write_json(path, kept)
    return times


def _milliseconds(run: Run, device: str | None) -> float:
    about = models.read(run.folder)
    models.check_weights(run.folder, about)
    network = models.build(about, run.folder, device or devices.default_device())
    seconds = cost.prediction_seconds(network, run.recipe.image_size, REPEATS)
    return round(1000 * float(np.median(seconds)), 2)


# ---- for people


def _advice(advised: Advice, comparison: Comparison) -> str:
    kind = "advice" if advised.decided else "advice undecided"
    so_far = standing(comparison)
    return (
        f'<div class="{kind}"><p><strong>{_text(so_far + advised.sentence)}</strong>'
        f"</p><p>{_text(comparison.rule())}</p></div>\n"
    )


def standing(comparison: Comparison) -> str:
    """What stands before an advice that not all runs could be heard for."""
    left = comparison.left()
    if not left:
        return ""
    total = len(comparison.entries)
    return f"So far, from {total - left} of {total} runs: "


# Heading -> whether its cells are numbers.
COLUMNS = {
    "method": False,
    "row": False,
    "seeds": True,
    "accuracy, %": True,
    "95 % interval": True,
    "minus plain": True,
    "joint interval": True,
    "outcome": False,
    "training": True,
    "GFLOP": True,
    "M parameters": True,
    "ms an image": True,
}


def cells(line: Line, times: Mapping[str, float]) -> list[str]:
    """What a row of the table says, in the order of :data:`COLUMNS`."""
    mean, low, high = line.accuracy
    effect = interval = "–"
    if line.difference is not None:
        effect = f"{line.difference.effect:+.1f}"
        interval = f"{line.difference.low:+.1f} to {line.difference.high:+.1f}"
    milliseconds = times.get(line.row)
    return [
        line.title,
        line.row,
        str(line.seeds),
        f"{mean:.1f}",
        f"{low:.1f} to {high:.1f}",
        effect,
        interval,
        line.outcome or "–",
        duration(line.seconds),
        f"{line.flops / 1e9:.3g}",
        f"{line.parameters / 1e6:.3g}",
        "–" if milliseconds is None else f"{milliseconds:.3g}",
    ]


def caption(comparison: Comparison) -> str:
    """What the table holds."""
    return (
        "Top-1 accuracy on the test pictures with its 95 % interval over trainings and"
        " pictures; difference to the plain backbone in points, with intervals that"
        " hold together for all methods. Outcome: better or worse where its interval"
        f" leaves out 0, no difference where it lies within {comparison.margin:g}"
        " points. Training of one run; operations and time of predicting one image."
    )


def _table(
    lines: Sequence[Line], times: Mapping[str, float], comparison: Comparison
) -> str:
    if not lines:
        return ""
    heads = []
    for name, is_number in COLUMNS.items():
        kind = ' class="number"' if is_number else ""
        heads.append(f"<th{kind}>{_text(name)}</th>")
        if name == "joint interval":
            heads.append("<th>drawn</th>")
    drawn = _Drawn([line.difference for line in lines], comparison.margin)
    body = "".join(_line(line, times, drawn) for line in lines)
    return (
        "<h2>Methods</h2>\n"
        '<figure data-sortable="pmg, or outcome=better|inconclusive">'
        f"<figcaption>{_text(caption(comparison))}</figcaption>"
        '<div class="wide" tabindex="0"><table>\n'
        f"<thead><tr>{''.join(heads)}</tr></thead>\n"
        f"<tbody>{body}</tbody></table></div></figure>\n"
    )


class _Drawn:
    """Intervals of differences over one scale, whose middle is 0; grey: the margin."""

    def __init__(self, differences: Sequence[Difference | None], margin: float):
        ends = [margin]
        for one in differences:
            if one is not None:
                ends += [abs(one.low), abs(one.high)]
        self.reach = 1.05 * max(ends)
        self.margin = margin

    def place(self, points: float) -> float:
        """In the picture, from the left."""
        return round(WIDTH / 2 * (1 + points / self.reach), 1)

    def picture(self, difference: Difference | None) -> str:
        """As SVG; the numbers stand beside it."""
        if difference is None:
            return "–"
        low, high = self.place(difference.low), self.place(difference.high)
        left, right = self.place(-self.margin), self.place(self.margin)
        middle = HEIGHT / 2
        return (
            f'<svg class="interval" viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true"'
            f' data-sort="{difference.effect}">'
            f'<rect x="{left}" width="{right - left:.1f}" height="{HEIGHT}"/>'
            f'<path class="zero" d="M{WIDTH / 2} 0V{HEIGHT}"/>'
            f'<path class="whole" d="M{low} {middle}H{high}"/>'
            f'<circle cx="{self.place(difference.effect)}" cy="{middle}" r="{DOT}"/>'
            "</svg>"
        )


def _line(line: Line, times: Mapping[str, float], drawn: _Drawn) -> str:
    said = []
    for name, text in zip(COLUMNS, cells(line, times), strict=True):
        if name == "training":  # in differing units
            text = f'<span data-sort="{line.seconds}">{_text(text)}</span>'
        else:
            text = _text(text)
        kind = ' class="number"' if COLUMNS[name] else ""
        if name == "outcome" and line.outcome in ("better", "worse"):
            kind = f' class="{line.outcome}"'
        said.append(f"<td{kind}>{text}</td>")
        if name == "joint interval":
            said.append(f"<td>{drawn.picture(line.difference)}</td>")
    return f"<tr>{''.join(said)}</tr>\n"


def _plan(comparison: Comparison) -> str:
    said = "".join(f"<li>{_text(line)}</li>\n" for line in comparison.said)
    return f"<h2>Plan</h2>\n<ul>{said}</ul>\n"


def _text(value: object) -> str:
    return html.escape(str(value))


# ---- for a terminal


def told(comparison: Comparison) -> list[tuple[str, ...]]:
    """The table's lines, the titles first; nothing where nothing has run."""
    lines = comparison.lines()
    if not lines:
        return []
    times = milliseconds(comparison)
    titles = tuple(COLUMNS)
    table = [titles, *(tuple(cells(line, times)) for line in lines)]
    return [line[1:] for line in table]  # a terminal is narrow: rows by name only
