"""Peng, Hoffman, Yu, Saenko: Fine-to-coarse knowledge transfer for low-resolution image
classification (2016).
"""

from ..recipe import Recipe
from .photo import PHOTO
from .spec import Claim, Paper, Recipes, Row, Seeds, Table, Tuning

# The paper says: AlexNet at 227 px, 50 px, "a low learning rate" in the second stage.
# The rest is silent: fine-tuning as it was usual with AlexNet (SGD, 0.001 and ten times
# that for the new layer, steps), crops of 227 from 256, mirror images.
PAPER_RECIPE = Recipe(
    image_size=227,
    store_size=256,
    low_side=50,
    backbone="alexnet_fc7",
    epochs=40,
    batch_size=128,
    optimiser="sgd",
    lr=0.01,
    backbone_lr_factor=0.1,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="step",
    step_epochs=15,
    step_factor=0.1,
    train_on="train+val",
)

# The common recipe for pictures half as wide, which cost a quarter: the image is 97
# pixels (32 k + 1), the network learns from stride 8 on, eight epochs are enough. No
# zoom into the picture and no softened labels, as in the paper.
PHOTO_RECIPE = PHOTO.but(
    image_size=97,
    store_size=112,
    low_side=21,
    frozen_stages=2,
    epochs=8,
    lr=0.002,
    crop_scale=0.0,
    label_smoothing=0.0,
)

# Half of the drawn images, so that both notebooks take less than a minute.
QUICK_RECIPE = Recipe(
    image_size=73,
    store_size=81,
    low_side=16,
    fraction=0.5,
    backbone="small",
    epochs=3,
    batch_size=16,
    optimiser="adamw",
    lr=0.02,
    backbone_lr_factor=0.1,
    weight_decay=0.05,
    schedule="onecycle",
)

# of the image's side, also in the other profiles: 21 of 97 and 16 of 73 pixels
LOW = 50 / 227

# What is tried for each whole method, for high-low in its second stage: three rates,
# and half as many epochs again.
TRIES: tuple[dict, ...] = ({}, {"lr": 0.004}, {"lr": 0.001}, {"epochs": 12})
MIXED_TRIES: tuple[dict, ...] = (
    {"epochs": 16},
    {"epochs": 16, "lr": 0.004},
    {"epochs": 16, "lr": 0.001},
    {"epochs": 24},
)
SECOND_TRIES: tuple[dict, ...] = (
    {"lr": 0.001},
    {"lr": 0.002},
    {"lr": 0.0005},
    {"lr": 0.001, "epochs": 12},
)

ALL = 8
AMOUNTS = {
    "quick": (2, 4, 8),
    "photo": (2, 3, 4, 6, 8),
    "paper": (1, 2, 3, 4, 5, 6, 7, 8),
}
"""profile -> the eighths of the training images that Table 2 is repeated for.

The paper counts images in thousands of Cars' 8144 training images; here in eighths of
whatever training images there are.
"""

# ---- recipes


def second_stage(recipes: Recipes) -> Recipes:
    """The same with "a low learning rate", as the paper says; as long as the first. At
    photo the best of three rates on validation, which is the first stage's.
    """
    return recipes.at("quick", lr=0.006).at("photo", lr=0.002).at("paper", lr=0.001)


def as_long_as_two_stages(recipes: Recipes) -> Recipes:
    """The same with twice the epochs, and the steps of the rate drawn out likewise."""
    longer = recipes
    for profile, recipe in recipes.items():
        longer = longer.at(profile, epochs=2 * recipe.epochs)
        if recipe.schedule == "step":
            longer = longer.at(profile, step_epochs=2 * recipe.step_epochs)
    return longer


def part(recipes: Recipes, eighths: int, first: int = ALL) -> Recipes:
    """The same with `eighths` of the training images, after a first stage with `first`
    eighths; at the profiles whose grid has both amounts.
    """
    found = Recipes()
    for profile, recipe in recipes.items():
        if {eighths, first} <= set(AMOUNTS[profile]):
            found[profile] = recipe.but(fraction=recipe.fraction * eighths / ALL)
    return found


HIGH = Recipes(quick=QUICK_RECIPE, photo=PHOTO_RECIPE, paper=PAPER_RECIPE)
PROBE = HIGH.but(low_side=0)
LOW_ONLY = HIGH.but(resolution="low")
# at photo the best of three rates on validation
MIXED = as_long_as_two_stages(HIGH.but(resolution="mixed")).at("photo", lr=0.004)
THEN_HIGH = second_stage(HIGH)
THEN_LOW = second_stage(LOW_ONLY)

# A restorer classifies nothing, so accuracy on validation cannot choose its epoch: the
# last one counts. (Where training uses the validation images it does anyway.)
RESTORER = (
    HIGH.but(optimiser="adamw", lr=0.003, weight_decay=0.0, schedule="onecycle")
    .at("quick", epochs=5, keep="last")
    .at("paper", epochs=10, batch_size=16)
)

LR_CNN = (
    LOW_ONLY.but(
        backbone="none",
        weights="none",
        optimiser="adamw",
        lr=0.003,
        weight_decay=0.05,
        schedule="onecycle",
    )
    .at("quick", epochs=6)
    .at("photo", epochs=30)
    .at("paper", epochs=90)
)

# ---- rows: Tables 1 and 3

RESOLUTION_ROWS = {
    "AlexNet, trained on high": "high",
    "AlexNet, trained on low": "low",
    "Mixed training": "mixed",
    "Super-resolution (NBSRF)": "super-resolution",
    "Staged training, low then high": "low-high",
    "Staged training, high then low": "high-low",
    "LR-CNN (in the text)": "lr-cnn",
}
"""Row as printed in Tables 1 and 3 -> row of ours."""

# What is measured of a row beside accuracy.
HEAT = ("heat",)

# name, title,
#     method, its options, recipes
# fmt: off
TABLE_ROWS = (
    # Our yardstick, not in the paper: what fine-tuning must beat. Features of frozen
    # networks are computed once, at high resolution.
    Row("probe", "linear probe on frozen features, high resolution",
        "probe", {}, PROBE, unstable=True),
    Row("high", "high resolution only",
        "plain", {}, HIGH),
    Row("low", "low resolution only",
        "plain", {}, LOW_ONLY, measures=HEAT),
    Row("mixed", "both resolutions at once",
        "plain", {}, MIXED),
    Row("low-high", "low resolution, then high",
        "plain", {}, THEN_HIGH, after="low"),
    Row("high-low", "high resolution, then low",
        "plain", {}, THEN_LOW, after="high", measures=HEAT),
    # Our control, not in the paper: as long as high-low, without the
    # high-resolution images.
    Row("low-low", "low resolution, as long as two stages (our control)",
        "plain", {}, THEN_LOW, after="low", measures=HEAT),
    Row("restorer", "restoring network (first stage of super-resolution)",
        "superres", {"part": "restorer", "low": LOW}, RESTORER),
    Row("super-resolution", "super-resolution, then low resolution only",
        "superres", {"part": "classifier", "low": LOW}, LOW_ONLY, after="restorer"),
    Row("lr-cnn", "small network for small images, from scratch",
        "simple", {"low": LOW}, LR_CNN),
)
# fmt: on

MAIN = tuple(row.name for row in TABLE_ROWS)
"""The rows of Tables 1 and 3, with the first stage of super-resolution and two of ours
(probe, low-low).
"""

# ---- rows: Table 2


def staged(high: int, low: int) -> str:
    """The name of a cell of Table 2: `high` eighths of the training images in the first
    stage (0: none), `low` in the second (0: none).
    """
    # with all images it is a row of Table 1
    if (high, low) == (ALL, ALL):
        return "high-low"
    if (high, low) == (0, ALL):
        return "low"
    if (high, low) == (ALL, 0):
        return "high"
    return f"H{high}-L{low}" if low else f"H{high}"


def mixed(amount: int) -> str:
    """The name of the row that trains on both resolutions of `amount` eighths of the
    training images.
    """
    return "mixed" if amount == ALL else f"M{amount}"


def grid(profile: str) -> list[str]:
    """The rows of Table 2 at a profile: every cell of the staged training, the first
    stages they start from, and the mixed rows.
    """
    amounts = AMOUNTS[profile]
    first_stages = [staged(high, 0) for high in amounts]
    cells = [staged(high, low) for high in (0, *amounts) for low in amounts]
    return first_stages + cells + [mixed(amount) for amount in amounts]


def _one_stage_rows() -> list[Row]:
    """First stages and mixed rows on a part of the images."""
    rows = []
    for a in AMOUNTS["paper"][:-1]:  # the other profiles have a part of these
        high = f"high resolution, {a}/8 of the images"
        rows.append(Row(staged(a, 0), high, "plain", {}, part(HIGH, a)))

        both = f"both resolutions at once, {a}/8 of the images"
        rows.append(Row(mixed(a), both, "plain", {}, part(MIXED, a)))
    return rows


def _cell_rows() -> list[Row]:
    """The cells of Table 2, but for the two that Table 1 has too."""
    rows = []
    amounts = AMOUNTS["paper"]
    for low in amounts[:-1]:
        title = f"low resolution, {low}/8 of the images"
        rows.append(Row(staged(0, low), title, "plain", {}, part(LOW_ONLY, low)))

    for high in amounts:
        for low in amounts:
            if staged(high, low) in MAIN:
                continue
            title = f"high resolution, {high}/8, then low, {low}/8"
            recipes = part(THEN_LOW, low, first=high)
            first = staged(high, 0)
            rows.append(
                Row(staged(high, low), title, "plain", {}, recipes, after=first)
            )
    return rows


def _tries(resolution: str, changes: tuple[dict, ...]) -> tuple[dict, ...]:
    return tuple({"resolution": resolution} | change for change in changes)


PAPER = Paper(
    key="peng",
    title="Fine-to-Coarse Knowledge Transfer for Low-Res Image Classification",
    authors="Xingchao Peng, Judy Hoffman, Stella X. Yu, Kate Saenko",
    tables=(
        Table(
            name="Table 1",
            caption=(
                "Stanford Cars, cut to the known boxes: test at high and at low"
                " resolution."
            ),
            columns=("cars-cropped", "cars-cropped, low"),
            cells={
                "AlexNet, trained on high": (80.3, 1.7),
                "AlexNet, trained on low": (13.3, 50.4),
                "Mixed training": (72.9, 59.3),
                "BB-3D-G": (67.6, None),
                "Super-resolution (NBSRF)": (None, 50.8),
                "Staged training, low then high": (65.2, 18.1),
                "Staged training, high then low": (37.2, 59.5),
                "LR-CNN (in the text)": (None, 19.1),
            },
            rows=RESOLUTION_ROWS,
        ),
        Table(
            name="Table 2",
            caption=(
                "Stanford Cars, low-resolution test: H, thousands of high-resolution"
                " images in the first stage; L, of low-resolution images in the second."
            ),
            columns=("L1k", "L2k", "L3k", "L4k", "L5k", "L6k", "L7k", "L8k"),
            cells={
                "H0k": (12.1, 19.4, 27.1, 29.8, 37.1, 41.6, 46.1, 50.4),
                "H1k": (13.9, 21.6, 28.0, 33.7, 39.3, 45.2, 47.6, 51.6),
                "H2k": (17.2, 24.3, 32.6, 37.2, 42.8, 46.7, 50.1, 53.6),
                "H3k": (21.3, 28.9, 34.6, 40.5, 45.2, 50.6, 52.5, 55.6),
                "H4k": (22.0, 32.1, 37.2, 42.4, 46.5, 49.9, 53.6, 56.2),
                "H5k": (25.1, 33.4, 38.4, 44.9, 47.6, 51.9, 54.4, 57.1),
                "H6k": (26.2, 33.8, 41.9, 46.6, 50.0, 52.8, 54.9, 58.1),
                "H7k": (27.3, 35.7, 43.3, 46.9, 50.2, 54.4, 56.1, 58.9),
                "H8k": (29.2, 38.8, 44.5, 47.9, 51.8, 54.6, 56.8, 59.5),
                "Mixed": (None, 23.4, 32.5, 39.3, 45.5, 51.0, 55.1, 59.3),
            },
        ),
        Table(
            name="Table 3",
            caption=(
                "CUB-200-2011, cut to the known boxes: test at high and at low"
                " resolution."
            ),
            columns=("cub-cropped", "cub-cropped, low"),
            cells={
                "AlexNet, trained on high": (67.6, 21.1),
                "AlexNet, trained on low": (36.7, 51.3),
                "Mixed training": (61.2, 53.6),
                "Super-resolution (NBSRF)": (None, 50.1),
                "Staged training, low then high": (56.8, 36.3),
                "Staged training, high then low": (58.1, 55.3),
                "LR-CNN (in the text)": (None, 23.6),
            },
            rows=RESOLUTION_ROWS,
        ),
    ),
    rows=(*TABLE_ROWS, *_one_stage_rows(), *_cell_rows()),
    # Effects are those of Table 1 (Cars). One point is the margin of "no worse": fixed
    # before any run.
    claims=(
        Claim(
            "E1a",
            "a network trained on high resolution collapses on low resolution",
            better="high",
            worse="high",
            printed_effect=78.6,
            metric="top1",
            worse_metric="low_top1",
        ),
        Claim(
            "E1b",
            "a network trained on low resolution collapses on high resolution",
            better="low",
            worse="low",
            printed_effect=37.1,
            metric="low_top1",
            worse_metric="top1",
        ),
        Claim(
            "E2",
            "staged training, high then low, beats low resolution only on low"
            " resolution",
            better="high-low",
            worse="low",
            printed_effect=9.1,
            metric="low_top1",
        ),
        Claim(
            "E3",
            "super-resolution before the network does not help: without it accuracy is"
            " less than one point lower",
            better="low",
            worse="super-resolution",
            printed_effect=-0.4,
            metric="low_top1",
            margin=1.0,
        ),
        Claim(
            "E4a",
            "the other order, low then high, is worse on high resolution than high"
            " resolution only",
            better="high",
            worse="low-high",
            printed_effect=15.1,
            metric="top1",
        ),
        Claim(
            "E4b",
            "the other order, low then high, is worse on low resolution than low"
            " resolution only",
            better="low",
            worse="low-high",
            printed_effect=32.3,
            metric="low_top1",
        ),
        Claim(
            "E5a",
            "with all images, staged training is less than one point worse than mixed"
            " training, or better",
            better="high-low",
            worse="mixed",
            printed_effect=0.2,
            metric="low_top1",
            margin=1.0,
        ),
        Claim(
            "E5b",
            "with a quarter of the images, staged training beats mixed training",
            better="H2-L2",
            worse="M2",
            printed_effect=0.9,
            metric="low_top1",
        ),
        Claim(
            "E6a",
            "heat maps of the staged network cover a larger area than those of low"
            " resolution only",
            better="high-low",
            worse="low",
            metric="heat_area",
        ),
        Claim(
            "E6b",
            "heat maps of the staged network are stronger than those of low resolution"
            " only",
            better="high-low",
            worse="low",
            metric="heat_strength",
        ),
        # Not the paper's: what E2 leaves open, since two stages are also twice the
        # training.
        Claim(
            "E7",
            "our control: staged training also beats low resolution only for as long as"
            " two stages",
            better="high-low",
            worse="low-low",
            printed_effect=None,
            metric="low_top1",
        ),
        Claim(
            "E8",
            "our control: the staged network's heat maps are also stronger for the"
            " length of its logits",
            better="high-low",
            worse="low",
            metric="heat_relative",
        ),
        Claim(
            "E9",
            "our control: they also cover a larger area than those of low resolution"
            " only for as long as two stages",
            better="high-low",
            worse="low-low",
            metric="heat_area",
        ),
    ),
    datasets={
        "quick": ("fieldguide",),
        "photo": ("cars98",),
        "paper": ("cars-cropped", "cub-cropped"),
    },
    # Table 2 is a map of its cells, one training each.
    seeds={"photo": Seeds(claimed=5, others=1)},
    tuning={
        "photo": Tuning(
            PHOTO_RECIPE,
            {
                "low": _tries("low", TRIES),
                "mixed": _tries("mixed", MIXED_TRIES),
                "high-low": _tries("low", SECOND_TRIES),
            },
        ),
    },
)
