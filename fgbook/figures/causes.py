"""The whole table of explanations that are judged by experiment, from what is published
of it (:mod:`fgbook.evidence.causes`): networks by explanations by planted shares.
"""

import html
from collections.abc import Sequence
from itertools import pairwise

from ..errors import count as counted
from ..errors import enumerated
from ..evaluation.causal import Scores
from .base import NOT_YET, Shown, between, measured, sources, table, without_tags
from .causal import (
    NOTE,
    REACTIONS,
    Estimate,
    Found,
    difference,
    estimates,
    more_ground,
    of_maps,
    of_network,
    of_networks,
    shortcut_figure,
    spreads_of,
)

Table = dict[tuple[str, int], list[Scores]]
"""(network, planted share in per cent) -> what was found, one a training."""

GENERAL = ("CAM", "Grad-CAM", "occlusion", "integrated gradients")
BLIND = {"edges": "edges of the picture", "bird": "the bird"}
OWN = "its own"
TITLES = {
    "energy": "Share of the map on the cause",
    "pointing": "How often the map's maximum is on the cause or near it",
    "within": "How probably a pixel of the cause is higher on the map than another of"
    " the bird's (one half: chance)",
    "effects": "Spearman's correlation, over all that can be changed in a picture, of"
    " the share of the map on it with what the change does to the log-odds",
}


def untouched(found: Table) -> Found:
    """Network -> its trainings without a planted shortcut, where there are any."""
    return {network: each for (network, share), each in found.items() if share == 0}


# ---- tables


def of_place(lines: Sequence[dict], network: str, share: int) -> list[dict]:
    """The published lines of a network with this planted share, one a training."""
    wanted = network, share
    return [line for line in lines if (line["network"], line["share"]) == wanted]


def _cell(one: Estimate, field: str, lines: Sequence[dict]) -> str:
    """An estimate, whose mean says by `field` what it is of which lines."""
    if not (lines and one.count):
        return one.text()
    mean, space, interval = one.text().partition(" ")
    return f"{measured(mean, f'causal {field}', lines)}{space}{interval}"


def reactions_table(found: Table, lines: Sequence[dict] = ()) -> Shown:
    """What moves the prediction of each network that was trained without a shortcut."""
    networks = untouched(found)
    if not networks:
        return NOT_YET
    columns = {
        reaction: of_networks(list(networks.values()), reaction)
        for reaction in REACTIONS
    }
    rows = []
    for place, (network, trainings) in enumerate(networks.items()):
        row: dict[str, object] = {"network": network, "trainings": len(trainings)}
        made = of_place(lines, network, 0)
        for reaction, column in columns.items():
            row[REACTIONS[reaction]] = _cell(column[place], reaction, made)
        rows.append(row)
    return table(
        rows,
        "What moves the prediction: share of the pictures that are named rightly; of"
        " those, the share that is named as the sibling once the attribute which tells"
        " them apart is the sibling's; and the share in which a change that tells"
        f" nothing moves it. {_made_of(networks)}",
        [line for line in lines if line["share"] == 0],
    )


def measure_table(found: Table, measure: str, lines: Sequence[dict] = ()) -> Shown:
    """A measure of each explanation of each network that was trained without a
    shortcut, beside what the edges and the bird's mask score on the same causes.
    """
    networks = untouched(found)
    if not networks:
        return NOT_YET
    everything = list(networks.values())
    made = [of_place(lines, network, 0) for network in networks]
    blind = {name: of_each(everything, name, measure) for name in BLIND}
    cells = _by_explanation(everything, measure, made, bold=True)
    rows = []
    for place, (network, trainings) in enumerate(networks.items()):
        row: dict[str, object] = {"network": network, "trainings": len(trainings)}
        for name, column in blind.items():
            row[BLIND[name]] = _cell(column[place], f"{measure} {name}", made[place])
        row |= cells[place]
        if measure != "effects":  # of which every picture has one
            row["pictures"] = of_maps(trainings, "bird", measure).count
        rows.append(row)
    return table(
        rows,
        f"{TITLES[measure]}. Bold: above {_yardstick(measure)}, with"
        " 95 % confidence. A dash: not to be had of this network, or no picture in"
        f" which the prediction follows. {_made_of(networks)}",
        [line for line in lines if line["share"] == 0],
    )


def _yardstick(measure: str) -> str:
    """What a map that knows the network has to beat."""
    return "chance" if measure == "within" else "the bird's mask on the same pictures"


def shares_table(found: Table, lines: Sequence[dict] = ()) -> Shown:
    """What networks do that were trained with a planted shortcut, and how much of each
    map lies on the background.
    """
    planted = {network for network, share in found if share}
    if not planted:
        return NOT_YET
    shown = {place: each for place, each in found.items() if place[0] in planted}
    everything = list(shown.values())
    made = [of_place(lines, network, share) for network, share in shown]
    columns = {
        "named rightly": ("right", of_networks(everything, "right")),
        "follows the attribute": ("follows", of_networks(everything, "follows")),
        "follows the background": ("planted", of_networks(everything, "planted")),
        "even map": ("ground even", of_each(everything, "even", "ground")),
    }
    cells = _by_explanation(everything, "ground", made)
    rows = []
    for line, ((network, share), trainings) in enumerate(shown.items()):
        row: dict[str, object] = {
            "network": network,
            "planted": f"{share} %",
            "trainings": len(trainings),
        }
        for title, (field, column) in columns.items():
            row[title] = _cell(column[line], field, made[line])
        rows.append(row | cells[line])
    return table(
        rows,
        "Networks trained with a background of its own for each sibling in this share"
        " of the pictures, and tested with any: what they do, and the share of each map"
        f" on the pixels that change with the background. {_made_of(shown)}",
        [line for line in lines if line["network"] in planted],
    )


def of_each(
    found: Sequence[Sequence[Scores]], name: str, measure: str, over: str = ""
) -> list[Estimate]:
    """A measure of an explanation, or of a control, of each of several networks that
    have it; `over`: what it has more than this control.
    """
    cells = []
    for trainings in found:
        cell = []
        for scores in trainings:
            of_map = scores.controls if name in scores.controls else scores.maps
            values = of_map[name][measure]
            cell.append(values - scores.controls[over][measure] if over else values)
        cells.append(cell)
    lowest = -1.0 if over or measure == "effects" else 0.0
    return estimates(cells, lowest)


def _by_explanation(
    found: Sequence[Sequence[Scores]],
    measure: str,
    made: Sequence[Sequence[dict]],
    bold: bool = False,
) -> list[dict[str, str]]:
    """Of each network a cell for each of the general explanations, and one for those of
    its own. made: the lines of each network; bold: where it is above the measure's
    yardstick.
    """
    rows: list[dict[str, str]] = [{name: "–" for name in GENERAL} for _ in found]
    own: list[list[str]] = [[] for _ in found]
    for name in dict.fromkeys(name for each in found for name in each[0].maps):
        places = [i for i, each in enumerate(found) if name in each[0].maps]
        having = [found[i] for i in places]
        column = of_each(having, name, measure)
        more = column
        if bold and measure != "within":
            more = of_each(having, name, measure, over="bird")
        chance = 0.5 if measure == "within" else 0.0
        for place, one, beyond in zip(places, column, more, strict=True):
            text = _cell(one, f"{measure} {name}", made[place])
            if bold and beyond.low > chance:
                text = f"<b>{text}</b>"
            if name in GENERAL:
                rows[place][name] = text
            else:
                own[place].append(f"{name.removeprefix('own ')}: {text}")
    for row, texts in zip(rows, own, strict=True):
        row[OWN] = "<br>".join(texts) or "–"
    return rows


def _made_of(found: dict) -> str:
    """What the numbers are made of, as sentences."""
    numbers = [len(trainings) for trainings in found.values()]
    scenes = len(next(iter(found.values()))[0].network["right"])
    least, most = min(numbers), max(numbers)
    trainings = counted(most, "training")
    if least < most:
        trainings = f"{least} to {trainings}"
    covers = "what other scenes could give."
    if most > 1:
        covers = (
            "what other scenes and trainings could give. How much trainings vary is"
            " estimated over all lines of a column together; where too little is known"
            " of that, a line of one training covers other scenes only."
        )
    return (
        f"{counted(scenes, 'scene')}, {trainings} a network. In brackets, with 95 %"
        f" confidence, {covers}{NOTE}"
    )


# ---- in words


def in_short(found: Table, network: str, lines: Sequence[dict] = ()) -> Shown:
    """The chapter's answer in three sentences: who points at the cause, and what the
    shortcut does to one network.
    """
    networks = untouched(found)
    if not networks:
        return NOT_YET
    beating = []
    for name in GENERAL:
        having = [each for each in networks.values() if name in each[0].maps]
        more = of_each(having, name, "energy", over="bird") if having else []
        over = sum(one.low > 0 for one in more)
        if having:
            beating.append(f"{name} in {over} of {len(having)}")
    said = [
        f"Of {counted(len(networks), 'network')}, each asked about the pictures in"
        " which its own prediction followed the change, these maps have clearly more"
        " of themselves on the changed pixels than the bird's mask has, which knows no"
        f" network: {', '.join(beating)}."
    ]
    shares = sorted(share for name, share in found if name == network)
    made: list[dict] = []
    if len(shares) > 1:
        before, after = found[network, shares[0]], found[network, shares[-1]]
        least = of_place(lines, network, shares[0])
        most = of_place(lines, network, shares[-1])
        made = [*most, *least]
        said.append(
            f"With a background planted for each sibling in {shares[-1]} % of the"
            f" training pictures, {network} follows the background in"
            f" {_mean(after, 'planted', most)} of the test pictures (without:"
            f" {_mean(before, 'planted', least)}) and the telling attribute in"
            f" {_mean(after, 'follows', most)} (without:"
            f" {_mean(before, 'follows', least)}). {_noticed(before, after)}"
        )
    words = " ".join(said)
    return Shown(
        f'<div class="fgbook-words"><p>{words}</p>{sources(made)}</div>',
        without_tags(words),
    )


def _mean(found: Sequence[Scores], reaction: str, lines: Sequence[dict]) -> str:
    """A share of the pictures, without its interval."""
    return _cell(of_network(found, reaction), reaction, lines).partition(" (")[0]


def _noticed(least: Sequence[Scores], most: Sequence[Scores]) -> str:
    """Which explanations notice the shortcut, as a sentence."""
    names = [name for name in least[0].maps if name in most[0].maps]
    seen = [name for name in names if more_ground(least, most, name).low > 0]
    if not seen:
        return "No explanation clearly has more of itself there."
    return f"More of itself is then there of {', '.join(seen)}."


def finding(found: Table) -> Shown:
    """What the general explanations point at, over all networks without a shortcut, as
    a few plain sentences.
    """
    networks = untouched(found)
    if not networks:
        return NOT_YET
    follows = [of_network(each, "follows").mean for each in networks.values()]
    trainings = sum(map(len, networks.values()))
    everything = [scores for each in networks.values() for scores in each]
    bird = of_maps(everything, "bird", "energy").mean
    edges = of_maps(everything, "edges", "energy").mean
    inside = of_maps(everything, "edges", "within").mean
    said = (
        f"{counted(len(networks), 'network')}, {counted(trainings, 'training')}: where"
        " one is right, its prediction follows the telling attribute in"
        f" {between(min(follows), max(follows), 2)} of the cases, network by network."
        f" Of the bird's mask {bird:.2f} lies on the cause, of the edges of the picture"
        f" {edges:.2f}; neither knows a network."
    )
    items = [_of_one(networks, name) for name in GENERAL]
    items.append(
        "The edges rank the cause above the rest of the bird with probability"
        f" {inside:.2f}: an explanation that does no better may be an edge detector."
    )
    return _points(said, [one for one in items if one])


def own_finding(found: Table) -> Shown:
    """The same of what networks show of themselves."""
    networks = untouched(found)
    names = [name for each in networks.values() for name in each[0].maps]
    own = [name for name in dict.fromkeys(names) if name not in GENERAL]
    if not own:
        return NOT_YET
    return _points("", [_of_one(networks, name) for name in own])


def _points(before: str, items: Sequence[str]) -> Shown:
    """Sentences as a list, after one of their own."""
    lines = "".join(f"<li>{html.escape(one)}</li>" for one in items)
    first = f"<p>{html.escape(before)}</p>" if before else ""
    return Shown(f"{first}<ul>{lines}</ul>", " ".join([before, *items]).strip())


def _of_one(networks: Found, name: str) -> str:
    """A sentence on one explanation."""
    having = [each for each in networks.values() if name in each[0].maps]
    if not having:
        return ""
    title = f"{name[0].upper()}{name[1:]}"
    by_network = of_each(having, name, "energy", over="bird")
    everything = [[scores for each in having for scores in each]]
    (on_cause,) = of_each(everything, name, "energy")
    if not on_cause.count:
        return f"{title}: its network follows in no picture, so nothing is to be seen."
    (more,) = of_each(everything, name, "energy", over="bird")
    (inside,) = of_each(everything, name, "within")
    over = sum(one.low > 0 for one in by_network)
    under = sum(one.high < 0 for one in by_network)
    return (
        f"{title}: {on_cause.mean:.2f} on the cause, {more.signed()} beside the bird's"
        f" mask; clearly more in {over} of {counted(len(having), 'network')}, less in"
        f" {under}; it ranks the cause above the rest of the bird with probability"
        f" {inside.text()}."
    )


# ---- the shortcut


def dose_figure(found: Table, network: str) -> Shown:
    """The shortcut of one network, by planted share, as curves."""
    shares = {
        share / 100: each for (name, share), each in found.items() if name == network
    }
    if len(shares) < 2:
        return NOT_YET
    return shortcut_figure(shares)


def dose(found: Table, network: str) -> Shown:
    """Whether each larger planted share does more to the prediction, in numbers."""
    shares = sorted(share for name, share in found if name == network)
    if len(shares) < 2:
        return NOT_YET
    by_share = [found[network, share] for share in shares]
    said = []
    for reaction, words, up in (
        ("right", "Named rightly", False),
        ("follows", "The telling attribute is followed", False),
        ("planted", "The planted background is followed", True),
    ):
        means = of_networks(by_share, reaction)
        values = [[one.network[reaction] for one in each] for each in by_share]
        spreads = spreads_of(values)
        steps = [
            difference(values[i], values[j], (spreads[i], spreads[j]))
            for i, j in pairwise(range(len(values)))
        ]
        every = all((step.mean > 0) == up for step in steps)
        clear = sum(step.low > 0 if up else step.high < 0 for step in steps)
        way = "rise" if up else "fall"
        ever = f"it does not {way} every time"
        if every:
            ever = f"it {way}s with every step"
        whole = difference(values[0], values[-1], (spreads[0], spreads[-1]))
        said.append(
            f"{words}: {enumerated(one.text() for one in means)}; {ever}, beyond its"
            f" interval in {clear} of {len(steps)}; from the least to the most by"
            f" {whole.signed()}."
        )
    names = enumerated(map(str, shares))
    return _points(f"{network}, trained with {names} % planted:", said)


def noticing(found: Table, network: str) -> Shown:
    """What each explanation makes of the shortcut: how much more of it lies on the
    background with most of it planted than with least.
    """
    shares = sorted(share for name, share in found if name == network)
    if len(shares) < 2:
        return NOT_YET
    least, most = found[network, shares[0]], found[network, shares[-1]]
    said = []
    for name in least[0].maps:
        if name not in most[0].maps:
            continue
        change = more_ground(least, most, name)
        word = "cannot be told apart from no change"
        if change.low > 0:
            word = "notices it"
        elif change.high < 0:
            word = "goes the wrong way"
        before = of_maps(least, name, "ground").mean
        said.append(
            f"{name[0].upper()}{name[1:]} {word}: {before:.2f} of the map on the"
            f" background, {change.signed()}."
        )
    even = of_maps(least, "even", "ground").mean
    return _points(
        f"{network}, from {shares[0]} to {shares[-1]} % planted. An even map has"
        f" {even:.2f} of itself on the background.",
        said,
    )
