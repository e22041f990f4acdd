"""Write the repository's address, which is set in pyproject.toml ([project.urls]), into
the files that cannot look it up:

    python book/address.py
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from fgbook.evidence.records import write_atomically

TOP = Path(__file__).resolve().parents[1]

# Colab's, Binder's and GitHub's own links are made from this form only.
FORM = r"https://github\.com/[\w.-]+/[\w.-]*\w"

# Where the address stands in a file that cannot look it up.
PLACES = {
    "_config.yml": r"(?m)(?<=^  url: )\S+",
    "CITATION.cff": r'(?m)(?<=^repository-code: ")[^"]+',
    "notebooks/*.ipynb": r'(?<=pip install --quiet git\+)[^\s"\\]+',
}


def filled(address: str, top: Path) -> Iterator[tuple[Path, str]]:
    """Every such file of a clone, and its text with that address."""
    for pattern, place in PLACES.items():
        for path in sorted(top.glob(pattern)):
            text = path.read_text(encoding="utf-8")
            made, found = re.subn(place, address, text)
            if found != 1:
                sys.exit(f"{path} has {found} places for the address instead of one.")
            yield path, made


def main() -> None:
    """Write them, or say what is wrong and write nothing."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))
    address = project["project"].get("urls", {}).get("Repository", "")
    if not re.fullmatch(FORM, address):
        sys.exit(
            "Repository in [project.urls] of pyproject.toml must be an address such as"
            f" https://github.com/OWNER/NAME, not {address!r}."
        )
    for path, made in list(filled(address, TOP)):
        write_atomically(path, made.encode())


if __name__ == "__main__":
    main()
