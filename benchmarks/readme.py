"""Write what the saved results say into README.md beside this file:

    python benchmarks/readme.py

Run it after a benchmark with --save; a test compares the two.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import common

from fgbook.evidence import records

README = Path(__file__).resolve().parent / "README.md"
BEGIN, END = "<!-- made by readme.py from results/ -->", "<!-- end -->"


def section(content: dict) -> str:
    """One result as Markdown: what, where and how it was measured, its table, and its
    ratios beside what was wanted.
    """
    versions = content["versions"]
    lines = [
        f"### {content['title']}",
        "",
        (
            f"`{content['command']}`: {common.hardware(content['hardware'])}; torch"
            f" {versions['torch']}, torchvision {versions['torchvision']};"
            f" {content['layout']}; {content['clock']}, load {content['load']};"
            f" {content['date']}."
        ),
        "",
    ]
    lines += [
        line(content["columns"]),
        "|---|" + "---:|" * (len(content["columns"]) - 1),
    ]
    lines += [line(map(common.shown, row)) for row in content["rows"]]
    lines += [
        "",
        "| ratio [quartiles] | measured | wanted | met |",
        "|---|---:|---:|---|",
    ]
    lines += [
        line((found["what"], common.spread(found), found["wanted"] or "-", met(found)))
        for found in content["ratios"]
    ]
    return "\n".join(lines) + "\n"


def line(cells: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(text.strip() for text in cells) + " |"


def met(found: dict) -> str:
    """Whether a ratio is what was wanted: "yes", "no", or a dash."""
    if not found["wanted"]:
        return "-"
    sign, bound = found["wanted"].split()
    value, bound = found["value"], float(bound)
    held = value >= bound if sign == ">=" else value <= bound
    return "yes" if held else "no"


def filled(text: str, folder: Path = common.RESULTS) -> str:
    """The README's text with the part between the marks made anew from the results in
    `folder`.
    """
    made = "\n".join(
        section(json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(folder.glob("*.json"))
    )
    return re.sub(
        f"(?<={re.escape(BEGIN)}\n).*(?={re.escape(END)})",
        lambda _: made or "Nothing yet.\n",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    records.write_atomically(
        README, filled(README.read_text(encoding="utf-8")).encode()
    )
