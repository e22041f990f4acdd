"""What a person is told about a name that does not exist."""

import pytest

from fgbook.errors import count, enumerated, listed, unknown


def test_the_nearest_names_come_first():
    said = str(unknown("row", "hybird", ["plain", "hybrid"]))
    assert said == "unknown row 'hybird'; did you mean 'hybrid'? Valid: hybrid, plain."


def test_long_lists_are_cut_and_say_so():
    said = str(unknown("run", "zz", (f"{number:03}" for number in range(300))))
    assert said.endswith("058, 059 and 240 more.")


def test_a_list_that_fits_is_whole():
    assert listed(["a", "b"], 2) == "a, b"


@pytest.mark.parametrize(
    ("texts", "said"),
    [("", ""), ("a", "a"), ("ab", "a and b"), ("abc", "a, b and c")],
)
def test_a_list_in_words(texts, said):
    assert enumerated(texts) == said


def test_how_many_of_a_thing():
    said = [count(number, "seed") for number in (0, 1, 2, 1234)]
    assert said == ["0 seeds", "1 seed", "2 seeds", "1,234 seeds"]
