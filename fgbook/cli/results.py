"""``fgbook results``: what was measured, as a table, as verdicts, or as JSON. Needs no
torch.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from .common import examples, known_records

if TYPE_CHECKING:
    from ..evidence.verdicts import Verdict
    from ..papers.spec import Paper

COLUMNS = (
    "paper",
    "row",
    "profile",
    "data set",
    "px",
    "seeds",
    "top-1 %",
    "95 % over seeds",
    "low-res %",
    "printed",
    "first run",
    "changes",
)

# Records that agree in these, and in their recipe, differ by seed only.
SAME = (
    "paper",
    "row",
    "profile",
    "dataset",
    "options",
    "weights",
    "data_fingerprint",
)


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

    about = [papers.get(name) for name in ([paper] if paper else papers.names())]
    everything = known_records()
    chosen = []
    for one in about:
        chosen += records.select(everything, paper=one.key, purpose="result")

    if verdicts:
        said = list(judged(about, chosen))
        click.echo(verdicts_as_json(said) if as_json else verdicts_as_text(said))
    elif as_json:
        click.echo(json.dumps([without_folder(r) for r in chosen], indent=1))
    else:
        click.echo(table(chosen))


def without_folder(record: dict) -> dict:
    """A record as it is on disk, without the note where it was found."""
    from ..evidence.records import FOLDER

    return {name: value for name, value in record.items() if name != FOLDER}


# ---- the table


def table(found: list[dict]) -> str:
    """Records as a table, a line for each row, recipe and data set: mean over seeds and
    its 95 % interval.
    """
    from ..recipe import Recipe

    if not found:
        return "no results yet; make some with `fgbook run feng`."
    groups: dict[str, list[dict]] = {}
    for record in found:
        same = {name: record[name] for name in SAME}
        # older records lack the fields that came later
        same["recipe"] = Recipe.of(record["recipe"]).determinants()
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(record)
    text = aligned([COLUMNS, *(table_line(group) for group in groups.values())])
    if any(record["profile"] == "quick" for record in found):
        text += (
            "\nquick runs are illustrations; they are not comparable with printed"
            " numbers."
        )
    return text


def table_line(group: list[dict]) -> tuple[str, ...]:
    """The cells of records that differ by seed only."""
    from ..evidence.records import changes
    from ..evidence.verdicts import summary

    first = min(group, key=lambda record: record["seed"])
    top1 = summary([100 * record["metrics"]["test"]["top1"] for record in group])
    interval = f"{top1['low']:.1f} to {top1['high']:.1f}" if len(group) > 1 else ""
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
        f"{top1['mean']:.1f}",
        interval,
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

Said = tuple["Paper", str | None, str | None, "Verdict"]
"""Paper, profile and data set (None: nothing to judge by), and the verdict."""


def judged(about: list["Paper"], found: list[dict]) -> Iterator[Said]:
    """One verdict for each claim, profile and data set; "not run" where there are no
    records to decide. Quick runs decide nothing, and neither do changed ones.
    """
    from ..evidence import records
    from ..evidence.verdicts import verdict

    as_listed = []
    for record in found:
        if record["profile"] != "quick" and records.own(record):
            as_listed.append(record)
    for paper in about:
        mine = [record for record in as_listed if record["paper"] == paper.key]
        places = sorted({(record["profile"], record["dataset"]) for record in mine})
        for profile, dataset in places or [(None, None)]:
            there = records.select(mine, profile=profile, dataset=dataset)
            for claim in paper.claims:
                better = records.select(there, row=claim.better)
                worse = records.select(there, row=claim.worse)
                yield paper, profile, dataset, verdict(claim, better, worse)


def verdicts_as_text(said: list[Said]) -> str:
    """Three lines a verdict: what, the claim, and why."""
    lines = []
    for paper, profile, dataset, found in said:
        where = f" on {dataset} ({profile})" if dataset else ""
        lines += [
            f"{paper.key} {found.claim.key}{where}: {found.outcome}",
            f"    claim: {found.claim.text}",
            f"    {found.why}",
        ]
    return "\n".join(lines)


def verdicts_as_json(said: list[Said]) -> str:
    """A list of objects, one a verdict."""
    entries = [
        {
            "paper": paper.key,
            "claim": found.claim.key,
            "text": found.claim.text,
            "profile": profile,
            "dataset": dataset,
            "outcome": found.outcome,
            "effect": asdict(found.effect) if found.effect else None,
            "why": found.why,
        }
        for paper, profile, dataset, found in said
    ]
    return json.dumps(entries, indent=1)
