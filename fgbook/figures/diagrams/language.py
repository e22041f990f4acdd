"""The language of diagrams: nodes of a few kinds in stages and lanes, and arrows
between them, written as chains such as ``image > backbone > maps``.

What a method does at test time too is solid, what it does in training alone dashed;
that follows from the arrows.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Node:
    """Something in a diagram.

    kind: a sign of ``glyphs.SIGNS``, or a shape with text in it: "net" (the backbone),
        "frozen" (one that does not learn), "layer" (what else learns), "rest" (one that
        does not), "step" (nothing there could learn), "head", "loss", or "answer" (what
        is used at test time).
    stage, lane: its place, in the direction in which a method runs and across it.
    label: its text; options of the method in braces. A loss has the name that the
        method gives it, and behind a colon what it is where it is no cross-entropy.
    module: the parts of the model with its weights, as dotted names, with spaces.
    n: how many there are, or an option's name.
    training: there in training alone, although what follows is not.
    """

    kind: str
    stage: float
    lane: float
    label: str = ""
    module: str = ""
    n: int | str = 1
    training: bool = False


@dataclass(frozen=True)
class Arrow:
    """From node to node; `stopped` where no gradient comes back."""

    source: str
    target: str
    stopped: bool = False

    def related(self, other: "Arrow") -> bool:
        """Whether they come from one node, or lead to one."""
        return self.source == other.source or self.target == other.target


def arrows(text: str) -> Iterator[Arrow]:
    """A line for each chain: ``image > backbone > maps``; ``|>`` where the gradient
    stops. Names are those of nodes.
    """
    for chain in filter(None, map(str.strip, text.splitlines())):
        first, *rest = re.split(r"\s*(\|?>)\s*", chain)
        for kind, target in zip(rest[::2], rest[1::2], strict=True):
            yield Arrow(first, target, kind == "|>")
            first = target


@dataclass(frozen=True, eq=False)
class Diagram:
    """A method as it is drawn.

    method, options: which one; of several options, as of a method's two parts, the last
        ones predict. The numbers in labels are the first ones', or the defaults.
    says: the caption, one or two sentences.
    """

    title: str
    method: str
    nodes: Mapping[str, Node]
    flow: str
    says: str
    options: tuple[Mapping[str, Any], ...] = ({},)

    @cached_property
    def arrows(self) -> tuple[Arrow, ...]:
        """All of them; raises KeyError for a node that is not there."""
        found = tuple(arrows(self.flow))
        for arrow in found:
            self.nodes[arrow.source], self.nodes[arrow.target]
        return found

    @cached_property
    def values(self) -> dict[str, Any]:
        """The options with their values."""
        if not self.method:
            return {}
        from ...methods import options_of

        return options_of(self.method) | dict(self.options[0])

    def label(self, name: str) -> str:
        """A node's text, with numbers."""
        return self.nodes[name].label.format(**self.values)

    def count(self, name: str) -> int:
        """How many it stands for."""
        n = self.nodes[name].n
        return n if isinstance(n, int) else int(str(f"{{{n}}}").format(**self.values))

    @cached_property
    def losses(self) -> dict[str, str]:
        """The name of each loss -> its node."""
        found = {}
        for name, node in self.nodes.items():
            if node.kind == "loss":
                found[self.label(name).partition(":")[0]] = name
        return found

    def before(self, name: str, gradient: bool = False) -> set[str]:
        """What leads to a node, and the node; with `gradient` what learns from it."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            node = waiting.pop()
            found.add(node)
            for arrow in self.arrows:
                if arrow.target == node and not (gradient and arrow.stopped):
                    waiting += {arrow.source} - found
        return found

    @cached_property
    def at_test(self) -> set[str]:
        """The nodes that act at test time: what leads to an end that is no loss."""
        found: set[str] = set()
        sources = {arrow.source for arrow in self.arrows}
        for name, node in self.nodes.items():
            if name not in sources and node.kind != "loss":
                found |= self.before(name)
        return {name for name in found if not self.nodes[name].training}

    def dashed(self, arrow: Arrow) -> bool:
        """Whether it is there in training alone."""
        return not {arrow.source, arrow.target} <= self.at_test

    @cached_property
    def words(self) -> str:
        """The diagram as text: what each node leads to."""
        said = []
        for name in self.nodes:
            to = [one.target for one in self.arrows if one.source == name]
            if to:
                said.append(f"{self._word(name)} to {', '.join(map(self._word, to))}")
        text = "; ".join(said)
        return f"{text[:1].upper()}{text[1:]}."

    def _word(self, name: str) -> str:
        label = self.label(name)
        return f"loss {label}" if self.nodes[name].kind == "loss" else label


# ---- kinds of nodes


def photo(stage: float, lane: float, label: str = "image") -> Node:
    """The image that comes in."""
    return Node("photo", stage, lane, label)


def net(stage: float, lane: float, label: str = "backbone") -> Node:
    """The backbone; wherever it is met, the same one."""
    return Node("net", stage, lane, label, "backbone")


def again(stage: float, lane: float) -> Node:
    """The backbone, met once more."""
    return net(stage, lane, "same backbone")


def maps(stage: float, lane: float, label: str = "maps") -> Node:
    """What comes out of it."""
    return Node("maps", stage, lane, label)


def step(stage: float, lane: float, label: str) -> Node:
    """What is computed without any weights."""
    return Node("step", stage, lane, label)


def layer(stage: float, lane: float, label: str, module: str) -> Node:
    """What learns, and is no head."""
    return Node("layer", stage, lane, label, module)


def head(stage: float, lane: float, label: str, module: str) -> Node:
    """A classifier."""
    return Node("head", stage, lane, label, module)


def loss(stage: float, lane: float, label: str) -> Node:
    """A loss, by its name in the code."""
    return Node("loss", stage, lane, label)


def answer(stage: float, lane: float, label: str = "prediction") -> Node:
    """What is used at test time."""
    return Node("answer", stage, lane, label)


LOOK = {"image": photo(0, 0), "backbone": net(1, 0), "maps": maps(2, 0)}
"""The first look, with which nearly all begin."""
FIRST = "image > backbone > maps\n"
