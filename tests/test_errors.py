"""What a person is told about a name that does not exist."""

from fgbook.errors import listed, unknown


def test_the_nearest_names_come_first():
    said = str(unknown("row", "hybird", ["plain", "hybrid"]))
    assert said == "unknown row 'hybird'; did you mean 'hybrid'? Valid: hybrid, plain."


def test_long_lists_are_cut_and_say_so():
    said = str(unknown("run", "zz", (f"{number:03}" for number in range(300))))
    assert said.endswith("058, 059 and 240 more.")


def test_a_list_that_fits_is_whole():
    assert listed(["a", "b"], 2) == "a, b"
