"""How to repeat each paper: its commands, what they need, and how long the published
runs took.
"""

import html
from collections.abc import Sequence

from .. import papers
from ..errors import count
from ..papers.spec import Paper
from .base import Shown, distinct
from .board import CHAPTERS, authors
from .summary import unchanged

HEADS = ("paper", "commands", "photographs took", "data")


def repeating_table(found: Sequence[dict]) -> Shown:
    """A line a paper and the comparison, from all published results."""
    lines, texts = [], []
    for name in (*CHAPTERS, "compare"):
        cells = _cells(papers.get(name), [r for r in found if r["paper"] == name])
        made = []
        for head, cell in zip(HEADS, cells, strict=True):
            made.append(f'<td data-label="{head}">{cell}</td>')
        lines.append(f"<tr>{''.join(made)}</tr>")
        texts.append(f"{name}: {cells[2]}")
    heads = "".join(f'<th scope="col">{head}</th>' for head in HEADS)
    return Shown(
        '<figure class="fgbook-table"><figcaption>Commands of each paper: one training'
        " of each row on photographs; all the trainings that were fixed beforehand; one"
        " of each row as in the paper. Photographs took: the trainings behind the"
        " published records that count, together, on the processors that the records"
        " name. Data: images, and what there is to download.</figcaption>"
        f"<div><table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody>"
        "</table></div></figure>",
        "\n".join(texts),
    )


def _cells(paper: Paper, mine: Sequence[dict]) -> list[str]:
    photo = [r for r in unchanged(mine) if r["profile"] == "photo"]
    name = "The field on one page" if paper.key == "compare" else authors(paper)
    page = "methods" if paper.key == "compare" else paper.key
    return [
        f'<a href="page:book/{page}">{html.escape(name)}</a>',
        "<br>".join(f"<code>{command}</code>" for command in commands(paper.key)),
        _took(photo),
        _data(paper, photo),
    ]


def commands(paper: str) -> tuple[str, ...]:
    """What repeats a paper: see the table's caption."""
    return (
        f"fgbook run {paper} --profile photo",
        f"fgbook batch {paper} --profile photo",
        f"fgbook run {paper} --profile paper",
    )


def _took(photo: Sequence[dict]) -> str:
    """How many runs, of which size, in how many minutes."""
    if not photo:
        return "not run yet"
    minutes, largest = 0.0, 0.0
    for record in photo:
        minutes += record["train"]["seconds"] / 60
        largest = max(largest, record["parameters"] / 1e6)
    return (
        f"{count(len(photo), 'run')}, {minutes:.0f} min; networks of up to"
        f" {largest:.1f} million parameters at"
        f" {distinct(r['recipe']['image_size'] for r in photo)} px"
    )


def _data(paper: Paper, photo: Sequence[dict]) -> str:
    """Names of the data sets of both profiles, with the number of images where runs
    tell it, and the size of the download where there is one.
    """
    from ..data import fetch

    images = {}
    for record in photo:
        images[record["dataset"]] = record["images"]["train"] + record["images"]["test"]
    said = []
    for profile in ("photo", "paper"):
        for name in paper.datasets[profile]:
            about = [f"{images[name]} images"] if name in images else []
            size = fetch.size(name.removesuffix("-cropped"))
            if size:
                about.append(f"{size / 1e9:.1f} GB")
            brackets = f" ({', '.join(about)})" if about else ""
            said.append(f"{html.escape(name)}{brackets}")
    return ", ".join(dict.fromkeys(said))
