"""Liang, Qu: Fine-grained visual classification via foreground localization and region
discriminative feature training (FLRDF).
"""

from . import feng
from .photo import PHOTO, TRIES
from .spec import Claim, Paper, Row, Seeds, Table, Tuning

# The part of the text that gives the training's settings cannot be read in our copy. So
# all rows take those of the chapter on paper B, which are the field's usual ones. The
# losses weigh 1 each (eq. 5: alpha, beta, gamma).
RECIPES = feng.METHOD
LOST = "not legible"

# Options of the method.
WHOLE = {"threshold": "mean"}
FOREGROUND_ALONE = WHOLE | {"shuffle": False}
SHUFFLE_ALONE = WHOLE | {"foreground": False}
# a second look as in FOREGROUND_ALONE, but at the middle square: nothing is located
MIDDLE = {"shuffle": False, "controller": "none", "threshold": "middle"}

# ---- tuning: four tries of each method's own, after the common ones

FLRDF_TRIES: tuple[dict, ...] = (
    {"options": {"n": 2}},
    {"options": {"n": 8}},
    {"options": {"threshold": "max", "level": 0.4}},
    {"options": {"controller": "fixed"}},
)
DCL_TRIES: tuple[dict, ...] = (
    {"options": {"n": 4, "k": 1}},
    {"options": {"k": 1}},
    {"options": {"adversarial": "classes"}},
    {"options": {"location": "index"}},
)

# name, title,
#     method, its options, recipes
# fmt: off
ROWS = (
    # Our yardstick, not in the paper: what training the backbone must beat. It is
    # solved, and so the same for every seed.
    Row("probe", "linear probe: logistic regression on frozen features",
        "probe", {}, RECIPES, unstable=True),
    Row("plain", "plain backbone",
        "plain", {}, feng.PLAIN),
    Row("foreground", "foreground localisation alone",
        "flrdf", FOREGROUND_ALONE, RECIPES),
    Row("shuffle", "shuffling alone, of the whole image",
        "flrdf", SHUFFLE_ALONE, RECIPES),
    Row("flrdf", "foreground localisation and shuffling, n = 4",
        "flrdf", WHOLE, RECIPES),
    Row("n1", "the same with n = 1: nothing is shuffled",
        "flrdf", WHOLE | {"n": 1}, RECIPES),
    Row("n2", "the same with n = 2",
        "flrdf", WHOLE | {"n": 2}, RECIPES),
    # divides the images of every profile up to one pixel, as 7 does not
    Row("n8", "the same with n = 8",
        "flrdf", WHOLE | {"n": 8}, RECIPES),
    Row("cam", "both, plain class activation map",
        "flrdf", WHOLE | {"controller": "none"}, RECIPES),
    Row("fixed", "both, maxima pressed to 70 %",
        "flrdf", WHOLE | {"controller": "fixed"}, RECIPES),
    # Our control, not in the paper: two looks, but nothing is located.
    Row("middle", "second look at the middle square alone (our control)",
        "flrdf", MIDDLE, RECIPES),
    Row("dcl", "DCL",
        "dcl", {}, RECIPES),
    Row("nts-net", "NTS-Net",
        "ntsnet", feng.NTS_NET, feng.NAVIGATED),
)
# fmt: on

PAPER = Paper(
    key="liang",
    title=(
        "Fine-Grained Visual Classification via Foreground Localization and Region"
        " Discriminative Feature Training"
    ),
    authors="Linlin Liang, Haicheng Qu",
    # None, `missing`: the number cannot be read in our copy (of Tables 2 and 3 no
    # number can, nor which columns they have).
    tables=(
        # First, because a row's printed value is taken from the first table that has
        # the row.
        Table(
            name="Table 5",
            caption=(
                "Top-1 accuracy beside methods that use image labels only; all on"
                " ResNet-50."
            ),
            columns=("cub", "aircraft", "cars"),
            cells={
                "Cross-X": (87.7, 92.6, 94.6),
                "DFL-CNN": (87.4, 91.7, 93.1),
                "MC-Loss": (87.3, None, 93.7),
                "NTS-Net": (87.5, 91.4, 93.9),
                "DCL": (87.8, 93.0, None),
                "PMG": (89.6, 93.4, 95.1),
                "FLRDF": (88.1, 93.8, 94.9),
            },
            rows={"NTS-Net": "nts-net", "DCL": "dcl", "FLRDF": "flrdf"},
            missing=LOST,
        ),
        Table(
            name="Table 2",
            caption="Ablation; the values cannot be read.",
            columns=("cub",),
            cells={
                "baseline": (None,),
                "foreground localisation": (None,),
                "shuffling": (None,),
                "both": (None,),
            },
            rows={
                "baseline": "plain",
                "foreground localisation": "foreground",
                "shuffling": "shuffle",
                "both": "flrdf",
            },
            missing=LOST,
        ),
        Table(
            name="Table 3",
            caption=(
                "Accuracy of foreground localisation; rows and values cannot be read."
                " Claim D4 measures it."
            ),
            columns=("cub",),
            # no rows: what stands beside a printed value is accuracy
            cells={"class activation map": (None,), "with suppression": (None,)},
            unit="% of images located",
            missing=LOST,
        ),
        Table(
            name="Table 4",
            caption="Patches a side; the other rows cannot be read.",
            columns=("cub", "cars", "aircraft"),
            cells={"n = 1": (87.63, 94.37, 92.93)},
            rows={"n = 1": "n1"},
            missing=LOST,
        ),
    ),
    rows=ROWS,
    claims=(
        Claim(
            "D1",
            "foreground localisation improves on the plain backbone",
            better="foreground",
            worse="plain",
        ),
        Claim(
            "D2",
            "shuffling improves on the plain backbone",
            better="shuffle",
            worse="plain",
        ),
        Claim(
            "D3",
            "both together beat foreground localisation alone",
            better="flrdf",
            worse="foreground",
        ),
        Claim(
            "D3 shuffling",
            "both together beat shuffling alone",
            better="flrdf",
            worse="shuffle",
        ),
        Claim(
            "D4",
            "suppression gives boxes that fit the object better than a plain class"
            " activation map's",
            better="flrdf",
            worse="cam",
            metric="iou_foreground",
        ),
        Claim(
            "D4 fixed",
            "the same of a suppression to 70 %",
            better="fixed",
            worse="cam",
            metric="iou_foreground",
        ),
        Claim(
            "D5",
            "cutting the foreground into patches beats leaving it whole",
            better="flrdf",
            worse="n1",
            printed_effect=0.5,
        ),
        Claim(
            "D6 DCL",
            "the whole method beats DCL",
            better="flrdf",
            worse="dcl",
            printed_effect=0.3,
        ),
        Claim(
            "D6 NTS-Net",
            "the whole method beats NTS-Net",
            better="flrdf",
            worse="nts-net",
            printed_effect=0.6,
        ),
    ),
    datasets={
        "quick": ("fieldguide",),
        "photo": ("cub50",),
        "paper": ("cub", "aircraft", "cars"),
    },
    # An ablation changes one thing of the whole method and takes its settings.
    seeds={"photo": Seeds(claimed=5, others=3)},
    tuning={
        "photo": Tuning(
            PHOTO,
            {
                "plain": TRIES,
                "nts-net": (*TRIES, *feng.NTS_NET_TRIES),
                "dcl": (*TRIES, *DCL_TRIES),
                "flrdf": (*TRIES, *FLRDF_TRIES),
            },
        ),
    },
)

QUESTIONS = (
    Claim(
        "Q1", "the whole method beats the plain backbone", better="flrdf", worse="plain"
    ),
    Claim(
        "Q1 middle",
        "a second look at the foreground beats one at the middle square",
        better="foreground",
        worse="middle",
    ),
    Claim(
        "Q2",
        "a third look at the foreground helps even when nothing is shuffled",
        better="n1",
        worse="foreground",
    ),
)
"""What a reader asks next. Not claims of the paper; judged in the same way."""

BOXES = (
    Claim(
        "Q3",
        "in one network, the box of the pressed maps fits better than that of the same"
        " maps before",
        better="flrdf",
        worse="flrdf",
        metric="iou_foreground",
        worse_metric="iou_cam",
    ),
    Claim(
        "Q4",
        "the box fits better than the middle square with half the area",
        better="flrdf",
        worse="flrdf",
        metric="iou_foreground",
        worse_metric="iou_centre",
    ),
    Claim(
        "Q4 whole",
        "the box fits better than the whole image",
        better="flrdf",
        worse="flrdf",
        metric="iou_foreground",
        worse_metric="iou_whole",
    ),
    Claim(
        "Q5",
        "the pressed map is better than a plain class activation map, each cut at its"
        " best levels",
        better="flrdf",
        worse="cam",
        metric="maxbox_foreground",
    ),
    Claim(
        "Q6",
        "a threshold at the mean gives better boxes than one at a share of the maximum",
        better="flrdf",
        worse="flrdf",
        metric="iou_foreground_mean",
        worse_metric="iou_foreground_max",
    ),
)
"""The same, about boxes: needs a data set that has them."""

PATCHES = (
    Claim(
        "Q7", "four patches beat leaving the foreground whole", better="n2", worse="n1"
    ),
    Claim(
        "Q8",
        "sixty-four patches beat leaving the foreground whole",
        better="n8",
        worse="n1",
    ),
)
"""The same, about the number of patches."""
