"""Write what the published records say where no build can: into README.md and into
model-index.yml; and the pictures that stand there and beside the pages:

    python book/front.py

Run it after records were published; a test compares what is written with what it would
write.
"""

import io
import re
from pathlib import Path

import yaml

from fgbook.evidence import records
from fgbook.evidence.model_index import model_index
from fgbook.figures import hero
from fgbook.figures.board import judged_papers, summary_text

TOP = Path(__file__).resolve().parents[1]
STATIC = TOP / "book" / "_static"
BEGIN, END = "<!-- made by book/front.py from results/ -->", "<!-- end -->"


def readme(text: str, found: list[dict]) -> str:
    """The README's text with the part between the marks made anew."""
    made = summary_text(judged_papers(found))
    return re.sub(
        f"(?<={re.escape(BEGIN)}\n).*(?={re.escape(END)})",
        lambda _: f"\n{made}\n",
        text,
        flags=re.DOTALL,
    )


def index_text(found: list[dict]) -> str:
    """The text of model-index.yml."""
    head = "# Made by book/front.py from results/.\n"
    listed = model_index(found)
    return head + yaml.safe_dump(listed, sort_keys=False, allow_unicode=True, width=88)


def pictures() -> dict[str, bytes]:
    """Name -> content of each picture."""
    kept = {
        "hero.svg": hero.hero_svg("light").encode(),
        "hero-dark.svg": hero.hero_svg("dark").encode(),
    }
    drawn = {
        "preview.png": hero.preview(),
        "logo.png": hero.icon(160),
        "favicon.png": hero.icon(48),
    }
    for name, picture in drawn.items():
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
        kept[name] = buffer.getvalue()
    return kept


def main() -> None:
    """Write all of it."""
    found = records.published()
    there = TOP / "README.md"
    text = readme(there.read_text(encoding="utf-8"), found)
    records.write_atomically(there, text.encode())
    records.write_atomically(TOP / "model-index.yml", index_text(found).encode())
    for name, content in pictures().items():
        records.write_atomically(STATIC / name, content)


if __name__ == "__main__":
    main()
