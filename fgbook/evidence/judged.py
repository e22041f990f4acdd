"""The verdicts on all claims of several papers: what `fgbook results --verdicts` and
the board on the book's first page list.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..papers.spec import Paper
from . import families, records
from .verdicts import Verdict


class Said(NamedTuple):
    """A verdict, and by what it was judged (None: there was nothing)."""

    paper: Paper
    profile: str | None
    datasets: tuple[str, ...] | None  # more than one: all of them together
    verdict: Verdict


def judged(about: Sequence[Paper], found: Sequence[dict]) -> Iterator[Said]:
    """One verdict for each claim, profile and data set; "not run" where there are no
    records to decide. Then one for each claim that was decided on several data sets.
    Quick runs decide nothing, and neither do changed ones.
    """
    as_listed = []
    for record in found:
        if record["profile"] != "quick" and records.own(record):
            as_listed.append(record)
    for paper in about:
        mine = [record for record in as_listed if record["paper"] == paper.key]
        if not mine:
            for verdict in families.judge(paper, []):
                yield Said(paper, None, None, verdict)
        for profile in sorted({record["profile"] for record in mine}):
            there = records.select(mine, profile=profile)
            by_dataset = {}
            for dataset in sorted({record["dataset"] for record in there}):
                here = records.select(there, dataset=dataset)
                by_dataset[dataset] = families.judge(paper, here)
                for verdict in by_dataset[dataset]:
                    yield Said(paper, profile, (dataset,), verdict)
            used = families.on_each(by_dataset)
            for verdict in families.across(by_dataset):
                yield Said(paper, profile, tuple(used[verdict.claim]), verdict)
