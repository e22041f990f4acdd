"""What notebooks draw with: tables and figures from records and models.

Everything returned is a :class:`Shown`: HTML that carries its own caption, alternative
text and sources, so that it reads the same in Jupyter, in Colab, in the built book and
glued into another page. Pictures stand on a white card in light and dark themes alike;
colours are Okabe and Ito's, and never carry meaning alone.
"""

import base64
import copy
import html
import io
import json
from dataclasses import dataclass
from itertools import cycle

import matplotlib
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib import patheffects
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .. import paths
from ..backbones import Backbone
from ..data.dataset import DataSet, Split
from ..errors import InputError, unknown
from ..evaluation import classification
from ..evidence import verdicts
from ..images import augment
from ..methods.focus import Focus
from ..papers.spec import PROFILES, Claim, Paper, Table
from ..recipe import LATER, Recipe

OKABE_ITO = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "red": "#D55E00",
    "purple": "#CC79A7",
}
# The paper's Figure 2 draws regions 1-4 in red, green, blue and yellow. Line style and
# number tell them apart without colour.
REGION_STYLES = (
    ("#E0201B", "-"),
    ("#00A651", "--"),
    ("#2B6BFF", "-."),
    ("#FFD800", ":"),
)
STYLE = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 100,
    "font.size": 11,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "legend.frameon": False,
    "axes.grid": False,
}
QUICK_NOTE = (
    " Drawn birds and a network of seconds: it shows how the rows are run and has no"
    " bearing on the paper."
)
# inches; narrow, so that 11 points stay readable when the picture is shrunk to a phone
WIDTH = 5.6


@dataclass(frozen=True)
class Shown:
    """Something a notebook shows: `html`, and `text` where there is no HTML."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def glue(name: str, shown: Shown) -> None:
    """Display it, and keep it under `name` for the book's pages (outside the book's
    environment it is only displayed)."""
    try:
        from myst_nb import glue as keep
    except ImportError:  # Colab
        from IPython.display import display

        display(shown)
    else:
        keep(name, shown)


def figure(drawn: Figure, alt: str, caption: str, width: int | None = None) -> Shown:
    """A drawn figure as HTML. `alt` says what is to be seen, for those who cannot see
    it; `caption` says what it means. Both are plain text."""
    if not alt.strip() or not caption.strip():
        raise ValueError("a figure needs alternative text and a caption")
    with io.BytesIO() as buffer:
        drawn.savefig(
            buffer, format="png", dpi=170, bbox_inches="tight", pad_inches=0.08
        )
        picture = base64.b64encode(buffer.getvalue()).decode()
    limit = f' style="max-width:{width}px"' if width else ""
    return Shown(
        f'<figure class="fgbook-figure"><img src="data:image/png;base64,{picture}"'
        f' alt="{html.escape(alt)}"{limit}/>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>",
        f"[figure] {caption}",
    )


def table(
    lines: list[dict], caption: str, found: list[dict] = (), illustration: bool = False
) -> Shown:
    """A table as HTML, one dictionary a line; cells may hold HTML. Below it, folded,
    the records that it was made from and the command that repeats each."""
    frame = pd.DataFrame(lines)
    body = frame.to_html(escape=False, index=False, border=0, na_rep="–")
    mark = (
        '<span class="fgbook-illustration">illustration</span> ' if illustration else ""
    )
    return Shown(
        "<figure"
        f' class="fgbook-table"><figcaption>{mark}{html.escape(caption)}</figcaption><div'
        f' tabindex="0">{body}</div>{_sources(found)}</figure>',
        f"{caption}\n{_plain(frame)}",
    )


def _plain(frame: pd.DataFrame) -> str:
    strip = lambda cell: html.unescape(
        "".join(
            part.partition(">")[2] if i else part
            for i, part in enumerate(str(cell).split("<"))
        )
    )
    return frame.map(strip).to_string(index=False)


def _sources(found: list[dict]) -> str:
    if not found:
        return ""
    lines = "".join(
        f"<li>record <code>{html.escape(r['key'])}</code>:"
        f" <code>{html.escape(r['command'])}</code></li>"
        for r in found
    )
    return (
        "<details><summary>Records behind these numbers, and the commands that repeat"
        f" them</summary><ul>{lines}</ul></details>"
    )


def measured(text: str, field: str, found: list[dict], other: list[dict] = ()) -> str:
    """A measured number as HTML, marked with the field and the keys of the records that
    it comes from (and, for a difference, those compared with)."""
    keys = " ".join(r["key"] for r in found)
    versus = f' data-versus="{" ".join(r["key"] for r in other)}"' if other else ""
    title = f"{field} of record{'s' if len(found) + len(other) > 1 else ''} {keys}" + (
        f" against {' '.join(r['key'] for r in other)}" if other else ""
    )
    return (
        f'<span class="fgbook-measured" data-field="{html.escape(field)}"'
        f' data-records="{html.escape(keys)}"{versus}'
        f' title="{html.escape(title)}">{text}</span>'
    )


# ---- tables from records


def setting(found: list[dict]) -> str:
    """Under what conditions records were made, in one sentence: data set, network,
    image size, length, seeds, hardware. Differing values stand side by side."""
    if not found:
        return "Not run yet."

    def join(values) -> str:
        return " / ".join(dict.fromkeys(str(value) for value in values))

    seeds = len({r["seed"] for r in found})
    return (
        ", ".join(
            [
                join(
                    f"{r['dataset']}: {r['num_classes']} classes,"
                    f" {r['images']['train']} training and {r['images']['test']} test"
                    " images"
                    for r in found
                ),
                join(
                    f"{r['recipe']['backbone'].replace('none', 'own network')} at"
                    f" {r['recipe']['image_size']} px"
                    for r in found
                ),
                join(_count(r["train"]["epochs"], "epoch") for r in found),
                _count(seeds, "seed"),
                join(hardware(r) for r in found),
            ]
        )
        + "."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def hardware(record: dict) -> str:
    """The accelerator, or the processor with the number of cores used."""
    about = record["hardware"]
    return (
        about.get("gpu")
        or f"{about['cpu']} ({about['threads']} of {_count(about['cores'], 'core')})"
    )


def accuracy(found: list[dict], metric: str = "top1") -> tuple[float, float, float]:
    """Mean accuracy of the records of one row (one a seed) in percent, and its 95 %
    interval; `metric`: "top1", or "low_top1" at low resolution.

    The interval covers seeds and test images, as verdicts do; with one seed it is the
    Wilson interval, which covers test images only.
    """
    return share(np.stack([verdicts.per_image(record, metric) for record in found]))


def share(right: np.ndarray) -> tuple[float, float, float]:
    """:func:`accuracy` from answers (S, N) bool of S seeds on N images."""
    if len(right) == 1:
        low, high = classification.wilson(int(right.sum()), right.size)
        return 100 * float(right.mean()), 100 * low, 100 * high
    mean, half = verdicts.interval(100.0 * right, 100)
    return float(mean), max(0.0, float(mean - half)), min(100.0, float(mean + half))


def accuracy_table(paper: Paper, found: list[dict], printed: str = "cub") -> Shown:
    """One line a row of the paper: printed and measured top-1 accuracy with its 95 %
        interval, for records of one profile and data set.

    `printed` names the data set whose printed numbers stand beside, except beside quick
    runs: these are illustrations, and say so. Rows without a record are shown as not
    run, those that do not exist at the profile not at all.
    """
    lines, quick = [], any(r["profile"] == "quick" for r in found)
    profiles = {r["profile"] for r in found}
    for row in paper.rows:
        if profiles and not profiles & row.recipes.keys():
            continue
        of_row = [r for r in found if r["row"] == row.name]
        line = {"row": html.escape(row.title)}
        if not quick:
            line["printed, %"] = paper.printed_text(row.name, printed)
        if of_row:
            mean, low, high = accuracy(of_row)
            line["measured, %"] = measured(f"{mean:.1f}", "top1", of_row)
            line["95 % interval"] = measured(
                f"{low:.1f} to {high:.1f}", "top1 interval", of_row
            )
            line["seeds"] = len(of_row)
            seconds = np.mean([r["train"]["seconds"] for r in of_row])
            line["training"] = (
                f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
            )
            line["GFLOP an image"] = f"{of_row[0]['flops'] / 1e9:.2f}"
        else:
            line |= {
                "measured, %": "not run",
                "95 % interval": "–",
                "seeds": 0,
                "training": "–",
                "GFLOP an image": "–",
            }
        lines.append(line)
    what = "Top-1 accuracy on the test split and its 95 % interval. " + setting(found)
    note = (
        " Drawn birds or a network of minutes: it shows how the rows are run and has no"
        " bearing on the paper."
        if quick
        else ""
    )
    return table(lines, what + note, found, illustration=quick)


def printed_table(about: Table, found: list[dict]) -> Shown:
    """A table as printed, and beside each column what records of the paper profile
    measured there."""
    lines = []
    for label, values in about.cells.items():
        line = {"method": html.escape(label)}
        for column, value in zip(about.columns, values, strict=True):
            line[f"{column}, printed"] = (
                about.missing if value is None else f"{value:.1f}"
            )
            of_row = [
                r
                for r in found
                if r["row"] == about.rows.get(label) and r["dataset"] == column
            ]
            if any(r["dataset"] == column for r in found):
                line[f"{column}, measured"] = (
                    measured(f"{accuracy(of_row)[0]:.1f}", "top1", of_row)
                    if of_row
                    else "not run"
                )
        lines.append(line)
    return table(
        lines,
        f"{about.name}, {about.unit} as printed. {about.caption} "
        + (f"Measured: {setting(found)}" if found else "Not run here."),
        found,
    )


def judge(paper: Paper, found: list[dict]) -> list[verdicts.Verdict]:
    """A verdict for each claim of the paper, from records of one profile and data
    set."""
    of_row = lambda name: [r for r in found if r["row"] == name]
    return [
        verdicts.verdict(claim, of_row(claim.better), of_row(claim.worse))
        for claim in paper.claims
    ]


METRICS = {
    "top1": "top-1 accuracy, points",
    "low_top1": "top-1 accuracy at low resolution, points",
    "nll": "log-probability of the true class, nats",
    "heat_area": "area of the heat map, share of the image",
    "heat_strength": "strength of the heat map, log2",
    "heat_relative": "strength of the heat map against the logits, log2",
    "iou_image": "IoU with the object's box",
    "iou_foreground": "IoU of the foreground's box",
    "iou_foreground_mean": "IoU of the foreground's box",
    "maxbox_foreground": "MaxBoxAccV2 of the map",
    "focus_energy": "share of the map in the object's box",
    "focus_energy_backbone": "the same, before the gates",
    "focus_part": "maximum of the map on a part",
    "margin": "margin to the nearest other class, log2",
    "robust": "right answers under damage, share",
    "robust_noise": "right answers under noise, share",
    "robust_occlusion": "right answers under occlusion, share",
    "robust_distortion": "right answers under distortion, share",
    "robust_change": "right answers that damage costs, share",
}


def effect_field(claim: Claim) -> str:
    """The field of a claim's measured effect: "effect" and the metrics, where they are
    not the usual one."""
    names = dict.fromkeys((claim.metric, claim.worse_metric or claim.metric))
    return "effect" if list(names) == ["top1"] else f"effect {' '.join(names)}"


def verdict_table(paper: Paper, found: list[dict]) -> Shown:
    """One line a claim: printed and measured effect, its 95 % interval, and the verdict
    with its reason. Effects are in percentage points of top-1 accuracy; a column says
    so where they are not."""
    lines = []
    metrics = any(
        (c.metric, c.worse_metric or c.metric) != ("top1", "top1") for c in paper.claims
    )
    for verdict in judge(paper, found):
        claim, effect, field = (
            verdict.claim,
            verdict.effect,
            effect_field(verdict.claim),
        )
        better, worse = (
            [r for r in found if r["row"] == name]
            for name in (claim.better, claim.worse)
        )
        digits = 1 if verdicts.UNITS.get(claim.metric) == "points" else 3
        line = {"claim": f"<b>{claim.key}</b> {html.escape(claim.text)}"}
        if metrics:
            line["metric"] = html.escape(METRICS.get(claim.metric, claim.metric))
        lines.append(
            line
            | {
                "printed": (
                    "–"
                    if claim.printed_effect is None
                    else f"{claim.printed_effect:+.{digits}f}"
                ),
                "measured": (
                    measured(f"{effect.effect:+.{digits}f}", field, better, worse)
                    if effect
                    else "–"
                ),
                "95 % interval": (
                    measured(
                        f"{effect.low:+.{digits}f} to {effect.high:+.{digits}f}",
                        f"{field} interval",
                        better,
                        worse,
                    )
                    if effect
                    else "–"
                ),
                "seeds": effect.seeds if effect else 0,
                "verdict": f"<b>{html.escape(verdict.outcome)}</b>",
                # the numbers before the semicolon stand in the columns
                "why": html.escape(verdict.why.partition("; ")[2] or verdict.why),
            }
        )
    what = (
        "Claims, each with its metric: larger is better."
        if metrics
        else "Claims, in percentage points of top-1 accuracy."
    )
    return table(lines, f"{what} {setting(found)}", found)


def recipe_table(paper: Paper) -> Shown:
    """The settings of each profile as the paper's file holds them; where rows of a
    profile differ, each value with its rows.

    Settings that are off everywhere are left out.
    """
    # settings of one schedule only
    uses = {"step_epochs": "step", "step_factor": "step", "cycle_epochs": "cyclic"}
    lines = []
    for name in Recipe().as_dict():
        line, used = {"setting": f"<code>{name}</code>"}, False
        for profile in PROFILES:
            by_value: dict[str, list[str]] = {}
            for row in paper.rows_at(profile):
                recipe = row.recipes[profile].as_dict()
                applies = name not in uses or recipe["schedule"] == uses[name]
                used |= (
                    applies
                    and bool(recipe[name])
                    and not (name in LATER and recipe[name] == getattr(Recipe(), name))
                )
                by_value.setdefault(
                    html.escape(str(recipe[name])) if applies else "–", []
                ).append(row.name)
            # more names than this are not listed
            most = max(6, sum(map(len, by_value.values())) / 2)
            line[profile] = "; ".join(
                (
                    f"{value}"
                    f" ({'all others' if len(names) > most else ', '.join(names)})"
                    if len(by_value) > 1
                    else value
                )
                for value, names in by_value.items()
            )
        if used:
            lines.append(line)
    options = "; ".join(
        f"{', '.join(f'{k} = {v}' for k, v in row.options.items())} ({row.name})"
        for row in paper.rows
        if row.options
    )
    lines.append(
        {"setting": "method options"}
        | dict.fromkeys(PROFILES, html.escape(options) or "–")
    )
    return table(
        lines, "Settings of the profiles; where rows differ, each value names its rows."
    )


def tuning_table(found: list[dict]) -> Shown:
    """What was tried on validation, best first within a row: the changes to the base
    recipe and the validation accuracy. Tuning records hold no test number."""
    lines = []
    for r in sorted(found, key=lambda r: (r["row"], -r["metrics"]["val"]["top1"])):
        change = ", ".join(
            f"{name} = {value}" for name, value in r["overrides"].items()
        )
        lines.append(
            {
                "row": html.escape(r["row"]),
                "change": f"<code>{html.escape(change)}</code>" if change else "none",
                "validation, %": measured(
                    f"{100 * r['metrics']['val']['top1']:.1f}", "val top1", [r]
                ),
            }
        )
    lines = lines or [{"row": "–", "change": "–", "validation, %": "not run"}]
    return table(
        lines,
        f"Changes to the base recipe tried on validation images. {setting(found)}",
        found,
    )


def hits_table(found: list[dict]) -> Shown:
    """Where the regions lie, from records with ground truth, beside as many boxes of
    the same size placed at random."""
    lines, quick = [], any(r["profile"] == "quick" for r in found)
    found = [r for r in found if r["localisation"]]
    for name, title in HITS.items():
        of_name = [r for r in found if r["localisation"].get(name) is not None]
        for row in dict.fromkeys(r["row"] for r in of_name):
            of_row = [r for r in of_name if r["row"] == row]
            lines.append(
                {
                    "measure": title,
                    "row": html.escape(row),
                    "regions": _share(of_row, name),
                    "random boxes": _share(of_row, f"{name}_random"),
                }
            )
    lines = lines or [
        {"measure": "–", "row": "–", "regions": "not run", "random boxes": "–"}
    ]
    part = (
        ""
        if all(r["dataset"].startswith("fieldguide") for r in found)
        else (
            " Photographs come without marked telling parts; there any of CUB's fifteen"
            " parts counts."
        )
    )
    return table(
        lines,
        "Where the regions lie on the test images, with 95 % intervals over"
        f" images.{part} {setting(found)}",
        found,
        illustration=quick,
    )


HITS = {
    "hit_object": "regions whose centre lies on the bird",
    "hit_part": "regions that hold a telling part",
    "union_iou": "all regions together against the bird's box, IoU",
}


def _share(found: list[dict], name: str) -> str:
    """Mean over records as HTML; for a single one with its 95 % interval over
    images."""
    cell = measured(f"{_mean(found, name):.2f}", f"localisation {name}", found)
    if len(found) == 1:
        low, high = (
            found[0]["localisation"][f"{name}_{side}"] for side in ("low", "high")
        )
        cell += (
            " ("
            + measured(
                f"{low:.2f} to {high:.2f}", f"localisation {name} interval", found
            )
            + ")"
        )
    return cell


def _mean(found: list[dict], name: str) -> float:
    return float(np.mean([r["localisation"][name] for r in found]))


# ---- figures from records


def effects_figure(paper: Paper, found: list[dict]) -> Shown:
    """Effects of the claims with their 95 % intervals beside the printed effects (a
    forest plot), of those that are in percentage points."""
    judged = [
        v for v in judge(paper, found) if verdicts.UNITS.get(v.claim.metric) == "points"
    ]
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, 0.8 + 0.62 * len(judged)))
        axes = drawn.subplots()
        for place, verdict in enumerate(judged):
            claim, effect = verdict.claim, verdict.effect
            if claim.printed_effect is not None:
                axes.plot(
                    claim.printed_effect,
                    place - 0.16,
                    "D",
                    mfc="white",
                    mec=OKABE_ITO["red"],
                    ms=7,
                )
            if effect:
                error = [[effect.effect - effect.low], [effect.high - effect.effect]]
                axes.errorbar(
                    effect.effect,
                    place + 0.12,
                    xerr=error,
                    fmt="o",
                    color=OKABE_ITO["blue"],
                    capsize=4,
                    lw=2,
                )
        if any(v.claim.printed_effect is not None for v in judged):
            axes.plot(
                [], [], "D", mfc="white", mec=OKABE_ITO["red"], ms=7, label="printed"
            )
        if any(v.effect for v in judged):
            axes.errorbar(
                [],
                [],
                xerr=[],
                fmt="o",
                color=OKABE_ITO["blue"],
                capsize=4,
                lw=2,
                label="measured, 95 % interval",
            )
        axes.axvline(0, color="black", lw=1)
        axes.set(
            ylim=(len(judged) - 0.4, -0.6),
            yticks=range(len(judged)),
            yticklabels=[f"{v.claim.key}: {v.outcome}" for v in judged],
            xlabel="difference in accuracy, percentage points",
        )
        axes.tick_params(axis="y", length=0)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(
                loc="lower center",
                bbox_to_anchor=(0.4, 1.0),
                ncols=2,
                fontsize=10,
                handletextpad=0.3,
                columnspacing=1.2,
            )
    said = "; ".join(
        f"{v.claim.key} {v.outcome}"
        + (
            f", {v.effect.effect:+.1f} ({v.effect.low:+.1f} to {v.effect.high:+.1f})"
            if v.effect
            else ""
        )
        for v in judged
    )
    return figure(
        drawn,
        f"Forest plot of the claims' effects in percentage points. {said}.",
        "Effects of the claims: as printed (diamonds)"
        + (
            " and as measured on photographs with their 95 % intervals (dots). A claim"
            " holds when its whole interval lies right of zero."
            if any(v.effect for v in judged)
            else "; not measured yet."
        ),
    )


def curves_figure(found: list[dict]) -> Shown:
    """Validation accuracy and training loss by epoch, for the runs whose log is on this
    machine (published records come without)."""
    logs = {}
    for record in found:
        path = paths.runs() / record["key"] / "log.jsonl"
        if path.is_file():
            logs[f"{record['row']}, seed {record['seed']}"] = [
                json.loads(line)
                for line in path.read_text(encoding="utf-8").splitlines()
            ]
    if not logs:
        return Shown(
            "<p>No training logs on this machine: these records were found, not made"
            " here.</p>",
            "No training logs on this machine.",
        )
    measures = (
        {"val_top1": ("validation accuracy, %", 100.0)}
        if any(line["val_top1"] is not None for log in logs.values() for line in log)
        else {}
    )
    panels = []
    for name, (label, factor) in {
        **measures,
        "image": ("loss of the image head", 1.0),
    }.items():
        value = lambda line: line.get(name) if name in line else line["losses"][name]
        panels.append(
            (
                "epoch",
                label,
                {
                    run: {
                        line["epoch"]: factor * value(line)
                        for line in log
                        if value(line) is not None
                    }
                    for run, log in logs.items()
                },
                None,
            )
        )
    return sweep_figure(panels, "How training went, epoch by epoch.")


def hits_figure(found: list[dict]) -> Shown:
    """Localisation measures of the rows that have regions, beside boxes at random."""
    names = [
        name
        for name in HITS
        if any((r["localisation"] or {}).get(name) is not None for r in found)
    ]
    rows = list(dict.fromkeys(r["row"] for r in found if r["localisation"]))
    if not names:
        return Shown(
            "<p>This data set has no ground truth for regions.</p>",
            "This data set has no ground truth for regions.",
        )
    colours, hatches = (
        (
            OKABE_ITO["blue"],
            OKABE_ITO["orange"],
            OKABE_ITO["green"],
            OKABE_ITO["purple"],
        ),
        ("", "//", "..", "xx"),
    )
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, 3.2))
        axes = drawn.subplots()
        thick = 0.8 / (len(rows) + 1)
        for place, row in enumerate([*rows, None]):
            of_row = [
                r
                for r in found
                if r["localisation"] and r["row"] in ((row,) if row else rows)
            ]
            heights = [
                _mean(of_row, name if row else f"{name}_random") for name in names
            ]
            at = np.arange(len(names)) + (place - len(rows) / 2) * thick
            bars = axes.bar(
                at,
                heights,
                thick,
                label=row or "random boxes",
                color=colours[place] if row else "#BBBBBB",
                hatch=hatches[place] if row else None,
                edgecolor="white" if row else "#777777",
            )
            axes.bar_label(bars, fmt="%.2f", fontsize=9, padding=1)
        axes.set(
            ylim=(0, 1.08),
            xticks=range(len(names)),
            xticklabels=[
                {
                    "hit_object": "on the bird",
                    "hit_part": "on a telling part",
                    "union_iou": "IoU with its box",
                }[n]
                for n in names
            ],
        )
        axes.legend(fontsize=10, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    said = "; ".join(
        f"{HITS[name]}: "
        + ", ".join(
            f"{row}"
            f" {_mean([r for r in found if r['row'] == row and r['localisation']], name):.2f}"
            for row in rows
        )
        + ", random boxes"
        f" {_mean([r for r in found if r['localisation']], f'{name}_random'):.2f}"
        for name in names
    )
    return figure(
        drawn,
        f"Bar chart. {said}.",
        "Where the selected regions lie on the test images, beside as many boxes of the"
        " same size placed at random.",
    )


# ---- where a model looks


def spread(split: Split, count: int) -> Tensor:
    """Indices (count,) of images spread evenly over a split, the middles of equal
    stretches: chosen without looking at them."""
    count = min(count, len(split))
    return (torch.arange(count) * 2 + 1) * len(split) // (2 * count)


def variant(model: Focus, **settings) -> Focus:
    """A copy of a trained model with other test-time settings (m, l, threshold,
    attention), everything learned left as it is.

    A smaller `l` than was trained drops the last regions' weights from the hybrid head,
    as if their features were zero. Raises InputError for a setting that does not exist,
    and for an `l` larger than was trained.
    """
    other = copy.deepcopy(model)
    for name, value in settings.items():
        if name not in ("m", "l", "threshold", "attention"):
            raise unknown(
                "test-time setting", name, ("m", "l", "threshold", "attention")
            )
        setattr(other, name, value)
    if other.l > model.l:
        raise InputError(
            f"l = {other.l} regions cannot be read: the hybrid head was trained with"
            f" {model.l}."
        )
    if other.l < model.l:
        other.hybrid_head.weight = torch.nn.Parameter(
            model.hybrid_head.weight[:, : (1 + other.l) * model.backbone.channels]
            .detach()
            .clone()
        )
        other.hybrid_head.in_features = other.hybrid_head.weight.shape[1]
    return other


def attention_figure(
    model: Focus, data: DataSet, recipe: Recipe, count: int = 4
) -> Shown:
    """Attention maps of test images: maximum over all classes beside the map of the
    predicted and of the true class, and the top region of each."""
    index = spread(data.test, count)
    images, labels = (
        _seen(data.test, index, recipe, model),
        data.test.labels[index].to(_device(model)),
    )
    kinds = {"max": "maximum", "predicted": "predicted class", "true": "true class"}
    predicted = model.predict(images).argmax(1)
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, 0.25 + 1.36 * len(index)), layout="constrained")
        grid = drawn.subplots(len(index), 4, squeeze=False)
        for column, (kind, title) in enumerate([(None, "image"), *kinds.items()]):
            maps = (
                None
                if kind is None
                else variant(model, attention=kind).attention_map(images, labels)
            )
            for line in range(len(index)):
                axes = grid[line, column]
                _photo(
                    axes,
                    (
                        images[line]
                        if maps is None
                        else _lit(images[line], maps[line], model.backbone)
                    ),
                )
                if line == 0:
                    axes.set_title(title, fontsize=10.5)
                if column == 0:
                    right = bool(predicted[line] == labels[line])
                    axes.set_ylabel("right" if right else "wrong", fontsize=10.5)
    names = ", ".join(data.classes[k] for k in labels.tolist())
    return figure(
        drawn,
        f"Grid of {len(index)} test images ({names}) lit by three attention maps each:"
        " maximum over all classes, predicted class, true class. The network names"
        f" {int((predicted == labels).sum())} of them rightly.",
        "Attention maps, drawn as light that falls on the image: full light where the"
        " map is highest, dusk where it is lowest, each map on its own scale. Where the"
        " prediction (written at the left) is wrong, the maps of the predicted and of"
        " the true class are maps of different classes. Images spread evenly over the"
        " test split, not chosen by eye.",
    )


def regions_figure(
    model: Focus, data: DataSet, recipe: Recipe, count: int = 6
) -> Shown:
    """The four best regions of test images, in the manner of the paper's Figure 2: red,
    green, blue, yellow."""
    index = spread(data.test, count)
    images = _seen(data.test, index, recipe, model)
    boxes = model.regions(images)[:, : len(REGION_STYLES)].cpu()
    columns = 3
    with matplotlib.rc_context(STYLE):
        drawn = Figure(
            figsize=(WIDTH, 1.95 * -(-len(index) // columns)), layout="constrained"
        )
        grid = list(
            drawn.subplots(-(-len(index) // columns), columns, squeeze=False).flat
        )
        for axes, image, regions in zip(grid, images, boxes, strict=False):
            _photo(axes, image)
            for place in reversed(range(len(regions))):
                _box(axes, regions[place], *REGION_STYLES[place], text=str(place + 1))
        for axes in grid[len(index) :]:
            axes.set_visible(False)
    return figure(
        drawn,
        f"{len(index)} test images with their four best regions drawn as numbered"
        " squares: 1 red solid, 2 green dashed, 3 blue dash-dotted, 4 yellow dotted.",
        "The four best regions in the manner of the paper's Figure 2: first red"
        " (solid), second green (dashed), third blue (dash-dotted), fourth yellow"
        " (dotted). Images spread evenly over the test split, not chosen by eye.",
    )


def sweep_figure(
    panels: list[tuple[str, str, dict[str, dict[float, float]], float | None]],
    caption: str,
    zero: bool = False,
) -> Shown:
    """Panels of curves below each other: (x label, y label, {curve name: {x: y}}, the x
    that was trained with or None). `zero`: vertical axes hold 0. The alternative text
    lists all values."""
    marks = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"))
    colours = (
        OKABE_ITO["blue"],
        OKABE_ITO["red"],
        OKABE_ITO["green"],
        OKABE_ITO["purple"],
    )
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, 2.5 * len(panels)), layout="constrained")
        for axes, (x_label, y_label, curves, trained) in zip(
            drawn.subplots(len(panels), squeeze=False).flat, panels, strict=True
        ):
            for (name, points), (marker, line), colour in zip(
                curves.items(), cycle(marks), cycle(colours)
            ):
                axes.plot(
                    list(points),
                    list(points.values()),
                    marker=marker,
                    ls=line,
                    color=colour,
                    label=name,
                )
            if trained is not None:
                axes.axvline(trained, color="#777777", lw=1, ls=(0, (1, 2)), zorder=0)
            axes.set(xlabel=x_label, ylabel=y_label)
            if zero:
                low, high = axes.get_ylim()
                axes.set_ylim(min(0, low), high + 0.06 * (high - min(0, low)))
            if all(float(x).is_integer() for points in curves.values() for x in points):
                axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(axis="y", color="#DDDDDD", lw=0.7)
            axes.set_axisbelow(True)
            if len(curves) > 1:
                axes.legend(
                    fontsize=10,
                    ncols=2,
                    loc="lower left",
                    bbox_to_anchor=(-0.02, 1.0),
                    columnspacing=1.2,
                    handlelength=2.4,
                )
    said = " ".join(
        f"{y} against {x}{f' ({name})' if name else ''}: "
        + ", ".join(f"{at:g}: {value:.4g}" for at, value in points.items())
        + "."
        for x, y, curves, _ in panels
        for name, points in curves.items()
    )
    return figure(drawn, f"Curves. {said}", caption)


# ---- data sets


def pictures(
    images: Tensor, titles: list[str], alt: str, caption: str, columns: int = 4
) -> Shown:
    """Pictures (N, 3, S, S) uint8 in a grid, each with its title (empty: none)."""
    with matplotlib.rc_context(STYLE):
        lines = -(-len(images) // columns)
        drawn = Figure(
            figsize=(WIDTH, WIDTH / columns * lines * (1.16 if any(titles) else 1.0)),
            layout="constrained",
        )
        grid = list(drawn.subplots(lines, columns, squeeze=False).flat)
        for axes, image, title in zip(grid, images, titles, strict=False):
            _photo(axes, image.float() / 255)
            axes.set_title(title, fontsize=8, pad=3)
        for axes in grid[len(images) :]:
            axes.set_visible(False)
    return figure(drawn, alt, caption)


def ground_truth(data: DataSet, count: int = 3) -> Shown:
    """Test images with everything that is known about them: box, mask, visible parts,
    the parts that tell siblings apart."""
    split, index = data.test, spread(data.test, count)
    with matplotlib.rc_context(STYLE):
        drawn = Figure(
            figsize=(WIDTH, 2 * WIDTH / len(index) + 0.2), layout="constrained"
        )
        grid = drawn.subplots(2, len(index), squeeze=False)
        for column, i in enumerate(index.tolist()):
            above, below = grid[:, column]
            _photo(above, split.images[i].float() / 255)
            _box(above, split.boxes[i], "#FFFFFF", "-")
            for box in split.part_boxes[i] if split.part_boxes is not None else []:
                if not box.isnan().any():
                    _box(above, box, OKABE_ITO["orange"], "--")
            if split.parts is not None:
                seen = split.parts[i][split.parts[i][:, 2] > 0]
                above.plot(
                    seen[:, 0],
                    seen[:, 1],
                    "o",
                    ms=4,
                    mfc=OKABE_ITO["sky"],
                    mec="black",
                    mew=0.6,
                )
            below.imshow(
                (
                    split.masks[i]
                    if split.masks is not None
                    else np.zeros((data.size, data.size))
                ),
                cmap="gray_r",
                vmin=0,
                vmax=1,
            )
            below.set(xticks=[], yticks=[])
            below.spines[:].set_visible(False)
            above.set_title(data.classes[int(split.labels[i])], fontsize=8.5, pad=3)
    return figure(
        drawn,
        f"{len(index)} pictures with a white box round the bird, orange dashed boxes"
        " round its telling parts and blue dots on its visible parts; below each, the"
        " bird's mask in black.",
        "What is known about each picture: the bird's box (white), the parts that tell"
        " its species from its siblings (orange, dashed), the parts that can be seen"
        " (dots), and the mask (below).",
    )


# ---- helpers


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


def _seen(
    split: Split, index: Tensor, recipe: Recipe, model: torch.nn.Module
) -> Tensor:
    """The images as evaluation sees them, (B, 3, s, s) in [0, 1], on the model's
    device."""
    return augment.centre(split.images[index].to(_device(model)), recipe.image_size)


def _lit(image: Tensor, attention: Tensor, backbone: Backbone) -> Tensor:
    """The image (3, s, s), dimmed to an eighth where the map (h, w) is lowest. Needs no
    colour scale, so the bird keeps its colours."""
    low, high = attention.min(), attention.max()
    light = (attention - low) / (high - low).clamp(min=1e-9)
    # Each pixel takes the light of the cells that look at it: pixel x lies at cell (x +
    # 0.5 - first) / stride.
    side = image.shape[-1]
    cell = (
        torch.arange(side, device=image.device) + 0.5 - backbone.first
    ) / backbone.stride
    place = (2 * cell + 1) / light.shape[-1] - 1  # grid_sample counts from -1 to 1
    grid = torch.stack([place.expand(side, -1), place[:, None].expand(-1, side)], -1)[
        None
    ]
    return image * (
        0.125
        + 0.875
        * F.grid_sample(
            light[None, None], grid, padding_mode="border", align_corners=False
        )[0, 0]
    )


def _photo(axes, image: Tensor) -> None:
    """An image (3, H, W) in [0, 1] without ticks; pixel i covers [i, i + 1], as boxes
    count."""
    picture = image.detach().cpu().permute(1, 2, 0).numpy()
    extent = (0, picture.shape[1], picture.shape[0], 0)
    axes.imshow(picture.clip(0, 1), extent=extent)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _box(axes, box: Tensor, colour: str, line: str, text: str = "") -> None:
    """A box (4,) xyxy as an outline that stands off light and dark grounds, with a
    label in its upper left corner."""
    left, top, right, bottom = box.tolist()
    outline = [
        patheffects.Stroke(
            linewidth=3.6, foreground="black" if colour != "#000000" else "white"
        ),
        patheffects.Normal(),
    ]
    axes.plot(
        [left, right, right, left, left],
        [top, top, bottom, bottom, top],
        color=colour,
        ls=line,
        lw=2,
        path_effects=outline,
        clip_on=False,
        solid_joinstyle="miter",
    )
    if text:
        axes.text(
            left,
            top,
            text,
            fontsize=8,
            fontweight="bold",
            color="black" if colour in ("#FFD800", "#FFFFFF") else "white",
            ha="left",
            va="top",
            bbox={
                "facecolor": colour,
                "edgecolor": "black",
                "linewidth": 0.6,
                "pad": 1.4,
            },
        )
