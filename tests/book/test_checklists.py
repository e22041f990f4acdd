"""The answers to the field's checklists: each line has one of four answers and a place
that shows it; those that say what is missing are held against what is there.
"""

import re
import tomllib

import pytest
import yaml

from fgbook import paths

ROOT = paths.REPOSITORY
TEXT = (ROOT / "book" / "checklists.md").read_text(encoding="utf-8")
ANSWERS = {"yes", "partly", "no", "does not apply"}
LINES = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in TEXT.splitlines()
    if line.startswith("| ") and not re.match(r"\| (asked|criterion)", line)
]


def line(start: str) -> tuple[str, str]:
    """Answer and reason of the line that begins so."""
    ((_, answer, why),) = [each for each in LINES if each[0].startswith(start)]
    return answer, why


@pytest.mark.parametrize("cells", LINES, ids=lambda cells: cells[0][:40])
def test_a_line_has_an_answer_and_a_place(cells):
    question, answer, why = cells
    assert len(question) > 15
    assert answer in ANSWERS
    # what is not there has no place; it then says what is missing
    assert "](" in why or answer == "no"
    assert answer == "yes" or len(why) > 60


def test_all_three_lists_are_whole():
    lists = [part.split("\n", 1)[0] for part in TEXT.split("\n## ")[1:]]
    assert len(lists) == 3
    assert [sum(name in part for part in lists) for name in NAMES] == [1, 1, 1]
    assert len(LINES) == 5 + 9 + 9


NAMES = ("Papers with Code", "NeurIPS", "ReScience C")


def test_no_identifier_is_said_only_while_there_is_none():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    has_one = bool({"doi", "identifiers"} & set(citation))
    assert (line("It is archived")[0] == "no") == (not has_one)


def test_no_weights_are_published():
    shipped = [path for path in (ROOT / "results").rglob("*.safetensors")]
    assert not shipped
    assert line("Trained models")[0] == "no"


def test_pytorch_has_a_lower_bound_only():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (torch,) = [
        one for one in project["project"]["dependencies"] if one.startswith("torch>")
    ]
    assert re.fullmatch(r"torch>=[\d.]+", torch)


def test_the_paper_profile_has_not_been_run():
    """No published record is of it; the page and the chapters say so."""
    from fgbook.evidence import records

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FGBOOK_RESULTS", str(ROOT / "results"))
        profiles = {record["profile"] for record in records.published(purpose=None)}
    not_run = "not been run" in line("The work was replicated")[1]
    assert not_run == ("paper" not in profiles)
