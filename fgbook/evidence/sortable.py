"""What lets the tables of pages and reports be sorted and filtered: one script, which
stands in the page itself and needs no network.
"""

from pathlib import Path

FILE = Path(__file__).with_suffix(".js")


def script() -> str:
    """The script as HTML, for below a figure with the attribute ``data-sortable``. Its
    value is an example of what can be asked for.
    """
    return f"<script>\n{FILE.read_text(encoding='utf-8')}</script>\n"
