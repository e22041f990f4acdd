"""The whole table of explanations that are judged by experiment, from what is published
of it (:mod:`fgbook.evidence.causes`): networks by explanations by planted shares.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from ..evaluation.causal import Scores
from .base import NOT_YET, Shown, between, sentence, table
from .base import count as counted
from .causal import (
    NOTE,
    REACTIONS,
    Estimate,
    Found,
    beyond,
    estimate,
    of_maps,
    of_network,
    shortcut_figure,
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


def of_share(found: Table, share: int) -> Found:
    """Network -> its trainings with that planted share, where there are any."""
    return {network: each for (network, one), each in found.items() if one == share}


# ---- tables


def reactions_table(found: Table, lines: Sequence[dict] = ()) -> Shown:
    """What moves the prediction of each network that was trained without a shortcut."""
    networks = of_share(found, 0)
    if not networks:
        return NOT_YET
    rows = []
    for network, trainings in networks.items():
        row: dict[str, object] = {"network": network, "trainings": len(trainings)}
        for reaction, title in REACTIONS.items():
            row[title] = of_network(trainings, reaction).text()
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
    networks = of_share(found, 0)
    if not networks:
        return NOT_YET
    rows = []
    for network, trainings in networks.items():
        row: dict[str, object] = {"network": network, "trainings": len(trainings)}
        for name, title in BLIND.items():
            row[title] = of_maps(trainings, name, measure).text()
        row |= _by_explanation(trainings, _told_apart(measure))
        if measure != "effects":  # of which every picture has one
            row["pictures"] = of_maps(trainings, "bird", measure).count
        rows.append(row)
    return table(
        rows,
        f"{TITLES[measure]}. Bold: above the bird's mask on the same pictures, with"
        " 95 % confidence. A dash: not to be had of this network, or no picture in"
        f" which the prediction follows. {_made_of(networks)}",
        [line for line in lines if line["share"] == 0],
    )


def shares_table(found: Table, lines: Sequence[dict] = ()) -> Shown:
    """What networks do that were trained with a planted shortcut, and how much of each
    map lies on the background.
    """
    planted = {network for network, share in found if share}
    if not planted:
        return NOT_YET
    rows = []
    for (network, share), trainings in found.items():
        if network not in planted:
            continue
        row: dict[str, object] = {
            "network": network,
            "planted": f"{share} %",
            "trainings": len(trainings),
            "named rightly": of_network(trainings, "right").text(),
            "follows the attribute": of_network(trainings, "follows").text(),
            "follows the background": of_network(trainings, "planted").text(),
            "even map": of_maps(trainings, "even", "ground").text(),
        }
        rows.append(row | _by_explanation(trainings, _ground))
    return table(
        rows,
        "Networks trained with a background of its own for each sibling in this share"
        " of the pictures, and tested with any: what they do, and the share of each map"
        f" on the pixels that change with the background. {_made_of(found)}",
        [line for line in lines if line["network"] in planted],
    )


def _by_explanation(
    trainings: Sequence[Scores], cell: Callable[[Sequence[Scores], str], str]
) -> dict[str, str]:
    """A cell for each of the general explanations; those of the network's own share
    one.
    """
    names = trainings[0].maps
    row = {name: cell(trainings, name) if name in names else "–" for name in GENERAL}
    own = [
        f"{name.removeprefix('own ')}: {cell(trainings, name)}"
        for name in names
        if name not in GENERAL
    ]
    return row | {OWN: "<br>".join(own) or "–"}


def _told_apart(measure: str) -> Callable[[Sequence[Scores], str], str]:
    """A cell with a measure, bold where it is more than the bird's mask has."""

    def cell(trainings: Sequence[Scores], name: str) -> str:
        text = of_maps(trainings, name, measure).text()
        more = beyond(trainings, name, measure).low > 0
        return f"<b>{text}</b>" if more else text

    return cell


def _ground(trainings: Sequence[Scores], name: str) -> str:
    return of_maps(trainings, name, "ground").text()


def _made_of(found: dict) -> str:
    """What the numbers are made of, as sentences."""
    numbers = [len(trainings) for trainings in found.values()]
    scenes = len(next(iter(found.values()))[0].network["right"])
    least, most = min(numbers), max(numbers)
    trainings = counted(most, "training")
    if least < most:
        trainings = f"{least} to {trainings}"
    over = "other scenes and trainings"
    if most == 1:
        over = "other scenes"
    elif least == 1:
        over += " (where there is one training: other scenes)"
    return (
        f"{counted(scenes, 'scene')}, {trainings} a network. In brackets, with 95 %"
        f" confidence, what {over} could give.{NOTE}"
    )


# ---- in words


def finding(found: Table) -> Shown:
    """What the explanations point at, over all networks without a shortcut, as a few
    plain sentences.
    """
    networks = of_share(found, 0)
    if not networks:
        return NOT_YET
    follows = [of_network(each, "follows").mean for each in networks.values()]
    scenes = len(next(iter(networks.values()))[0].network["right"])
    trainings = sum(map(len, networks.values()))
    said = [
        f"{counted(len(networks), 'network')}, {counted(trainings, 'training')},"
        f" {scenes} scenes each. Where a network is right, its prediction follows the"
        f" telling attribute in {between(min(follows), max(follows), 2)} of the cases,"
        " network by network."
    ]
    for name in (*GENERAL, *_own_names(networks)):
        said.append(_of_one(networks, name))
    everything = [scores for each in networks.values() for scores in each]
    inside, on_cause = (of_maps(everything, "edges", m) for m in ("within", "energy"))
    said.append(
        f"The edges of the picture, which know no network: {on_cause.mean:.2f} on the"
        f" cause, and {inside.mean:.2f}."
    )
    return sentence(" ".join(one for one in said if one))


def _own_names(networks: Found) -> list[str]:
    """What networks show themselves, each name once."""
    names = [name for each in networks.values() for name in each[0].maps]
    return [name for name in dict.fromkeys(names) if name not in GENERAL]


def _of_one(networks: Found, name: str) -> str:
    """A sentence on one explanation."""
    having = [each for each in networks.values() if name in each[0].maps]
    if not having:
        return ""
    more = [beyond(each, name, "energy") for each in having]
    everything = [scores for each in having for scores in each]
    on_cause = of_maps(everything, name, "energy")
    bird = of_maps(everything, "bird", "energy")
    inside = of_maps(everything, name, "within")
    over = sum(one.low > 0 for one in more)
    under = sum(one.high < 0 for one in more)
    of = f"of {counted(len(having), 'network')}"
    return (
        f"{name[0].upper()}{name[1:]}: {on_cause.mean:.2f} of the map on the cause (the"
        f" bird's mask: {bird.mean:.2f}), more than the mask in {over} {of}, less in"
        f" {under}; a pixel of the cause is higher than another of the bird with"
        f" probability {inside.mean:.2f}."
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
    said = [f"{network}, trained with {_listed([f'{s}' for s in shares])} % planted."]
    for reaction, words, up in (
        ("right", "Named rightly", False),
        ("follows", "The telling attribute is followed", False),
        ("planted", "The planted background is followed", True),
    ):
        means = [of_network(each, reaction) for each in by_share]
        steps = [_change(a, b, reaction) for a, b in pairwise(by_share)]
        every = all((step.mean > 0) == up for step in steps)
        clear = sum(step.low > 0 if up else step.high < 0 for step in steps)
        way = "rises" if up else "falls"
        ever = f"it {way} with every step" if every else f"it does not {way} every time"
        whole = _change(by_share[0], by_share[-1], reaction)
        said.append(
            f"{words}: {_listed([one.text() for one in means])}; {ever}, beyond its"
            f" interval in {clear} of {len(steps)}; from the least to the most by"
            f" {whole.signed()}."
        )
    return sentence(" ".join(said))


def _change(
    before: Sequence[Scores], after: Sequence[Scores], reaction: str
) -> Estimate:
    """How much more of a reaction the networks after show, on the same scenes."""
    pairs = zip(before, after, strict=False)
    more = [b.network[reaction] - a.network[reaction] for a, b in pairs]
    return estimate(more, lowest=-1.0)


def _listed(texts: Sequence[str]) -> str:
    """As "a, b and c"."""
    return f"{', '.join(texts[:-1])} and {texts[-1]}"


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
        pairs = zip(least, most, strict=False)
        more = [b.maps[name]["ground"] - a.maps[name]["ground"] for a, b in pairs]
        change = estimate(more, lowest=-1.0)
        word = "cannot be told apart from no change"
        if change.low > 0:
            word = "notices it"
        elif change.high < 0:
            word = "goes the wrong way"
        before = of_maps(least, name, "ground").mean
        said.append(
            f"{name} {word} ({before:.2f} of the map on the background,"
            f" {change.signed()})"
        )
    even = of_maps(least, "even", "ground").mean
    return sentence(
        f"{network}, from {shares[0]} to {shares[-1]} % planted: {'; '.join(said)}. An"
        f" even map has {even:.2f} there."
    )
