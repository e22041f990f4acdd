"""Tables of any chapter, from its paper's file and from records: accuracies, printed
tables, verdicts, settings, and what was tried on validation.
"""

import html
import re
from collections.abc import Sequence

import numpy as np

from .. import methods, papers
from ..evidence import families, units, verdicts
from ..evidence.records import changes
from ..papers.spec import PROFILES, Claim, Paper, Row, Table, same_options
from ..recipe import LATER, Recipe
from . import findings
from .base import Shown, duration, measured, table
from .summary import accuracy_cells, is_quick, left_out, of_row, setting, unchanged

# ---- rows


def accuracy_table(
    paper: Paper, found: list[dict], printed: str | None = "cub"
) -> Shown:
    """One line a row of the paper: printed and measured top-1 accuracy with its 95 %
    interval, for records of one profile and data set. Those of further rows tell how
    much trainings differ.

    `printed` names the data set whose printed numbers stand beside (None: the paper has
    none like it), except beside quick runs: these are illustrations, and say so. Rows
    without a record are shown as not run, those that do not exist at the profile not at
    all.
    """
    outside = left_out(found)
    among = unchanged(found)
    names = [row.name for row in paper.rows]
    found = [record for record in among if record["row"] in names]
    quick = is_quick(found)
    profiles = {record["profile"] for record in found}
    lines = []
    for row in paper.rows:
        if profiles and not profiles & row.recipes.keys():
            continue
        line = {"row": html.escape(row.title)}
        if printed is not None and not quick:
            line["printed, %"] = paper.printed_text(row.name, printed)
        lines.append(line | _accuracy_line(of_row(found, row.name), among))

    caption = "Top-1 accuracy on the test split and its 95 % interval. "
    caption += setting(found) + outside
    if quick:
        caption += (
            " Drawn birds or a network of minutes: it shows how the rows are run and"
            " has no bearing on the paper."
        )
    titles = {row.name: row.title for row in paper.rows}
    says = findings.of_rows(found, titles, among=among)
    return table(lines, caption, found, illustration=quick, says=says)


def _accuracy_line(records: list[dict], among: list[dict]) -> dict[str, object]:
    """What was measured of one row, and what it cost."""
    if not records:
        return {
            "measured, %": "not run",
            "95 % interval": "–",
            "seeds": 0,
            "training": "–",
            "GFLOP an image": "–",
        }
    mean, interval = accuracy_cells(records, among)
    seconds = [record["train"]["seconds"] for record in records]
    return {
        "measured, %": mean,
        "95 % interval": interval,
        "seeds": len(records),
        "training": duration(float(np.mean(seconds))),
        "GFLOP an image": f"{records[0]['flops'] / 1e9:.2f}",
    }


def printed_table(about: Table, found: list[dict]) -> Shown:
    """A table as printed, and beside each column what records of the paper profile
    measured there.
    """
    found = unchanged(found)
    datasets = {record["dataset"] for record in found}
    lines = []
    for label, values in about.cells.items():
        records = of_row(found, about.rows.get(label))
        line = {"method": html.escape(label)}
        for column, value in zip(about.columns, values, strict=True):
            line[f"{column}, printed"] = (
                about.missing if value is None else f"{value:.1f}"
            )
            if column in datasets:
                here = [record for record in records if record["dataset"] == column]
                line[f"{column}, measured"] = _mean_cell(here, found)
        lines.append(line)

    caption = f"{about.name}, {about.unit} as printed. {about.caption} "
    caption += f"Measured: {setting(found)}" if found else "Not run here."
    return table(lines, caption, found)


def _mean_cell(records: list[dict], among: list[dict]) -> str:
    return accuracy_cells(records, among)[0] if records else "not run"


# ---- claims


def effect_field(claim: Claim) -> str:
    """The field of a claim's measured effect: "effect" and the metrics, where they are
    not the usual one.
    """
    names = dict.fromkeys(_metrics(claim))
    return "effect" if list(names) == ["top1"] else f"effect {' '.join(names)}"


def _metrics(claim: Claim) -> tuple[str, str]:
    """Of the better row and of the worse one."""
    return claim.metric, claim.worse_metric or claim.metric


def place_of(claim: Claim) -> str:
    """Where on its chapter's page the verdict on a claim stands: "claim-d4-fixed"."""
    return "claim-" + re.sub(r"[^a-z0-9]+", "-", claim.key.lower()).strip("-")


def _named(claim: Claim, has_place: bool) -> str:
    """Key and text of a claim; with a place where links can lead to."""
    place = f' id="{place_of(claim)}"' if has_place else ""
    return f"<b{place}>{html.escape(claim.key)}</b> {html.escape(claim.text)}"


def verdict_table(paper: Paper, found: list[dict]) -> Shown:
    """One line a claim: the verdict, measured and printed effect, the 95 % interval and
    whether it excludes what is printed, seeds and images, and how the spread between
    trainings was estimated; a reason only where it says more than these. Effects are in
    percentage points of top-1 accuracy; a column says so where they are not.
    """
    outside = left_out(found)
    found = unchanged(found)
    usual = all(_metrics(claim) == ("top1", "top1") for claim in paper.claims)
    # One table of a chapter has all claims of its paper; others repeat some.
    is_whole = paper.claims == papers.get(paper.key).claims
    lines = []
    judged = families.judge(paper, found)
    for verdict in judged:
        claim = verdict.claim
        line: dict[str, object] = {"claim": _named(claim, is_whole)}
        if not usual:
            line["metric"] = html.escape(units.heading(claim.metric))
        lines.append(line | _verdict_line(verdict, found))
    if usual:
        caption = "Claims, in percentage points of top-1 accuracy."
    else:
        caption = "Claims, each with its metric: larger is better."
    caption += _judged_at_once(lines)
    lines = _narrow(lines)
    caption = f"{caption} {setting(found)}{outside}"
    return table(lines, caption, found, says=findings.of_verdicts(judged))


def _judged_at_once(lines: list[dict]) -> str:
    """How many claims share an error of 5 %, as a sentence."""
    family = max((line["family"] for line in lines), default=1)
    if family < 2:
        return ""
    return f" {family} claims are judged at once."


def _narrow(lines: list[dict]) -> list[dict]:
    """The lines without columns that would say nothing."""
    empty = {"family"}
    for name in ("printed", "printed size", "why"):
        if all(line[name] in ("–", "") for line in lines):
            empty.add(name)
    return [{k: v for k, v in line.items() if k not in empty} for line in lines]


# The word for how the spread between trainings was estimated, in a narrow column.
SPREADS = {"images": "–", "pooled": "pooled over {rows} rows"}


def _verdict_line(verdict: verdicts.Verdict, found: list[dict]) -> dict[str, object]:
    claim = verdict.claim
    line: dict[str, object] = {
        "verdict": f"<b>{html.escape(verdict.outcome)}</b>",
        "measured": "–",
        "95 % interval": "–",
        "printed": "–",
        "printed size": "–",
        "seeds × images": "–",
        "spread": "–",
        "why": html.escape(_why(verdict)),
        "family": verdict.family,
    }
    if claim.printed_effect is not None:
        line["printed"] = units.number(claim.printed_effect, claim.metric)
        line["printed size"] = verdict.size_text or "–"
    if verdict.effect:
        effect, field = verdict.effect, effect_field(claim)
        better = _measuring(found, claim.better, claim.metric)
        worse = _measuring(found, claim.worse, claim.worse_metric or claim.metric)
        interval = units.interval(effect.low, effect.high, claim.metric)
        number = units.number(effect.effect, claim.metric)
        line["measured"] = measured(number, field, better, worse)
        line["95 % interval"] = measured(interval, f"{field} interval", better, worse)
        line["seeds × images"] = f"{effect.seeds_text} × {effect.images}"
        word = SPREADS.get(effect.spread, effect.spread)
        line["spread"] = word.format(rows=effect.rows)
    return line


def _why(verdict: verdicts.Verdict) -> str:
    """The reason where it says more than the columns."""
    effect = verdict.effect
    if verdict.outcome == "not run" or effect is None or effect.seeds == 1:
        return verdict.why
    if verdict.outcome != verdict.alone or verdict.outcome == "no difference":
        return verdict.why
    return "" if not verdict.claim.margin else verdict.why


def _measuring(found: list[dict], row: str, metric: str) -> list[dict]:
    """The records of a row that an effect comes from."""
    return [r for r in of_row(found, row) if verdicts.holds(r, metric)]


# ---- settings

# Fields of a recipe that only one schedule reads.
OF_SCHEDULE = {"step_epochs": "step", "step_factor": "step", "cycle_epochs": "cyclic"}


def recipe_table(paper: Paper) -> Shown:
    """The settings of each profile as the paper's file holds them; where rows of a
    profile differ, each value with its rows.

    Settings that are off everywhere are left out.
    """
    lines = []
    for name in Recipe().as_dict():
        if any(_is_used(row, profile, name) for row, profile in _recipes(paper)):
            line = {"setting": f"<code>{name}</code>"}
            for profile in PROFILES:
                line[profile] = _values(paper.rows_at(profile), profile, name)
            lines.append(line)
    options = html.escape(_options(paper.rows)) or "–"
    lines.append({"setting": "method options"} | dict.fromkeys(PROFILES, options))
    return table(
        lines, "Settings of the profiles; where rows differ, each value names its rows."
    )


def _recipes(paper: Paper) -> list[tuple[Row, str]]:
    """Every row at every profile that it has."""
    pairs = []
    for profile in PROFILES:
        pairs += [(row, profile) for row in paper.rows_at(profile)]
    return pairs


def _applies(row: Row, profile: str, name: str) -> bool:
    """Whether the row's schedule reads the field."""
    schedule = row.recipes[profile].schedule
    return OF_SCHEDULE.get(name, schedule) == schedule


def _is_used(row: Row, profile: str, name: str) -> bool:
    value = getattr(row.recipes[profile], name)
    # A field that came later stands for what all rows did before, unless it is changed.
    still_default = name in LATER and value == getattr(Recipe(), name)
    return _applies(row, profile, name) and bool(value) and not still_default


def _values(rows: Sequence[Row], profile: str, name: str) -> str:
    """The field's values at a profile as HTML; several ones each with its rows."""
    by_value: dict[str, list[str]] = {}
    for row in rows:
        value = "–"
        if _applies(row, profile, name):
            value = html.escape(str(row.recipes[profile].as_dict()[name]))
        by_value.setdefault(value, []).append(row.name)
    if len(by_value) <= 1:  # none where the profile has no rows
        return "".join(by_value)

    listed = []
    for value, names in by_value.items():
        # A value of more than half of the rows is the rule; the others are exceptions.
        common = len(names) > max(6, len(rows) / 2)
        listed.append(f"{value} ({'all others' if common else ', '.join(names)})")
    return "; ".join(listed)


def _options(rows: Sequence[Row]) -> str:
    listed = []
    for row in rows:
        if row.options:
            listed.append(f"{_assignments(row.options)} ({row.name})")
    return "; ".join(listed)


def _assignments(values: dict) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values.items())


def tuning_table(found: list[dict]) -> Shown:
    """What was tried on validation, best first within a row: the changes to the base
    recipe, the validation accuracy, and which try the row's settings are. Tuning
    records hold no test number.
    """

    def best_first(record: dict) -> tuple[str, float]:
        return record["row"], -record["metrics"]["val"]["top1"]

    lines = []
    tries: dict[str, list[float]] = {}
    for record in sorted(found, key=best_first):
        change = _assignments(changes(record))
        score = 100 * record["metrics"]["val"]["top1"]
        tries.setdefault(record["row"], []).append(score)
        lines.append(
            {
                "row": html.escape(record["row"]),
                "change": f"<code>{html.escape(change)}</code>" if change else "none",
                "validation, %": measured(f"{score:.1f}", "val top1", [record]),
                "the row's": "<b>chosen</b>" if _is_chosen(record) else "",
            }
        )
    caption = f"Changes to the base recipe tried on validation images. {setting(found)}"
    if lines:
        numbers = ", ".join(f"{row} {len(scores)}" for row, scores in tries.items())
        caption += f" Tries: {numbers}. Chosen: what the row has now."
    lines = lines or [{"row": "–", "change": "–", "validation, %": "not run"}]
    return table(lines, caption, found, says=findings.of_tries(tries))


def _is_chosen(record: dict) -> bool:
    """Whether a try has the settings that its row has in the paper's file, but for the
    validation images, on which the row may train.
    """
    row = papers.get(record["paper"]).row(record["row"])
    recipe = row.recipes.get(record["profile"])
    if recipe is None or record["method"] != row.method:
        return False
    full = methods.options_of(row.method)
    if not same_options(full | record["options"], full | row.options):
        return False
    tried = Recipe.of(record["recipe"]).but(train_on=recipe.train_on)
    return _settings(tried) == _settings(recipe)


def _settings(recipe: Recipe) -> dict:
    """What matters of a recipe; a weight of 1 is that of a loss that is not named."""
    weights = tuple(pair for pair in recipe.loss_weights if pair[1] != 1.0)
    return recipe.but(loss_weights=weights).determinants()
