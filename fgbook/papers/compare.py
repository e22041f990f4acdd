"""The field on one page: the methods that the papers compare with, and what users of
the field run today, in one harness. Not a paper: its table is what each method's own
paper prints, and its claims are our question, whether a method beats the plain
backbone.

All rows share the backbone and the pictures and start from one recipe. At photo each
has as many tries: the same rates and lengths, then four of its own; what has not been
tried yet has the recipe's settings.
"""

from . import feng, liang
from .feng import PAPER_RECIPE
from .photo import PHOTO, TRIES
from .spec import Claim, Paper, Recipes, Row, Seeds, Table, Tuning

# Drawn birds only show that a method runs and learns, and what it costs: two epochs of
# half the images there. At the other profiles rows share their runs with the papers'
# own chapters (probe, plain, nts-net, focus; at paper also flrdf).
RECIPES = feng.METHOD.at("quick", epochs=2, fraction=0.5)
# as they were tuned for the chapter on paper B: the same runs at photo
PLAIN = feng.PLAIN.at("quick", epochs=2, fraction=0.5)
FOCUS = feng.WHOLE.at("quick", epochs=2, fraction=0.5)
NAVIGATED = feng.NAVIGATED.at("quick", epochs=2, fraction=0.5)
# four images of a class in a batch: its pairs
PAIRS = RECIPES.but(per_class=4)

# TransFG's public code: four times 16 images a step, 10 000 steps, of which 500 warm
# up; in epochs of CUB's 5994 images.
VIT_RECIPE = PAPER_RECIPE.but(
    backbone="timm:vit_base_patch16_224.augreg_in21k",
    batch_size=64,
    epochs=107,
    lr=0.03,
    backbone_lr_factor=1.0,
    weight_decay=0.0,
    schedule="cosine",
    warmup_epochs=5.0,
    clip_norm=1.0,
)
VIT = Recipes(paper=VIT_RECIPE)
# Its hybrid form on the small network; at photo there is no row, because the package
# that brings the weights has none of a transformer.
TRANSFG = Recipes(quick=PAIRS["quick"], paper=VIT_RECIPE.but(per_class=4))
# 14 pixels a patch: 32 patches a side at 448
DINO = Recipes(paper=PAPER_RECIPE.but(backbone="timm:vit_small_patch14_dinov2.lvd142m"))

# Options where the original's sizes (448 pixels, maps of 14 x 14 cells and more) do not
# fit maps of 7 x 7 or 10 x 10. One set for all profiles. None was chosen by a test
# image.
CAL = {"m": 8, "scale": 8.0}
# the best of its eight tries
FLRDF = liang.WHOLE | {"controller": "fixed"}
# on 7 x 7 cells the peaks of its parts fell on one place in most images
MACNN = {"depth": 2}
PARTNET = {"width": 32, "hidden": 64, "square": 3, "sharpness": 20.0}
PMG = {"n": (4, 2, 2), "width": 64}
RACNN = {"scales": 2, "zoom": 1.0}

# name, title,
#     method, its options, recipes
# fmt: off
ROWS = (
    Row("probe", "linear probe on frozen features",
        "probe", {}, RECIPES, unstable=True),
    Row("neighbours", "nearest neighbours of frozen features",
        "probe", {"k": 10}, RECIPES, unstable=True),
    Row("dinov2", "linear probe on DINOv2 features",
        "probe", {"pool": "class"}, DINO, unstable=True),
    Row("plain", "plain backbone",
        "plain", {}, PLAIN),
    Row("vit", "plain vision transformer",
        "plain", {}, VIT),
    Row("bilinear", "Bilinear CNN",
        "bilinear", {}, RECIPES),
    Row("compact", "compact bilinear pooling",
        "bilinear", {"sketch": 2048}, RECIPES),
    Row("boosted", "boosted heads (after Boost-CNN)",
        "boosted", {}, RECIPES),
    Row("mc-loss", "mutual-channel loss",
        "mcloss", {}, RECIPES),
    Row("api-net", "API-Net",
        "apinet", {}, PAIRS),
    Row("dfl-cnn", "DFL-CNN",
        "dflcnn", {}, RECIPES),
    Row("cross-x", "Cross-X",
        "crossx", {}, RECIPES),
    Row("pmg", "PMG",
        "pmg", PMG, RECIPES),
    Row("dcl", "DCL",
        "dcl", {}, RECIPES),
    Row("flrdf", "FLRDF",
        "flrdf", FLRDF, RECIPES),
    Row("ra-cnn", "RA-CNN",
        "racnn", RACNN, RECIPES),
    Row("ma-cnn", "MA-CNN (simplified)",
        "macnn", MACNN, RECIPES),
    Row("partnet", "PartNet",
        "partnet", PARTNET, RECIPES),
    Row("nts-net", "NTS-Net",
        "ntsnet", feng.NTS_NET, NAVIGATED),
    Row("wsdl", "WSDL (boxes of levels, no detector)",
        "wsdl", {}, RECIPES),
    Row("mmal", "MMAL-Net",
        "mmal", {}, RECIPES),
    Row("focus", "focus and discriminate",
        "focus", {}, FOCUS),
    Row("cal", "CAL",
        "cal", CAL, RECIPES),
    Row("transfg", "TransFG (quick: hybrid)",
        "transfg", {}, TRANSFG),
)
# fmt: on

FAMILIES = {
    "frozen": ("probe", "neighbours", "dinov2"),
    "plain": ("plain", "vit"),
    "pooling": ("bilinear", "compact"),
    "losses": ("boosted", "mc-loss", "api-net"),
    "filters": ("dfl-cnn",),
    "attention": ("cross-x", "cal"),
    "jigsaw": ("pmg", "dcl", "flrdf"),
    "parts": ("ma-cnn", "partnet"),
    "regions": ("ra-cnn", "nts-net", "wsdl", "mmal", "focus"),
    "transformers": ("transfg",),
}
"""What a method adds to the plain backbone, in a word -> rows."""

# What each method's own paper prints for CUB-200-2011, Aircraft and Cars: where no
# number could be read, None. Second-hand where a later paper's table is all we read.
PRINTED: dict[str, tuple[float | None, ...]] = {
    "Bilinear CNN": (84.1, 84.1, 91.3),
    "Boost-CNN": (85.6, 88.5, 92.1),
    "MC-Loss": (87.3, None, 93.7),
    "API-Net": (90.0, 93.9, 95.3),
    "DFL-CNN": (87.4, 91.7, 93.1),
    "Cross-X": (87.7, 92.6, 94.6),
    "PMG": (89.6, 93.4, 95.1),
    "DCL": (87.8, 93.0, None),
    "FLRDF": (88.1, 93.8, 94.9),
    "RA-CNN": (85.3, 88.2, 92.5),
    "MA-CNN": (86.5, 89.9, 92.8),
    "PartNet-Full": (87.3, None, None),
    "NTS-Net": (87.5, 91.4, 93.9),
    "WSDL": (85.71, None, 92.30),
    "MMAL-Net": (89.6, 94.7, 95.0),
    "Focus and discriminate": (87.6, 92.1, 94.1),
    "CAL": (90.6, 94.2, 95.5),
    "TransFG": (91.7, None, None),
}

OURS = {
    "Bilinear CNN": "bilinear",
    "Boost-CNN": "boosted",
    "MC-Loss": "mc-loss",
    "API-Net": "api-net",
    "DFL-CNN": "dfl-cnn",
    "Cross-X": "cross-x",
    "PMG": "pmg",
    "DCL": "dcl",
    "FLRDF": "flrdf",
    "RA-CNN": "ra-cnn",
    "MA-CNN": "ma-cnn",
    "PartNet-Full": "partnet",
    "NTS-Net": "nts-net",
    "WSDL": "wsdl",
    "MMAL-Net": "mmal",
    "Focus and discriminate": "focus",
    "CAL": "cal",
    "TransFG": "transfg",
}
"""Row as printed -> row of ours."""

BACKBONES = {
    "bilinear": "VGG-16",
    "boosted": "bilinear CNNs",
    "api-net": "not named in the abstract",
    "ra-cnn": "VGG-19",
    "ma-cnn": "VGG-19",
    "partnet": "VGG-19, five networks",
    "wsdl": "VGG-16",
    "cal": "ResNet-101",
    "transfg": "ViT-B/16",
}
"""Row -> the network of the printed numbers, where it is not a ResNet-50."""
USUAL_BACKBONE = "ResNet-50"

PASSES = {
    "cross-x": 1.2,
    "boosted": 1.1,
    "pmg": 4.4,
    "dcl": 2.0,
    "flrdf": 3.0,
    "ra-cnn": 2.0,
    "nts-net": 2.5,
    "wsdl": 3.0,
    "mmal": 3.5,
    "focus": 2.3,
    "cal": 3.0,
}
"""Row -> operations of a training image, forward, over the plain backbone's, at the
photo profile; where it is not one. A test counts them."""

# ---- tuning: four tries of each row's own, after the common ones


def _options(*changes: dict) -> tuple[dict, ...]:
    return tuple({"options": change} for change in changes)


OWN = {
    "plain": (
        {"weight_decay": 0.2},
        {"label_smoothing": 0.0},
        {"crop_scale": 0.25},
        {"backbone_lr_factor": 0.3},
    ),
    "bilinear": (
        *_options({"width": 64}, {"length": 1.0}, {"length": 16.0}),
        {"options": {"depth": 2}, "frozen_stages": 2},
    ),
    "compact": (
        *_options({"sketch": 4096}, {"length": 1.0}, {"length": 16.0}),
        {"options": {"depth": 2}, "frozen_stages": 2},
    ),
    "boosted": _options({"heads": 2}, {"heads": 8}, {"width": 256}, {"shrinkage": 0.5}),
    # at the paper's mu its gradient begins at a hundredth of the image head's
    "mc-loss": _options(
        {"mu": 0.05},
        {"mu": 0.5},
        {"mu": 0.05, "diversity": 1.0},
        {"mu": 0.5, "xi": 3},
    ),
    "api-net": (
        *_options({"margin": 0.2}, {"dropout": 0.2}, {"width": 128}),
        {"per_class": 2},
    ),
    "dfl-cnn": (
        *_options({"start": "random"}, {"depth": 1}, {"side": 0.5}),
        {"frozen_stages": 2},
    ),
    "cross-x": (
        *_options(
            {"pool": "avg"},
            {"gammas": (0.1, 0.05, 0.1)},
            {"gammas": (1.0, 0.25, 1.0)},
        ),
        {"frozen_stages": 2},
    ),
    "pmg": (
        *_options({"n": (8, 4, 2)}, {"width": 128}, {"steps": "sum"}),
        {"frozen_stages": 1},
    ),
    "dcl": liang.DCL_TRIES,
    "flrdf": liang.FLRDF_TRIES,
    "ra-cnn": (
        *_options({"scales": 3}, {"zoom": 2 / 3}, {"margin": 0.2}),
        {"loss_weights": (("peak", 100.0),)},
    ),
    "ma-cnn": (
        *_options({"parts": 2}, {"sharpness": 8.0}, {"depth": 1}),
        {"frozen_stages": 2},
    ),
    "partnet": (
        *_options({"sharpness": 1.0}, {"parts": 1}, {"sizes": (0.4, 0.6)}),
        {"options": {"depth": 2}, "frozen_stages": 2},
    ),
    "nts-net": feng.NTS_NET_TRIES,
    "wsdl": (
        *_options({"zoom": 0.5}, {"whole": False}, {"cam": 256}),
        {"frozen_stages": 2},
    ),
    "mmal": _options(
        {"windows": "rigid"}, {"both": False}, {"dropout": 0.2}, {"zoom": 1.0}
    ),
    "focus": feng.FOCUS_TRIES,
    "cal": _options({"scale": 5.0}, {"scale": 16.0}, {"m": 16}, {"level": 0.4}),
}

# ---- what is asked of each: our question, not its paper's sentence

CLAIMS = tuple(
    Claim(
        row.name,
        f"{row.title} beats the plain backbone",
        better=row.name,
        worse="plain",
    )
    for row in ROWS
    # a probe is solved, and so the same for every seed: nothing to infer from
    if row.name in OWN and row.name != "plain"
)

PAPER = Paper(
    key="compare",
    title="The field on one page",
    authors="the authors of each method",
    tables=(
        Table(
            name="Printed",
            caption=(
                "Top-1 accuracy of each method: its own paper's, or what a later one"
                " quotes."
            ),
            columns=("cub", "aircraft", "cars"),
            cells=PRINTED,
            rows=OURS,
        ),
    ),
    rows=ROWS,
    claims=CLAIMS,
    datasets={
        "quick": ("fieldguide",),
        "photo": ("cub50", "cars98"),
        "paper": ("cub", "aircraft", "cars"),
    },
    seeds={"photo": Seeds(claimed=3, others=3)},
    tuning={
        "photo": Tuning(
            PHOTO,
            {name: (*TRIES, *own) for name, own in OWN.items()},
            options={"flrdf": liang.WHOLE},
        ),
    },
)
