"""All published records as one table for the page "Numbers", and as CSV."""

import csv
import html
import io
from collections.abc import Iterable, Sequence

from ..errors import count
from ..evidence import sortable
from ..evidence.current import counted
from ..evidence.records import changes
from .base import Shown, described, measured
from .summary import hardware

COLUMNS = {
    "paper": "",
    "row": "",
    "kind": "counts in tables; left out: of an earlier recipe, or a seed beyond those"
    " fixed beforehand; tuning: tried on validation images",
    "profile": "",
    "data": "",
    "px": "side of the network's input, pixels",
    "seed": "",
    "accuracy, %": "top-1, of test images; of validation images where tuning",
    "printed, %": "what the paper prints, on its own data and network",
    "epochs": "",
    "minutes": "of training",
    "GFLOP": "to predict one image",
    "M": "parameters, millions",
}
"""Heading -> what it means, where the word does not say it."""

SELECTS = ("kind", "paper", "profile", "data")
"""Columns of few values, to choose from."""

NUMBERS = {
    "px",
    "seed",
    "accuracy, %",
    "printed, %",
    "epochs",
    "minutes",
    "GFLOP",
    "M",
}


def line(record: dict, counts: bool) -> dict[str, object]:
    """A record's values by heading; None where there is none."""
    is_result = record["purpose"] == "result"
    split = "test" if is_result else "val"
    kind = ("counts" if counts else "left out") if is_result else "tuning"
    top1 = (record["metrics"].get(split) or {}).get("top1")
    accuracy = None if top1 is None else 100 * top1
    if is_result and top1 is not None:
        # of whole images, which the record's single precision rounds
        images = record["images"]["test"]
        accuracy = 100 * round(top1 * images) / images
    printed = record.get("printed")
    return {
        "paper": record["paper"],
        "row": record["row"],
        "kind": kind,
        "profile": record["profile"],
        "data": record["dataset"],
        "px": record["recipe"]["image_size"],
        "seed": record["seed"],
        "accuracy, %": None if accuracy is None else f"{accuracy:.1f}",
        "printed, %": None if printed is None else f"{printed:.1f}",
        "epochs": record["train"]["epochs"],
        "minutes": f"{record['train']['seconds'] / 60:.1f}",
        "GFLOP": f"{record['flops'] / 1e9:.3g}",
        "M": f"{record['parameters'] / 1e6:.3g}",
    }


def ordered(found: Iterable[dict]) -> list[tuple[dict, dict[str, object]]]:
    """Each record with its line, by paper, row, data and seed."""
    everything = list(found)
    kept = {id(record) for record in counted(everything).records}

    def place(record: dict) -> tuple:
        names = ("purpose", "paper", "profile", "dataset", "row", "seed", "key")
        return tuple(record[name] for name in names)

    return [(one, line(one, id(one) in kept)) for one in sorted(everything, key=place)]


# ---- for the page


def numbers_table(found: Sequence[dict]) -> Shown:
    """A line a record, sorted and filtered as a reader asks."""
    heads = []
    for name, meaning in COLUMNS.items():
        about = f' title="{html.escape(meaning)}"' if meaning else ""
        heads.append(f'<th scope="col"{about}>{html.escape(name)}</th>')
    heads.append('<th scope="col">record</th>')
    lines = [_line(record, values) for record, values in ordered(found)]
    total = count(len(lines), "published record")
    return Shown(
        '<figure class="fgbook-table fgbook-numbers" id="all-numbers" data-asked'
        ' data-sortable="golodov cub50, or row=plain|hybrid"'
        f' data-selects="{" ".join(SELECTS)}">'
        f"<figcaption>{total}. A row's mean and its interval stand in its chapter, and"
        " the verdicts on the first page."
        ' <a href="numbers.csv" download>The same as CSV</a>.</figcaption>'
        f'<div tabindex="0"><table><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div></figure>{sortable.script()}",
        total,
    )


def _line(record: dict, values: dict[str, object]) -> str:
    cells = []
    for name, value in values.items():
        text = "–" if value is None else html.escape(str(value))
        if name == "accuracy, %" and value is not None:
            field = "top1" if record["purpose"] == "result" else "val top1"
            text = measured(text, field, [record])
        kind = ' class="number"' if name in NUMBERS else ""
        cells.append(f'<td{kind} data-label="{html.escape(name)}">{text}</td>')
    key = html.escape(record["key"])
    command = html.escape(record["command"])
    made = html.escape(f"{record['created'][:10]}, {hardware(record)}")
    # as the source of a measured number names it
    about = html.escape(described(record))
    cells.append(
        f'<td data-label="record"><details><summary><code>{key[:8]}</code></summary>'
        f'<div data-record="{key}" data-of="{about}"><code>{key}</code>,'
        f" {made}: <code>{command}</code></div></details></td>"
    )
    return f'<tr id="record-{_place(record)}">{"".join(cells)}</tr>'


def _place(record: dict) -> str:
    """Rows of several papers may share a run, so the key alone is not enough."""
    return html.escape(f"{record['paper']}-{record['row']}-{record['key']}")


# ---- as CSV

FURTHER = ("method", "key", "commit", "created", "hardware", "changes", "command")


def numbers_csv(found: Sequence[dict]) -> str:
    """The same lines as CSV, with method, key, commit, date, hardware, changed settings
    and the command that repeats the run.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *FURTHER])
    for record, values in ordered(found):
        changed = "; ".join(f"{k}={v}" for k, v in changes(record).items())
        named = {"hardware": hardware(record), "changes": changed}
        further = [named.get(name, record.get(name)) for name in FURTHER]
        cells = ["" if value is None else value for value in values.values()]
        writer.writerow([*cells, *further])
    return text.getvalue()
