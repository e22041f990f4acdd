"""Golodov, Dubrovina, Paziya: Transfer learning approach to fine-grained image
classification (2018).
"""

from ..recipe import Recipe
from . import feng
from .photo import BACKBONE, PHOTO
from .spec import Claim, Paper, Recipes, Row, Seeds, Table, Tuning

# ---- recipes

# Section IV says: Adam, then Adamax at 1e-4; 90 epochs for the simple network. All else
# is silent: Keras's defaults of its year (Adam at 1e-3, batches of 32, constant rates,
# no weight decay, no augmentation), the epoch that is best on the validation images. At
# photo as in most chapters: the last epoch, after training on these too.
KERAS = Recipe(
    optimiser="adam",
    lr=1e-3,
    schedule="constant",
    weight_decay=0.0,
    batch_size=32,
    flip=False,
)

# The simple network, from random weights.
SCRATCH_PAPER = KERAS.but(
    image_size=224, store_size=224, backbone="none", weights="none", epochs=90
)
SCRATCH = Recipes(
    quick=SCRATCH_PAPER.but(image_size=73, store_size=81, epochs=6),
    photo=SCRATCH_PAPER.but(
        image_size=64, store_size=64, epochs=40, train_on="train+val"
    ),
    paper=SCRATCH_PAPER,
)

# A classifier on the features of a frozen backbone.
FROZEN_PAPER = KERAS.but(
    image_size=299, store_size=299, backbone="inception_v3", epochs=50
)
FROZEN = Recipes(
    quick=FROZEN_PAPER.but(image_size=73, store_size=81, backbone="small", epochs=6),
    photo=FROZEN_PAPER.but(
        image_size=PHOTO.image_size,
        store_size=PHOTO.store_size,
        backbone=BACKBONE,
        epochs=30,
        train_on="train+val",
    ),
    paper=FROZEN_PAPER,
)
# at photo: 16 million weights on 63 thousand features learn within a few hundred steps,
# each of them slow
ADAM = FROZEN.at("photo", batch_size=64, epochs=8)
ADAMAX = ADAM.but(optimiser="adamax", lr=1e-4)
ADAM_SLOW = ADAM.only("photo", "paper").but(lr=1e-4)
VGG16 = FROZEN.only("paper").but(backbone="vgg16", image_size=224, store_size=224)
# of five tries on validation
GAP_FEATURES = FROZEN.at("photo", optimiser="adamax")
LINEAR = FROZEN
# another network: weights from iNaturalist's birds are there for this one alone
LINEAR_BIRDS = FROZEN.only("photo").but(
    backbone="mobilenet_v2", weights="mobilenet_v2-inat_birds"
)

# Full fine-tuning learns the backbone too, and needs another recipe.
FINE = Recipes(
    quick=Recipe(
        image_size=73,
        store_size=81,
        backbone="small",
        epochs=6,
        batch_size=32,
        optimiser="adamw",
        lr=0.02,
        backbone_lr_factor=0.1,
        weight_decay=0.05,
        schedule="onecycle",
    ),
    photo=PHOTO,
    paper=Recipe(
        image_size=299,
        store_size=342,
        backbone="inception_v3",
        epochs=30,
        batch_size=32,
        lr=0.01,
        backbone_lr_factor=0.1,
        weight_decay=5e-4,
    ),
)
# At photo the one that was tuned for the plain backbone in the chapter on paper B
# (fgbook/papers/feng.py): it is the same run there and here.
TUNED = FINE.at("photo", lr=feng.PLAIN["photo"].lr)
# conv_cam has 14 x 14 cells, as in CAM networks of 224 px without pool5
FINE_VGG16 = FINE.only("paper").but(backbone="vgg16", image_size=448, store_size=512)

# ---- rows

FLAT: dict[str, object] = {}  # the classifier reads the map, cell by cell
POOLED = {"pool": "gap"}  # the map is averaged first
POOLED_LINEAR = {"pool": "gap", "hidden": 0}  # and there is one linear layer only

# name, title,
#     method, its options, recipes
# fmt: off
ROWS = (
    Row("fc", "from scratch, fully connected last layer",
        "simple", {"head": "fc"}, SCRATCH),
    Row("gap", "from scratch, global average pooling",
        "simple", {"head": "gap"}, SCRATCH),
    Row("vgg16", "frozen VGG16, classifier trained with Adam",
        "transfer", FLAT, VGG16),
    Row("adam", "frozen backbone, classifier trained with Adam",
        "transfer", FLAT, ADAM),
    Row("adamax", "frozen backbone, classifier trained with Adamax at 1e-4",
        "transfer", FLAT, ADAMAX),
    # From here on: not in the paper.
    Row("adam-slow", "the same with Adam at 1e-4",
        "transfer", FLAT, ADAM_SLOW),
    Row("gap-features", "frozen backbone, map averaged, the same classifier",
        "transfer", POOLED, GAP_FEATURES),
    Row("linear", "frozen backbone, map averaged, one linear layer",
        "transfer", POOLED_LINEAR, LINEAR),
    Row("linear-birds", "the same, backbone pretrained on birds",
        "transfer", POOLED_LINEAR, LINEAR_BIRDS),
    # Solved, and so the same for every seed; on the pictures that *plain* sees.
    Row("probe", "frozen backbone, map averaged, logistic regression",
        "probe", {}, FINE, unstable=True),
    Row("plain", "whole network fine-tuned",
        "plain", {}, TUNED),
    # MAEN of He, Peng and Zhao (2017), which section II reviews: maps at three
    # depths. Silent there, and so as the row above: the recipe.
    Row("levels", "whole network fine-tuned, a classifier at each of three depths",
        "levels", {}, TUNED.only("quick", "photo")),
    Row("levels-vgg16", "the same with the reviewed system's VGG16 and conv_cam",
        "levels", {"cam": 1024}, FINE_VGG16),
)
# fmt: on

PAPER = Paper(
    key="golodov",
    title="Transfer Learning Approach to Fine-Grained Image Classification",
    authors="Valentin A. Golodov, Mariya S. Dubrovina, Anastasiya S. Paziya",
    tables=(
        Table(
            name="Table I",
            caption="21 dog breeds; the last row stands in the text.",
            columns=("dogs21",),
            cells={
                "Simple Sequential Network": (22.0,),
                "Simple Sequential Network with global average pooling": (52.0,),
                "Transfer learning with Adam training of classifier": (90.0,),
                "Transfer learning with Adamax training of classifier": (93.0,),
                "VGG16 as the backbone": (67.0,),
            },
            rows={
                "Simple Sequential Network": "fc",
                "Simple Sequential Network with global average pooling": "gap",
                "Transfer learning with Adam training of classifier": "adam",
                "Transfer learning with Adamax training of classifier": "adamax",
                "VGG16 as the backbone": "vgg16",
            },
            unit="% accuracy",
        ),
    ),
    rows=ROWS,
    claims=(
        Claim(
            "A1",
            "global average pooling beats a fully connected last layer",
            better="gap",
            worse="fc",
            printed_effect=30.0,
        ),
        Claim(
            "A2",
            "transfer learning beats training from scratch",
            better="adam",
            worse="gap",
            printed_effect=38.0,
        ),
        Claim(
            "A3",
            "InceptionV3 is a better backbone than VGG16",
            better="adam",
            worse="vgg16",
            printed_effect=23.0,
        ),
        Claim(
            "A4",
            "Adamax at 1e-4 trains a better classifier than Adam: accuracy",
            better="adamax",
            worse="adam",
            printed_effect=3.0,
        ),
        Claim(
            "A4 loss",
            "Adamax at 1e-4 trains a better classifier than Adam: loss",
            better="adamax",
            worse="adam",
            printed_effect=0.30,
            metric="nll",
        ),
    ),
    datasets={
        "quick": ("fieldguide",),
        "photo": ("imagewoof10", "cub50"),
        "paper": ("dogs21",),
    },
    seeds={"photo": Seeds(claimed=5, others=3)},
    # Of the paper's own rows nothing was tuned: optimisers and rates are Keras's
    # defaults, or the claim. linear-birds takes linear's settings, and plain was tuned
    # in its own chapter.
    tuning={
        "photo": Tuning(
            FROZEN["photo"],
            {
                "gap-features": (
                    {},
                    {"lr": 1e-4},
                    {"lr": 3e-3},
                    {"optimiser": "adamax"},
                    {"optimiser": "adamax", "lr": 1e-4},
                ),
                "linear": (
                    {},
                    {"lr": 1e-4},
                    {"lr": 3e-3},
                    {"optimiser": "adamax"},
                    {"optimiser": "adamax", "lr": 1e-4},
                ),
            },
        ),
    },
)

PRINTED_LOSS = {"adam": 0.92, "adamax": 0.62}
"""The other column of Table I: cross-entropy on the validation images, in nats."""

QUESTIONS = (
    Claim(
        "Q1",
        "is it the optimiser? Adamax beats Adam at the same rate",
        better="adamax",
        worse="adam-slow",
    ),
    Claim(
        "Q1 loss", "the same, loss", better="adamax", worse="adam-slow", metric="nll"
    ),
    Claim(
        "Q2",
        "flattening the map beats averaging it",
        better="adamax",
        worse="gap-features",
    ),
    Claim(
        "Q3",
        "the hidden layer beats a linear one",
        better="gap-features",
        worse="linear",
    ),
    Claim(
        "Q4",
        "fine-tuning the whole network beats a frozen backbone",
        better="plain",
        worse="linear",
    ),
)
"""What a reader asks next. Not claims of the paper; judged in the same way."""

LEVELS = (
    Claim(
        "M1",
        "the box of the deepest level fits the bird better than the middle square with"
        " half the area",
        better="levels",
        worse="levels",
        metric="iou_image",
        worse_metric="iou_centre",
    ),
    Claim(
        "M2",
        "the box of the deepest level fits the bird better than that of the shallowest",
        better="levels",
        worse="levels",
        metric="iou_image",
        worse_metric="iou_level1",
    ),
    Claim(
        "M3",
        "classifying at every depth makes the deepest classifier better",
        better="levels",
        worse="plain",
    ),
)
"""Questions about the reviewed system's maps at several depths. Judged in the same way;
the first two need boxes.
"""
