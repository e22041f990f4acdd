"""The species of fieldguide: attribute vectors, grouped in genera whose siblings differ
    in one or two local attributes.

A species is a row of numbers, one for each name in ATTRIBUTES; all but two are indices
into the tables below. A genus has a palette and a build that no other genus has. Its
four siblings share everything except two attributes with two values each, so that two
siblings differ in one or two places on the bird. Genera alternate between the pools
`source` and `target`, which therefore have no species in common.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, unknown

POOLS = ("target", "source")
SIBLINGS = 4
ATTRIBUTES = (
    "bill length",
    "bill curve",
    "bill colour",
    "crown",
    "crest",
    "eye ring",
    "face",
    "throat",
    "breast",
    "wing bars",
    "tail shape",
    "tail tip",
    "leg colour",
    "palette",
    "build",
)

# what a person calls the values of the local attributes; the drawing knows them by
# index
WORDS = {
    "bill length": ("short bill", "medium bill", "long bill"),
    "bill curve": ("straight bill", "down-curved bill"),
    "bill colour": (
        "blackish bill",
        "yellow bill",
        "orange-red bill",
        "pink bill",
        "blue-grey bill",
    ),
    "crown": ("plain crown", "contrasting cap"),
    "crest": ("no crest", "short crest", "long crest"),
    "eye ring": ("no eye ring", "white eye ring", "yellow eye ring"),
    "face": ("plain face", "pale eyebrow", "dark eye stripe"),
    "throat": ("plain throat", "coloured throat"),
    "breast": ("plain breast", "streaked breast", "spotted breast", "banded breast"),
    "wing bars": ("no wing bar", "one wing bar", "two wing bars"),
    "tail shape": ("square tail", "forked tail", "rounded tail", "pointed tail"),
    "tail tip": ("plain tail", "white tail tip", "white tail bar"),
    "leg colour": (
        "blackish legs",
        "pink legs",
        "yellow legs",
        "orange-red legs",
        "blue-grey legs",
    ),
}
LOCAL = tuple(WORDS)
"""The attributes that can tell siblings apart, in the order of part-box areas."""

# What a genus can vary: attribute and the two values of its siblings. The first
# contrast of a genus is one of FINE, which move little paint about: seen from afar, or
# reduced to a quarter of the side, such siblings are the same bird. The second is one
# of all.
FINE = (
    ("wing bars", 1, 2),
    ("breast", 1, 3),
    ("tail tip", 1, 2),
    ("eye ring", 0, 1),
    ("breast", 1, 2),
    ("face", 0, 1),
    ("tail shape", 0, 1),
    ("breast", 2, 3),
    ("bill curve", 0, 1),
    ("eye ring", 1, 2),
    ("bill length", 0, 1),
    ("face", 0, 2),
    ("eye ring", 0, 2),
    ("tail shape", 1, 3),
)
BOLD = (
    ("wing bars", 0, 2),
    ("leg colour", 0, 3),
    ("crown", 0, 1),
    ("throat", 0, 1),
    ("bill colour", 0, 2),
    ("crest", 0, 1),
    ("tail tip", 0, 1),
    ("breast", 0, 1),
    ("bill length", 0, 2),
    ("leg colour", 1, 2),
    ("breast", 0, 2),
    ("face", 1, 2),
    ("wing bars", 0, 1),
    ("tail tip", 0, 2),
    ("crest", 1, 2),
    ("bill colour", 1, 4),
    ("breast", 0, 3),
    ("tail shape", 0, 3),
    ("leg colour", 2, 4),
)
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

# Colours 0-255: upperparts, underparts, wing coverts, flight feathers, cap, throat,
# tail.
PALETTES = {
    "olive and yellow": (
        (122, 128, 62),
        (232, 206, 92),
        (98, 104, 56),
        (62, 62, 46),
        (44, 44, 38),
        (206, 96, 34),
        (78, 80, 50),
    ),
    "slate and rust": (
        (92, 112, 136),
        (212, 130, 78),
        (82, 98, 120),
        (48, 56, 70),
        (36, 42, 54),
        (246, 236, 220),
        (58, 68, 84),
    ),
    "brown and buff": (
        (142, 104, 68),
        (236, 214, 176),
        (124, 88, 56),
        (80, 56, 38),
        (88, 46, 24),
        (196, 120, 66),
        (98, 70, 46),
    ),
    "grey and white": (
        (142, 146, 150),
        (240, 238, 232),
        (118, 122, 128),
        (66, 68, 74),
        (38, 38, 42),
        (84, 86, 92),
        (76, 78, 84),
    ),
    "blue and cream": (
        (72, 122, 176),
        (246, 232, 202),
        (62, 104, 156),
        (40, 58, 92),
        (28, 44, 92),
        (228, 164, 92),
        (46, 78, 126),
    ),
    "green and white": (
        (108, 146, 82),
        (238, 240, 224),
        (90, 126, 72),
        (58, 76, 52),
        (50, 70, 44),
        (240, 214, 90),
        (68, 92, 58),
    ),
    "rufous and grey": (
        (168, 88, 52),
        (206, 204, 202),
        (142, 76, 48),
        (82, 52, 42),
        (70, 40, 34),
        (248, 240, 230),
        (120, 64, 42),
    ),
    "black and orange": (
        (52, 48, 50),
        (238, 142, 48),
        (60, 56, 58),
        (34, 32, 34),
        (240, 160, 50),
        (40, 36, 38),
        (44, 40, 42),
    ),
    "plum and rose": (
        (128, 82, 104),
        (232, 180, 182),
        (108, 70, 92),
        (70, 46, 62),
        (150, 40, 62),
        (182, 60, 82),
        (82, 54, 72),
    ),
    "sand and white": (
        (198, 170, 128),
        (248, 242, 230),
        (174, 146, 106),
        (106, 86, 64),
        (120, 84, 50),
        (92, 74, 58),
        (130, 106, 78),
    ),
    "yellow and grey": (
        (222, 186, 56),
        (216, 218, 220),
        (164, 144, 62),
        (76, 72, 56),
        (48, 46, 40),
        (70, 70, 72),
        (96, 90, 62),
    ),
    "teal and apricot": (
        (58, 126, 124),
        (244, 196, 146),
        (50, 108, 108),
        (34, 66, 70),
        (24, 62, 72),
        (206, 96, 62),
        (40, 84, 86),
    ),
    "chestnut and cream": (
        (128, 66, 40),
        (246, 228, 196),
        (110, 60, 40),
        (66, 42, 34),
        (44, 30, 26),
        (58, 38, 30),
        (84, 48, 36),
    ),
    "charcoal and lemon": (
        (78, 82, 88),
        (244, 226, 118),
        (70, 74, 80),
        (42, 44, 50),
        (232, 210, 74),
        (58, 60, 66),
        (50, 52, 58),
    ),
    "red and tan": (
        (186, 62, 50),
        (232, 196, 156),
        (140, 58, 50),
        (74, 46, 44),
        (120, 28, 30),
        (150, 34, 34),
        (98, 48, 46),
    ),
    "violet and ash": (
        (98, 88, 152),
        (214, 212, 220),
        (84, 76, 132),
        (52, 48, 80),
        (54, 42, 104),
        (122, 66, 132),
        (62, 56, 96),
    ),
    "moss and salmon": (
        (104, 112, 84),
        (238, 164, 136),
        (90, 98, 74),
        (58, 62, 50),
        (62, 66, 48),
        (246, 232, 214),
        (68, 72, 56),
    ),
    "sky and white": (
        (128, 170, 206),
        (244, 244, 242),
        (108, 148, 186),
        (64, 84, 110),
        (58, 96, 146),
        (92, 128, 168),
        (76, 104, 136),
    ),
    "umber and gold": (
        (104, 82, 62),
        (226, 176, 82),
        (90, 72, 56),
        (56, 46, 38),
        (228, 186, 84),
        (92, 50, 34),
        (66, 54, 44),
    ),
    "ink and white": (
        (58, 66, 84),
        (244, 242, 236),
        (54, 62, 80),
        (34, 38, 50),
        (30, 32, 42),
        (156, 56, 44),
        (40, 46, 60),
    ),
    "lime and lemon": (
        (158, 178, 66),
        (246, 238, 150),
        (130, 150, 60),
        (72, 84, 44),
        (94, 118, 42),
        (84, 94, 46),
        (88, 102, 50),
    ),
    "cinnamon and pink": (
        (184, 128, 88),
        (242, 206, 196),
        (158, 108, 76),
        (94, 66, 52),
        (116, 66, 46),
        (206, 98, 96),
        (112, 78, 60),
    ),
    "pewter and wine": (
        (118, 122, 132),
        (164, 78, 84),
        (102, 106, 116),
        (60, 62, 70),
        (44, 46, 54),
        (238, 230, 224),
        (70, 72, 82),
    ),
    "fawn and sulphur": (
        (170, 150, 112),
        (240, 232, 166),
        (148, 128, 94),
        (88, 76, 58),
        (98, 84, 58),
        (226, 190, 72),
        (104, 90, 68),
    ),
}
MARKS = {  # colours by index of the attribute
    "bill colour": (
        (44, 40, 40),
        (234, 186, 54),
        (222, 88, 46),
        (224, 150, 136),
        (116, 136, 160),
    ),
    "leg colour": (
        (50, 44, 42),
        (222, 150, 132),
        (234, 182, 48),
        (226, 92, 42),
        (108, 130, 158),
    ),
    "eye ring": ((250, 248, 240), (250, 248, 240), (250, 216, 66)),
}
# Builds: plumpness, head size, uprightness (degrees), leg length, wing length, tail
# length, bill length factor, bill depth.
BUILDS = {
    "warbler": (0.94, 0.98, 36.0, 0.25, 0.66, 0.42, 0.90, 0.042),
    "finch": (1.04, 1.06, 40.0, 0.21, 0.68, 0.40, 0.80, 0.088),
    "thrush": (1.00, 0.96, 44.0, 0.29, 0.70, 0.44, 1.05, 0.050),
    "flycatcher": (0.92, 1.06, 54.0, 0.18, 0.72, 0.46, 0.95, 0.054),
    "tit": (1.06, 1.16, 34.0, 0.23, 0.62, 0.42, 0.72, 0.050),
    "wagtail": (0.90, 0.92, 28.0, 0.30, 0.66, 0.66, 1.00, 0.040),
}

_KIND = (
    "Fernlet",
    "Reedcreeper",
    "Copsebird",
    "Heathling",
    "Brookchat",
    "Thornwren",
    "Willowtit",
    "Larchfinch",
    "Mossbird",
    "Gorsechat",
    "Fenwarbler",
    "Hazelthrush",
    "Duneling",
    "Alderfinch",
    "Marshlet",
    "Rowanbird",
    "Cloudchat",
    "Birchwren",
    "Stonetail",
    "Meadowling",
    "Pinefinch",
    "Shorelet",
    "Bramblebird",
    "Cressling",
    "Oakcreeper",
    "Sedgetail",
    "Flaxfinch",
    "Hollywren",
    "Ivybird",
    "Tarnchat",
    "Maplethrush",
    "Cliffling",
    "Juniperbird",
    "Ashcreeper",
    "Nettlewren",
    "Poplarfinch",
)
# second to fourth round of the kinds: "Glen Fernlet"
_SUFFIXED = ("Dawn", "Ember", "Frost", "Glen")
_EPITHETS = (
    "Northern",
    "Upland",
    "Island",
    "Coastal",
    "Eastern",
    "Lowland",
    "Mountain",
    "Valley",
    "Southern",
    "Forest",
    "Lake",
    "River",
    "Western",
    "Hill",
    "Plains",
    "Canyon",
)


@dataclass(frozen=True)
class Table:
    """N species of one pool."""

    names: list[str]
    genus: list[int]  # of each species, 0, 1, ...
    values: Tensor  # (N, A) float32, ATTRIBUTES
    # (N, 4, A) float32: all siblings of the genus, the species itself among them
    siblings: Tensor
    # (N, 2) int64: the attributes in which siblings differ, indices into LOCAL
    differ: Tensor

    def __len__(self) -> int:
        return len(self.names)


def limit() -> int:
    """How many species a pool has."""
    return SIBLINGS * (len(PALETTES) * len(BUILDS) // len(POOLS))


def _genera(pool: str) -> list[tuple[int, dict[str, int], tuple, tuple]]:
    """(number, base attributes, first contrast, second contrast) of every genus of a
    pool."""
    palettes, builds = len(PALETTES), len(BUILDS)
    genera = []
    for number in range(POOLS.index(pool), palettes * builds, len(POOLS)):
        # Walks through all pairs of palette and build once: consecutive genera change
        # both.
        turn, palette = divmod(number, palettes)
        build = (palette // len(POOLS) + turn) % builds
        mix = (number * 2654435761 + 97) >> 7  # any fixed scrambling of the number
        first = FINE[(number // len(POOLS)) % len(FINE)]
        others = [c for c in FINE + BOLD if AREA[c[0]] != AREA[first[0]]]
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
        genera.append((number, base, first, second))
    return genera


def table(pool: str, count: int) -> Table:
    """The first `count` species of a pool ("target" or "source"); raises InputError
    when there are not so many."""
    if pool not in POOLS:
        raise unknown("fieldguide pool", pool, POOLS)
    if not isinstance(count, int) or not 2 <= count <= limit():
        raise InputError(
            f"fieldguide: {count!r} species asked for; a whole number from 2 to"
            f" {limit()} is possible."
        )
    names, genus, values, siblings, differ = [], [], [], [], []
    for place, (number, base, first, second) in enumerate(_genera(pool)):
        if len(names) >= count:
            break
        kin = []
        for one in first[1:]:
            for two in second[1:]:
                kin.append(
                    tuple(
                        float({**base, first[0]: one, second[0]: two}[name])
                        for name in ATTRIBUTES
                    )
                )
        turn, kind = divmod(number, len(_KIND))
        for i in range(min(SIBLINGS, count - len(names))):
            epithet = _EPITHETS[(number * 3 + i * 5) % len(_EPITHETS)]
            names.append(
                " ".join(
                    [epithet, *_SUFFIXED[turn - 1 : turn], _KIND[kind]]
                    if turn
                    else [epithet, _KIND[kind]]
                )
            )
            genus.append(place)
            values.append(kin[i])
            siblings.append(kin)
            differ.append([LOCAL.index(first[0]), LOCAL.index(second[0])])
    return Table(
        names, genus, torch.tensor(values), torch.tensor(siblings), torch.tensor(differ)
    )


def one_hot(values: Tensor) -> tuple[list[str], Tensor]:
    """Attribute vectors as yes-or-no attributes with names: values (N, A) -> W names,
    and (N, W) float32 of 0 and 1.

    The numbers in `values` are places in tables, so that 2 is not twice 1; here each
    place is an attribute of its own.
    """
    words = {
        **WORDS,
        "palette": [f"{name} plumage" for name in PALETTES],
        "build": [f"built like a {name}" for name in BUILDS],
    }
    columns = [
        F.one_hot(values[:, i].long(), len(words[name]))
        for i, name in enumerate(ATTRIBUTES)
    ]
    return [word for name in ATTRIBUTES for word in words[name]], torch.cat(
        columns, 1
    ).float()


def describe(pool: str = "target", count: int = 20) -> list[tuple[str, str]]:
    """(species, what tells it from its siblings, in words), for the data page and for
    figure captions."""
    species = table(pool, count)
    rows = []
    for name, row, differ in zip(
        species.names, species.values.tolist(), species.differ.tolist(), strict=True
    ):
        words = [WORDS[LOCAL[k]][int(row[ATTRIBUTES.index(LOCAL[k])])] for k in differ]
        rows.append((name, ", ".join(words)))
    return rows
