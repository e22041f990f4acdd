"""The species of fieldguide: attribute vectors, grouped in genera whose siblings differ
in one or two local attributes.

A species is a row of numbers, one for each name in ATTRIBUTES; all but two are indices
into the tables below. A genus has a palette and a build that no other genus has. Its
four siblings share everything except two attributes with two values each, so that two
siblings differ in one or two places on the bird. Genera alternate between the pools
`source` and `target`, which therefore have no species in common.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, unknown

POOLS = ("target", "source")
SIBLINGS = 4
# fmt: off
ATTRIBUTES = (
    "bill length", "bill curve", "bill colour", "crown", "crest", "eye ring", "face",
    "throat", "breast", "wing bars", "tail shape", "tail tip", "leg colour", "palette",
    "build",
)
# fmt: on

# fmt: off
WORDS = {
    "bill length":  ("short bill", "medium bill", "long bill"),
    "bill curve":   ("straight bill", "down-curved bill"),
    "bill colour":  ("blackish bill", "yellow bill", "orange-red bill",
                     "pink bill", "blue-grey bill"),
    "crown":        ("plain crown", "contrasting cap"),
    "crest":        ("no crest", "short crest", "long crest"),
    "eye ring":     ("no eye ring", "white eye ring", "yellow eye ring"),
    "face":         ("plain face", "pale eyebrow", "dark eye stripe"),
    "throat":       ("plain throat", "coloured throat"),
    "breast":       ("plain breast", "streaked breast", "spotted breast",
                     "banded breast"),
    "wing bars":    ("no wing bar", "one wing bar", "two wing bars"),
    "tail shape":   ("square tail", "forked tail", "rounded tail", "pointed tail"),
    "tail tip":     ("plain tail", "white tail tip", "white tail bar"),
    "leg colour":   ("blackish legs", "pink legs", "yellow legs",
                     "orange-red legs", "blue-grey legs"),
}
# fmt: on
"""What a person calls the values of the local attributes; the drawing knows them by
index.
"""

LOCAL = tuple(WORDS)
"""The attributes that can tell siblings apart, in the order of part-box areas."""

# What a genus can vary: attribute and the two values of its siblings. The first
# contrast of a genus is one of FINE, which move little paint about: seen from afar, or
# reduced to a quarter of the side, such siblings are the same bird. The second is one
# of all.
# fmt: off
FINE = (
    ("wing bars", 1, 2),     ("breast", 1, 3),        ("tail tip", 1, 2),
    ("eye ring", 0, 1),      ("breast", 1, 2),        ("face", 0, 1),
    ("tail shape", 0, 1),    ("breast", 2, 3),        ("bill curve", 0, 1),
    ("eye ring", 1, 2),      ("bill length", 0, 1),   ("face", 0, 2),
    ("eye ring", 0, 2),      ("tail shape", 1, 3),
)
BOLD = (
    ("wing bars", 0, 2),     ("leg colour", 0, 3),    ("crown", 0, 1),
    ("throat", 0, 1),        ("bill colour", 0, 2),   ("crest", 0, 1),
    ("tail tip", 0, 1),      ("breast", 0, 1),        ("bill length", 0, 2),
    ("leg colour", 1, 2),    ("breast", 0, 2),        ("face", 1, 2),
    ("wing bars", 0, 1),     ("tail tip", 0, 2),      ("crest", 1, 2),
    ("bill colour", 1, 4),   ("breast", 0, 3),        ("tail shape", 0, 3),
    ("leg colour", 2, 4),
)
# fmt: on
# Areas of the bird; two contrasts of one genus never share one.
AREA = {
    "bill length": "bill",
    "bill curve": "bill",
    "bill colour": "bill",
    "crown": "crown",
    "crest": "crown",
    "eye ring": "face",
    "face": "face",
    "throat": "throat",
    "breast": "breast",
    "wing bars": "wing",
    "tail shape": "tail",
    "tail tip": "tail",
    "leg colour": "legs",
}


def _rgb(colours: str) -> tuple[tuple[int, ...], ...]:
    """Colours written as six hexadecimal digits -> (red, green, blue), 0 to 255."""
    return tuple(tuple(bytes.fromhex(colour)) for colour in colours.split())


# fmt: off
PALETTES = {
    # upperparts, underparts, wing coverts, flight feathers, cap, throat, tail
    "olive and yellow":    _rgb("7a803e e8ce5c 626838 3e3e2e 2c2c26 ce6022 4e5032"),
    "slate and rust":      _rgb("5c7088 d4824e 526278 303846 242a36 f6ecdc 3a4454"),
    "brown and buff":      _rgb("8e6844 ecd6b0 7c5838 503826 582e18 c47842 62462e"),
    "grey and white":      _rgb("8e9296 f0eee8 767a80 42444a 26262a 54565c 4c4e54"),
    "blue and cream":      _rgb("487ab0 f6e8ca 3e689c 283a5c 1c2c5c e4a45c 2e4e7e"),
    "green and white":     _rgb("6c9252 eef0e0 5a7e48 3a4c34 32462c f0d65a 445c3a"),
    "rufous and grey":     _rgb("a85834 ceccca 8e4c30 52342a 462822 f8f0e6 78402a"),
    "black and orange":    _rgb("343032 ee8e30 3c383a 222022 f0a032 282426 2c282a"),
    "plum and rose":       _rgb("805268 e8b4b6 6c465c 462e3e 96283e b63c52 523648"),
    "sand and white":      _rgb("c6aa80 f8f2e6 ae926a 6a5640 785432 5c4a3a 826a4e"),
    "yellow and grey":     _rgb("deba38 d8dadc a4903e 4c4838 302e28 464648 605a3e"),
    "teal and apricot":    _rgb("3a7e7c f4c492 326c6c 224246 183e48 ce603e 285456"),
    "chestnut and cream":  _rgb("804228 f6e4c4 6e3c28 422a22 2c1e1a 3a261e 543024"),
    "charcoal and lemon":  _rgb("4e5258 f4e276 464a50 2a2c32 e8d24a 3a3c42 32343a"),
    "red and tan":         _rgb("ba3e32 e8c49c 8c3a32 4a2e2c 781c1e 962222 62302e"),
    "violet and ash":      _rgb("625898 d6d4dc 544c84 343050 362a68 7a4284 3e3860"),
    "moss and salmon":     _rgb("687054 eea488 5a624a 3a3e32 3e4230 f6e8d6 444838"),
    "sky and white":       _rgb("80aace f4f4f2 6c94ba 40546e 3a6092 5c80a8 4c6888"),
    "umber and gold":      _rgb("68523e e2b052 5a4838 382e26 e4ba54 5c3222 42362c"),
    "ink and white":       _rgb("3a4254 f4f2ec 363e50 222632 1e202a 9c382c 282e3c"),
    "lime and lemon":      _rgb("9eb242 f6ee96 82963c 48542c 5e762a 545e2e 586632"),
    "cinnamon and pink":   _rgb("b88058 f2cec4 9e6c4c 5e4234 74422e ce6260 704e3c"),
    "pewter and wine":     _rgb("767a84 a44e54 666a74 3c3e46 2c2e36 eee6e0 464852"),
    "fawn and sulphur":    _rgb("aa9670 f0e8a6 94805e 584c3a 62543a e2be48 685a44"),
}
MARKS = {  # by index of the attribute
    "bill colour":  _rgb("2c2828 eaba36 de582e e09688 7488a0"),
    "leg colour":   _rgb("322c2a de9684 eab630 e25c2a 6c829e"),
    "eye ring":     _rgb("faf8f0 faf8f0 fad842"),
}
BUILDS = {
    # plumpness, head size, uprightness (degrees), leg length, wing length, tail length,
    # bill length factor, bill depth
    "warbler":    (0.94, 0.98, 36.0, 0.25, 0.66, 0.42, 0.90, 0.042),
    "finch":      (1.04, 1.06, 40.0, 0.21, 0.68, 0.40, 0.80, 0.088),
    "thrush":     (1.00, 0.96, 44.0, 0.29, 0.70, 0.44, 1.05, 0.050),
    "flycatcher": (0.92, 1.06, 54.0, 0.18, 0.72, 0.46, 0.95, 0.054),
    "tit":        (1.06, 1.16, 34.0, 0.23, 0.62, 0.42, 0.72, 0.050),
    "wagtail":    (0.90, 0.92, 28.0, 0.30, 0.66, 0.66, 1.00, 0.040),
}
# fmt: on

# fmt: off
_KIND = (
    "Fernlet", "Reedcreeper", "Copsebird", "Heathling", "Brookchat", "Thornwren",
    "Willowtit", "Larchfinch", "Mossbird", "Gorsechat", "Fenwarbler", "Hazelthrush",
    "Duneling", "Alderfinch", "Marshlet", "Rowanbird", "Cloudchat", "Birchwren",
    "Stonetail", "Meadowling", "Pinefinch", "Shorelet", "Bramblebird", "Cressling",
    "Oakcreeper", "Sedgetail", "Flaxfinch", "Hollywren", "Ivybird", "Tarnchat",
    "Maplethrush", "Cliffling", "Juniperbird", "Ashcreeper", "Nettlewren",
    "Poplarfinch",
)
# second to fourth round of the kinds: "Glen Fernlet"
_SUFFIXED = ("Dawn", "Ember", "Frost", "Glen")
_EPITHETS = (
    "Northern", "Upland", "Island", "Coastal", "Eastern", "Lowland", "Mountain",
    "Valley", "Southern", "Forest", "Lake", "River", "Western", "Hill", "Plains",
    "Canyon",
)
# fmt: on


class Species(NamedTuple):
    """The species of B birds."""

    values: Tensor  # (B, A) float32, ATTRIBUTES
    # (B, 4, A) all siblings of the genus: they are framed alike, and the boxes of their
    # telling parts agree
    siblings: Tensor
    differ: Tensor  # (B, 2) int64: where siblings differ, indices into LOCAL

    def part(self, some: slice) -> "Species":
        """Those of some of the birds."""
        return Species(*(rows[some] for rows in self))


@dataclass(frozen=True)
class Table:
    """N species of one pool."""

    names: list[str]
    values: Tensor  # (N, A) float32, ATTRIBUTES
    # (N, 4, A) float32: all siblings of the genus, the species itself among them
    siblings: Tensor
    # (N, 2) int64: the attributes in which siblings differ, indices into LOCAL
    differ: Tensor

    def __len__(self) -> int:
        return len(self.names)

    def of(self, label: Tensor) -> Species:
        """The species of birds with these labels (B,)."""
        return Species(self.values[label], self.siblings[label], self.differ[label])


@dataclass(frozen=True)
class _Genus:
    number: int  # over both pools
    base: dict[str, int]  # attributes that the siblings share
    first: tuple[str, int, int]  # a contrast: attribute and two values
    second: tuple[str, int, int]

    def siblings(self) -> list[tuple[float, ...]]:
        """The attribute vectors of its four species: each value of the first contrast
        with each of the second.
        """
        (one, *ones), (two, *twos) = self.first, self.second
        rows = []
        for value in ones:
            for other in twos:
                attributes = {**self.base, one: value, two: other}
                rows.append(tuple(float(attributes[name]) for name in ATTRIBUTES))
        return rows

    def name(self, sibling: int) -> str:
        """The name of a species, such as "Northern Glen Fernlet"."""
        turn, kind = divmod(self.number, len(_KIND))
        # 3 and 5 have no factor in common with the number of epithets, so that siblings
        # and neighbours get different ones
        words = [_EPITHETS[(self.number * 3 + sibling * 5) % len(_EPITHETS)]]
        if turn > 0:
            words.append(_SUFFIXED[turn - 1])
        return " ".join([*words, _KIND[kind]])


def limit() -> int:
    """How many species a pool has."""
    return SIBLINGS * (len(PALETTES) * len(BUILDS) // len(POOLS))


def _genera(pool: str) -> list[_Genus]:
    """Every genus of a pool."""
    palettes, builds = len(PALETTES), len(BUILDS)
    genera = []
    # the pools take turns
    for number in range(POOLS.index(pool), palettes * builds, len(POOLS)):
        # Walks through all pairs of palette and build once: consecutive genera change
        # both.
        turn, palette = divmod(number, palettes)
        build = (palette // len(POOLS) + turn) % builds
        mix = (number * 2654435761 + 97) >> 7  # any fixed scrambling of the number
        first = FINE[(number // len(POOLS)) % len(FINE)]
        others = [
            contrast for contrast in FINE + BOLD if AREA[contrast[0]] != AREA[first[0]]
        ]
        second = others[(5 + 11 * number + mix) % len(others)]
        base = {
            "bill length": mix % 2,
            "bill curve": 0,
            "bill colour": (mix >> 2) % 5,
            "crown": int((mix >> 4) % 3 == 0),
            "crest": int((mix >> 6) % 5 == 0),
            "eye ring": 0,
            "face": (mix >> 8) % 3,
            "throat": int((mix >> 10) % 3 == 0),
            "breast": (0, 0, 1, 0, 2, 3)[(mix >> 12) % 6],
            "wing bars": (mix >> 14) % 3,
            "tail shape": (mix >> 16) % 4,
            "tail tip": (0, 0, 1, 2)[(mix >> 18) % 4],
            "leg colour": (mix >> 20) % 5,
            "palette": palette,
            "build": build,
        }
        genera.append(_Genus(number, base, first, second))
    return genera


def table(pool: str, count: int) -> Table:
    """The first `count` species of a pool ("target" or "source"); raises InputError
    when there are not so many.
    """
    if pool not in POOLS:
        raise unknown("fieldguide pool", pool, POOLS)
    if not isinstance(count, int) or not 2 <= count <= limit():
        raise InputError(
            f"fieldguide: {count!r} species asked for; a whole number from 2 to"
            f" {limit()} is possible."
        )
    names: list[str] = []
    values, siblings, differ = [], [], []
    for group in _genera(pool):
        kin = group.siblings()
        contrasts = [LOCAL.index(group.first[0]), LOCAL.index(group.second[0])]
        for i in range(min(SIBLINGS, count - len(names))):  # none, once there are all
            names.append(group.name(i))
            values.append(kin[i])
            siblings.append(kin)
            differ.append(contrasts)
    return Table(
        names, torch.tensor(values), torch.tensor(siblings), torch.tensor(differ)
    )


def one_hot(values: Tensor) -> tuple[list[str], Tensor]:
    """Attribute vectors as yes-or-no attributes with names: values (N, A) -> W names,
    and (N, W) float32 of 0 and 1.

    The numbers in `values` are places in tables, so that 2 is not twice 1; here each
    place is an attribute of its own.
    """
    words = dict(WORDS)
    words["palette"] = tuple(f"{name} plumage" for name in PALETTES)
    words["build"] = tuple(f"built like a {name}" for name in BUILDS)
    names: list[str] = []
    columns = []
    for i, attribute in enumerate(ATTRIBUTES):
        names += words[attribute]
        columns.append(F.one_hot(values[:, i].long(), len(words[attribute])))
    return names, torch.cat(columns, 1).float()


def describe(pool: str = "target", count: int = 20) -> list[tuple[str, str]]:
    """(species, what tells it from its siblings, in words) of the first `count`."""
    species = table(pool, count)
    rows = []
    for name, row, differ in zip(
        species.names, species.values.tolist(), species.differ.tolist(), strict=True
    ):
        words = []
        for k in differ:
            attribute = LOCAL[k]
            value = int(row[ATTRIBUTES.index(attribute)])
            words.append(WORDS[attribute][value])
        rows.append((name, ", ".join(words)))
    return rows
