"""What became of a batch: a manifest for programs (JSON), and a page for people that is
one file, needs no network and no script, and follows the reader's light or dark theme.
What a comparison adds to both is in :mod:`fgbook.evidence.batch.compared`.
"""

import html
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from ... import paths
from .. import records
from ..estimate import duration
from ..plan import Run
from ..runs import under_its_name
from .grid import Entry, kinds
from .pace import in_words

PAGE = "report.html"
MANIFEST = "manifest.json"

# Of a drawn curve, in its own units.
WIDTH, HEIGHT, EDGE = 240, 72, 4

STYLE = """
:root { color-scheme: light dark; --line: #8886; --good: #2a7d4f; --bad: #b3402e; }
@media (prefers-color-scheme: dark) { :root { --good: #6cc495; --bad: #f0917f; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem;
  padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
.wide { overflow-x: auto; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: left;
  vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.finished, .done { color: var(--good); } .failed { color: var(--bad); }
svg { display: block; width: 15rem; max-width: 100%; }
polyline { fill: none; stroke: currentColor; stroke-width: 1.2; }
path { stroke: var(--line); }
code { overflow-wrap: anywhere; } dt { font-weight: 600; } dd { margin: 0 0 .6rem; }
"""


@dataclass(frozen=True)
class Story:
    """A call of `fgbook batch` or `fgbook compare`, besides its runs."""

    command: str
    begun: str  # time, UTC
    hardware: dict
    jobs: int
    seconds: float = 0.0
    ended: str = "at work"  # or "finished", "failed", "stopped" (budget), "interrupted"
    place: Path | None = None  # of report, manifest and logs; None: by the runs' keys


@dataclass(frozen=True)
class Extra:
    """What is said besides the runs."""

    title: str = ""
    html: str = ""  # above all else on the page
    facts: dict = field(default_factory=dict)  # of the manifest


def folder(entries: Iterable[Entry]) -> Path:
    """Where manifest, report and logs of these runs are: equal runs, equal folder."""
    keys = sorted(entry.run.key for entry in entries)
    return paths.runs() / "batches" / records.key({"runs": keys})


def write(entries: Sequence[Entry], story: Story, extra: Extra | None = None) -> Path:
    """Write both; the page's path. Raises InputError where that cannot be done."""
    place = story.place or folder(entries)
    place.mkdir(parents=True, exist_ok=True)
    facts = manifest(entries, story) | (extra.facts if extra else {})
    content = json.dumps(facts, indent=1, ensure_ascii=False)
    with FileLock(place / "lock"):  # the same batch may be at work twice
        records.write_atomically(place / MANIFEST, f"{content}\n".encode())
        records.write_atomically(place / PAGE, page(entries, story, extra).encode())
    return place / PAGE


def now() -> str:
    """UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


# ---- for programs


def manifest(entries: Sequence[Entry], story: Story) -> dict:
    """What ran, where, how long, and what became of it."""
    return {
        "command": story.command,
        "ended": story.ended,
        "begun": story.begun,
        "written": now(),
        "seconds": round(story.seconds, 1),
        "jobs": story.jobs,
        "hardware": story.hardware,
        "versions": records.versions(),
        **records.commit(),
        "runs": [_about(entry) for entry in entries],
    }


def _about(entry: Entry) -> dict:
    run = entry.run
    return {
        "key": run.key,
        "asked": [{"paper": one.paper, "row": one.row} for one in entry.names],
        "paper": run.paper,
        "row": run.row,
        "profile": run.profile,
        "dataset": run.dataset,
        "seed": run.seed,
        "after": run.after.key if run.after else None,
        "state": entry.state,
        "seconds": round(entry.seconds, 1),
        "expected_seconds": round(entry.expected, 1),
        "why": entry.why or None,
        "log": entry.log or None,
        "command": run.command,
        "test_top1": top1(entry),
    }


def top1(entry: Entry) -> float | None:
    """On the test split, in [0, 1]; None where it is not known."""
    if entry.record is None:
        return None
    return entry.record["metrics"].get("test", {}).get("top1")


# ---- for people


def page(entries: Sequence[Entry], story: Story, extra: Extra | None = None) -> str:
    """The whole page."""
    more = extra or Extra()
    title = _text(more.title or f"Batch of {len(entries)} runs")
    parts = [f"<h1>{title}</h1>\n", more.html, _head(entries, story)]
    parts += [_failures(entries), _results(entries), _curves(entries)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{title}</title>\n<style>{STYLE}</style></head>\n"
        f"<body>\n{''.join(parts)}</body></html>\n"
    )


def _head(entries: Sequence[Entry], story: Story) -> str:
    states: dict[str, int] = {}
    for entry in entries:
        states[entry.state] = states.get(entry.state, 0) + 1
    counted = ", ".join(f"{number} {state}" for state, number in states.items())
    at_a_time = f"{story.jobs} at a time on {in_words(story.hardware)}"
    facts = {
        "Runs": f"{len(entries)}: {counted}",
        "Command": f"<code>{_text(story.command)}</code>",
        "Where": _text(f"{at_a_time}; {story.hardware['system']}"),
        "When": f"begun {story.begun}, {duration(story.seconds)}, {story.ended}",
    }
    listed = "".join(
        f"<dt>{name}</dt><dd>{fact}</dd>\n" for name, fact in facts.items()
    )
    return f"<dl>{listed}</dl>\n"


def _failures(entries: Sequence[Entry]) -> str:
    failed = [entry for entry in entries if entry.state == "failed"]
    if not failed:
        return ""
    lines = []
    for entry in failed:
        log = f" Log: <code>{_text(entry.log)}</code>" if entry.log else ""
        lines.append(f"<li>{_text(entry.title)}: {_text(entry.why)}{log}</li>\n")
    return f"<h2>Failures</h2>\n<ul>{''.join(lines)}</ul>\n"


def _results(entries: Sequence[Entry]) -> str:
    """A table with a line a run."""
    lines = []
    for entry in entries:
        for run in entry.names or [entry.run]:
            lines.append(_line(entry, run))
    names = ("paper", "row", "data set", "seed", "state", "top-1 %", "trained", "key")
    numbers = ("seed", "top-1 %", "trained")
    titles = "".join(_cell(name, name in numbers, "th") for name in names)
    return (
        f'<h2>Runs</h2>\n<div class="wide"><table>\n<tr>{titles}</tr>\n'
        f"{''.join(lines)}</table></div>\n"
    )


def _line(entry: Entry, run: Run) -> str:
    found = top1(entry)
    trained = ""
    if entry.record is not None:
        record = under_its_name(run, entry.record)
        trained = duration(record["train"]["seconds"])
    cells = [
        _cell(run.paper),
        _cell(run.row),
        _cell(run.dataset),
        _cell(run.seed, True),
        f'<td class="{entry.state.split()[0]}">{_text(entry.state)}</td>',
        _cell("" if found is None else f"{100 * found:.1f}", True),
        _cell(trained, True),
        f"<td><code>{run.key}</code></td>",
    ]
    return f"<tr>{''.join(cells)}</tr>\n"


def _cell(value: object, number: bool = False, tag: str = "td") -> str:
    mark = ' class="number"' if number else ""
    return f"<{tag}{mark}>{_text(value)}</{tag}>"


def _text(value: object) -> str:
    return html.escape(str(value))


# ---- losses


def _curves(entries: Sequence[Entry]) -> str:
    """The training loss of each row, a curve a seed."""
    blocks = []
    for (paper, row, dataset), same in kinds(entries).items():
        curves = [curve for curve in map(losses, same) if len(curve) > 1]
        if curves:
            title = _text(f"{paper} {row}, {dataset}")
            blocks.append(f"<figure><figcaption>{title}</figcaption>{_svg(curves)}")
            blocks.append("</figure>\n")
    if not blocks:
        return ""
    return (
        "<h2>Losses</h2>\n<p>Training loss (all its parts, without weights) by epoch; a"
        f" line for each seed, above that of zero.</p>\n{''.join(blocks)}"
    )


def losses(entry: Entry) -> list[float]:
    """The sum of a run's training losses, epoch by epoch: of its record, else of the
    log that grows while it is trained; empty where neither tells.
    """
    epochs = (entry.record or {}).get("train", {}).get("losses")
    if epochs is None:
        epochs = _logged(entry.run.folder / "log.jsonl")
    return [sum(parts.values()) for parts in epochs]


def _logged(path: Path) -> list[dict]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["losses"] for line in lines]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _svg(curves: Sequence[Sequence[float]]) -> str:
    """Curves over a common scale, from 0 to the largest value."""
    top = max(max(curve) for curve in curves) or 1.0
    last = max(len(curve) for curve in curves) - 1
    axis = f"M{EDGE} {HEIGHT - EDGE}H{WIDTH - EDGE}"
    lines = [f'<path d="{axis}"/>']
    for curve in curves:
        points = []
        for number, value in enumerate(curve):
            x = EDGE + number / last * (WIDTH - 2 * EDGE)
            y = HEIGHT - EDGE - value / top * (HEIGHT - 2 * EDGE)
            points.append(f"{x:.1f},{y:.1f}")
        lines.append(f'<polyline points="{" ".join(points)}"/>')
    ends = ", ".join(f"{curve[0]:.3g} to {curve[-1]:.3g}" for curve in curves)
    said = f"from the first to the last of {last + 1} epochs: {ends}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}">'
        f"{''.join(lines)}</svg><small>{said}</small>"
    )
