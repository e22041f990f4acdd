"""Values and remarks in words, as several pieces say them."""

from ..data.dataset import DataSet


def note(data: DataSet) -> str:
    """The end of a caption about drawn birds."""
    if not data.name.startswith("fieldguide"):
        return ""
    return " Drawn birds and networks of seconds: an illustration."


def share(value: float) -> str:
    """As "36 %"."""
    return f"{100 * value:.0f} %"
