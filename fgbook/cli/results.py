"""``fgbook results``: what was measured, as a table, as verdicts, or as JSON. Needs no
torch.
"""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from .. import paths
from .common import examples, known_records

if TYPE_CHECKING:
    from ..evidence.judged import Said

COLUMNS = (
    "paper",
    "row",
    "profile",
    "data set",
    "px",
    "seeds",
    "top-1 %",
    "95 % interval",
    "low-res %",
    "printed",
    "first run",
    "changes",
)

# Records that agree in these, and in what made them, differ by seed only.
SAME = ("paper", "row", "profile", "dataset", "data_fingerprint")


@click.command(
    epilog=examples(
        "fgbook results",
        "fgbook results feng --verdicts",
        "fgbook results feng --json > feng.json",
    )
)
@click.argument("paper", required=False)
@click.option("--verdicts", is_flag=True, help="Which claims hold.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="The records themselves (with --verdicts: the verdicts), as JSON.",
)
def results(paper: str | None, verdicts: bool, as_json: bool) -> None:
    """What has been measured.

    The published records, and those made on this machine.
    """
    from .. import papers
    from ..evidence import records
    from ..evidence.judged import judged

    about = [papers.get(name) for name in ([paper] if paper else papers.names())]
    if not paths.results().is_dir():
        lacking = f"there is no folder of published records {paths.results()}"
        click.echo(f"{lacking} (FGBOOK_RESULTS).", err=True)
    everything = known_records()
    chosen = []
    for one in about:
        chosen += records.select(everything, paper=one.key, purpose="result")

    if verdicts:
        said = list(judged(about, chosen))
        if as_json:
            click.echo(verdicts_as_json(said))
        else:
            click.echo(verdicts_as_text(said) + left_out(chosen))
    elif as_json:
        click.echo(json.dumps([without_folder(r) for r in chosen], indent=1))
    else:
        click.echo(table(chosen, paper))


def without_folder(record: dict) -> dict:
    """A record as it is on disk, without the note where it was found."""
    from ..evidence.records import FOLDER

    return {name: value for name, value in record.items() if name != FOLDER}


# ---- the table


def table(found: list[dict], paper: str | None = None) -> str:
    """Records as a table, a line for each row, recipe, version and data set: mean over
    seeds and its 95 % interval, as the book has them. `paper`: the one asked for.
    """
    from ..evidence.current import counted, made_by
    from ..evidence.verdicts import accuracies

    if not found:
        return f"no results yet; make some with `fgbook run {paper or 'feng'}`."
    kept = counted(found).records
    by_key = {record["key"]: record for record in found}
    groups: dict[tuple, list[dict]] = {}
    for record in kept:
        same = (*(record[name] for name in SAME), made_by(record, by_key))
        groups.setdefault(same, []).append(record)
    found_out = accuracies(groups.values(), "top1", kept)
    lines = map(table_line, groups.values(), found_out)
    text = aligned([COLUMNS, *lines])
    if any(record["profile"] == "quick" for record in kept):
        text += (
            "\nquick runs are illustrations; they are not comparable with printed"
            " numbers."
        )
    return text + left_out(found)


def left_out(found: list[dict]) -> str:
    """A line that says which records do not count; empty where all do."""
    from ..evidence.current import counted

    said = counted(found).left_out()
    return f"\n{said}" if said else ""


def table_line(
    group: list[dict], accuracy: tuple[float, float, float]
) -> tuple[str, ...]:
    """The cells of records that differ by seed only, and their mean with interval."""
    from ..evidence.records import changes

    first = min(group, key=lambda record: record["seed"])
    mean, lower, upper = accuracy
    low = [
        100 * record["metrics"]["test_low"]["top1"]
        for record in group
        if "test_low" in record["metrics"]
    ]
    printed = ""
    if first["printed"] is not None and first["profile"] == "paper":
        printed = f"{first['printed']:.1f}"  # only like beside like
    return (
        first["paper"],
        first["row"],
        first["profile"],
        first["dataset"],
        str(first["recipe"]["image_size"]),
        str(len(group)),
        f"{mean:.1f}",
        f"{lower:.1f} to {upper:.1f}",
        f"{sum(low) / len(low):.1f}" if low else "",
        printed,
        first["key"],
        ", ".join(f"{name}={value}" for name, value in changes(first).items()),
    )


def aligned(lines: list[tuple[str, ...]]) -> str:
    """Lines of cells, the first one titles, in columns; none that is empty but for its
    title.
    """
    columns = [column for column in zip(*lines, strict=True) if any(column[1:])]
    padded = []
    for column in columns:
        width = max(len(cell) for cell in column)
        padded.append([cell.ljust(width) for cell in column])
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*padded, strict=True))


# ---- verdicts


def verdicts_as_text(said: list["Said"]) -> str:
    """Three lines a verdict: what, the claim, and why."""
    lines = []
    for paper, profile, datasets, found in said:
        where = ""
        if datasets:
            where = f" on {' and '.join(datasets)} ({profile})"
        lines += [
            f"{paper.key} {found.claim.key}{where}: {found.outcome}",
            f"    claim: {found.claim.text}",
            f"    {found.sentence}",
        ]
    return "\n".join(lines)


def verdicts_as_json(said: list["Said"]) -> str:
    """A list of objects, one a verdict."""
    entries = []
    for paper, profile, datasets, found in said:
        effect = None
        if found.effect:
            effect = asdict(found.effect) | {"seeds": found.effect.seeds}
        entries.append(
            {
                "paper": paper.key,
                "claim": found.claim.key,
                "text": found.claim.text,
                "profile": profile,
                "dataset": " and ".join(datasets) if datasets else None,
                "outcome": found.outcome,
                "alone": found.alone,
                "p": found.p,
                "p_family": found.p_family,
                "family": found.family,
                "printed_size": found.printed_size,
                "effect": effect,
                "why": found.sentence,
            }
        )
    return json.dumps(entries, indent=1)
