"""Gautam, Suman, Sharma: Fine grained image classification using deep learning (year
not printed).

It prints no number and no hyper-parameter, so there is no table to reproduce. The rows
are the table that it lacks: each of its components alone, all of them, and all but one.

First come the recipes, each with a name and made from one before it; then the rows,
which say method, options and recipe; then what is claimed and asked.
"""

from ..recipe import Recipe
from . import feng
from .photo import PHOTO
from .spec import Claim, Paper, Recipes, Row, Seeds, Tuning

# ---- recipes: the plain backbone

# Section 4: ResNet-50, Adam, cyclic learning rate, early stopping on validation. All
# else is silent: 448 px as in the other papers; rates that are usual for fine-tuning
# with Adam; cycles of four epochs; stop after ten epochs without a better one. Batches
# of 32, so that groups of four images of a class (for the triplet loss) leave eight
# classes in a batch.
PAPER_RECIPE = Recipe(
    image_size=448,
    store_size=512,
    backbone="resnet50",
    epochs=60,
    batch_size=32,
    optimiser="adam",
    lr=1e-3,
    backbone_lr_factor=0.1,
    weight_decay=0.0,
    schedule="cyclic",
    cycle_epochs=4.0,
    patience=10,
)

# At the small profiles: recipes that were tuned for a plain backbone. The paper's Adam
# with cycles is a row of its own there.
QUICK_RECIPE = feng.QUICK_RECIPE
# On smaller images than PHOTO has (32 k + 1: 5 x 5 cells lie evenly), and shorter,
# because there are more than forty rows; without label smoothing and zoom, which are
# components here.
PHOTO_START = PHOTO.but(
    image_size=129,
    store_size=144,
    epochs=8,
    label_smoothing=0.0,
    crop_scale=0.0,
)
PHOTO_RECIPE = PHOTO_START

# For the plain backbone and for the whole system: rates, and half as long again.
TRIES: tuple[dict, ...] = (
    {},
    {"lr": 0.006},
    {"lr": 0.012},
    {"lr": 0.006, "epochs": 12},
)

PLAIN = Recipes(quick=QUICK_RECIPE, photo=PHOTO_RECIPE, paper=PAPER_RECIPE)

# The paper's own optimiser at the small profiles, in cycles of two epochs. At photo no
# image is held out, so that nothing stops early.
ADAM_CHANGES = {
    "optimiser": "adam",
    "lr": 1e-3,
    "backbone_lr_factor": 0.1,
    "weight_decay": 0.0,
    "schedule": "cyclic",
    "cycle_epochs": 2.0,
}
ADAM = PLAIN.only("quick", "photo").but(**ADAM_CHANGES).at("quick", patience=3)

# ---- recipes: one component

# Strengths are silent: those of the papers that brought them up. At photo the best of
# three tries on validation.
MIXUP = PLAIN.but(mixup=0.2).at("photo", mixup=0.1)  # Zhang et al. 2018: 0.1 to 0.4
CUTMIX = PLAIN.but(cutmix=1.0).at("photo", cutmix=0.5)  # Yun et al. 2019: 1
# Szegedy et al. 2016: 0.1
SMOOTHING = PLAIN.but(label_smoothing=0.1).at("photo", label_smoothing=0.2)
# "rotation, zoom": degrees; side of the square that is enlarged, at least
ROTATION = PLAIN.but(rotate=15.0, crop_scale=0.7)
# the batches that the triplet loss needs (Hermans et al. 2017); its weight is 1
GROUPED = PLAIN.but(per_class=4)

# ---- recipes: all components, and all but one

ALL_CHANGES = {
    "mixup": 0.2,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
    "rotate": 15.0,
    "crop_scale": 0.7,
    "per_class": 4,
}
ALL_AT_PHOTO = ALL_CHANGES | {"mixup": 0.1, "cutmix": 0.5, "label_smoothing": 0.2}
# the best of its four tries on validation; the plain backbone had the same four
LONGER = {"lr": 0.006, "epochs": 12}
ALL = PLAIN.but(**ALL_CHANGES).at("photo", **ALL_AT_PHOTO, **LONGER)
NO_MIXUP = ALL.but(mixup=0.0)
NO_CUTMIX = ALL.but(cutmix=0.0)
NO_SMOOTHING = ALL.but(label_smoothing=0.0)
NO_ROTATION = ALL.but(rotate=0.0, crop_scale=0.0)
NO_TRIPLET = ALL.but(per_class=0)

COMPONENTS = ("mixup", "cutmix", "smoothing", "rotation", "triplet")
"""What recipes switch on and off. Attention, the sixth, is a method's option."""

# ---- recipes: fewer images

FRACTIONS = {"tenth": 0.1, "quarter": 0.25, "half": 0.5}
"""Parts of the training images, by the end of a row's name."""

PLAIN_QUARTER = PLAIN.but(fraction=0.25)

# ---- recipes: self-supervised learning

# From random weights all layers learn at one rate; at the small profiles with AdamW,
# as the paper's profile has Adam anyway.
ADAMW = {"optimiser": "adamw", "lr": 1e-3, "weight_decay": 0.05, "schedule": "onecycle"}
SCRATCH = (
    PLAIN.but(weights="none", batchnorm="batch", backbone_lr_factor=1.0)
    .at("quick", **ADAMW)
    .at("photo", frozen_stages=0, **ADAMW)
)
SCRATCH_QUARTER = SCRATCH.but(fraction=0.25)

# The first stage sees two views of each training picture and no label, and its last
# epoch counts, because its class predictions mean nothing. At the paper's profile as in
# section 4 of Chen and He 2021, in 200 epochs.
SIMSIAM_FIRST = (
    PLAIN.but(
        views=2,
        keep="last",
        patience=0,
        loss_weights=(("spread", 0.0),),  # watched, not learned
        batchnorm="batch",
        crop_scale=0.5,
        jitter=0.4,
        batch_size=64,
    )
    .at("quick", epochs=3, **ADAMW)
    .at("photo", epochs=8, frozen_stages=0, **ADAMW)
    .at(
        "paper",
        epochs=200,
        image_size=224,
        store_size=256,
        batch_size=256,
        optimiser="sgd",
        lr=0.05,
        weight_decay=1e-4,
        schedule="cosine",
    )
)
SIMSIAM_SCRATCH_FIRST = SIMSIAM_FIRST.but(weights="none", backbone_lr_factor=1.0)
# BatchNorm learns its statistics on zoomed, jittered views, and at photo the second
# stage freezes them. Our control: they are made anew from plain views in between. (At
# the other profiles the second stage learns statistics itself.)
SIMSIAM_RECOMPUTED_FIRST = SIMSIAM_FIRST.only("quick", "photo").but(
    recompute_statistics=True
)


def as_long_as_both_stages(recipes: Recipes) -> Recipes:
    """For controls without a first stage: an epoch for each view that both stages
    together show of a picture, and no early end.
    """
    longer = recipes.but(patience=0)
    for profile, first in SIMSIAM_FIRST.items():
        epochs = recipes[profile].epochs + first.views * first.epochs
        longer = longer.at(profile, epochs=epochs)
    return longer


PLAIN_LONG = as_long_as_both_stages(PLAIN)
SCRATCH_LONG = as_long_as_both_stages(SCRATCH)

# ---- recipes: other networks that the paper names, at its own profile alone

EFFICIENTNET = ALL.only("paper").but(backbone="efficientnet_b0")
VIT = PLAIN.only("paper").but(backbone="vit_b_16", lr=3e-4)

# ---- rows

# Options of the method "attention": gates and the triplet loss. Both gates are on by
# default, the loss is off. Of its three tries at photo, gates in every block were best
# on validation, by two images of 300; the paper's words fit either place, so both are
# rows of a claim, and the other rows have the gates behind the last stage.
GATES: dict[str, bool] = {}
CHANNEL = {"spatial": False}
SPATIAL = {"channel": False}
TRIPLET = {"channel": False, "spatial": False, "triplet": True}
GATES_TRIPLET = {"triplet": True}

# What is measured of a row beside accuracy.
DAMAGE = ("robust",)
MARGIN = ("margin",)
FOCUS = ("focus",)

FIRST = {"part": "pretrain"}
SECOND = {"part": "classifier"}

# name, title,
#     method, its options, recipes
# fmt: off
COMPONENT_ROWS = (
    # Our yardstick, not in the paper: what fine-tuning must beat.
    Row("probe", "linear probe on frozen features",
        "probe", {}, PLAIN, unstable=True),
    Row("plain", "plain backbone",
        "plain", {}, PLAIN, measures=DAMAGE + MARGIN + FOCUS),
    # One component.
    Row("channel", "channel attention",
        "attention", CHANNEL, PLAIN, measures=FOCUS),
    Row("spatial", "spatial attention",
        "attention", SPATIAL, PLAIN, measures=FOCUS),
    Row("attention", "channel and spatial attention",
        "attention", GATES, PLAIN, measures=DAMAGE + FOCUS),
    Row("attention-blocks", "the same in every residual block",
        "attention", {"where": "blocks"}, PLAIN),
    Row("attention-usual", "the same, gates that start near 0.5",
        "attention", {"start": "usual"}, PLAIN),
    Row("mixup", "mixup",
        "plain", {}, MIXUP, measures=DAMAGE),
    Row("cutmix", "CutMix",
        "plain", {}, CUTMIX, measures=DAMAGE),
    Row("smoothing", "label smoothing",
        "plain", {}, SMOOTHING),
    Row("rotation", "rotation and zoom",
        "plain", {}, ROTATION),
    Row("triplet", "triplet loss",
        "attention", TRIPLET, GROUPED, measures=MARGIN),
    Row("grouped", "the triplet loss's batches without the loss (our control)",
        "plain", {}, GROUPED, measures=MARGIN),
    # at the paper's profile all rows are trained so
    Row("adam", "Adam, cyclic learning rate, early stopping",
        "plain", {}, ADAM),
    # All, and all but one.
    Row("all", "all of these",
        "attention", GATES_TRIPLET, ALL, measures=DAMAGE + MARGIN + FOCUS),
    Row("no-attention", "all but attention",
        "attention", TRIPLET, ALL),
    Row("no-mixup", "all but mixup",
        "attention", GATES_TRIPLET, NO_MIXUP),
    Row("no-cutmix", "all but CutMix",
        "attention", GATES_TRIPLET, NO_CUTMIX),
    Row("no-smoothing", "all but label smoothing",
        "attention", GATES_TRIPLET, NO_SMOOTHING),
    Row("no-rotation", "all but rotation and zoom",
        "attention", GATES_TRIPLET, NO_ROTATION),
    Row("no-triplet", "all but the triplet loss",
        "attention", GATES, NO_TRIPLET),
)

FEW_IMAGES_ROWS = (
    Row("plain-tenth", "plain backbone, a tenth of the images",
        "plain", {}, PLAIN.but(fraction=0.1)),
    Row("plain-quarter", "plain backbone, a quarter of the images",
        "plain", {}, PLAIN_QUARTER),
    Row("plain-half", "plain backbone, a half of the images",
        "plain", {}, PLAIN.but(fraction=0.5)),
    Row("all-tenth", "all of these, a tenth of the images",
        "attention", GATES_TRIPLET, ALL.but(fraction=0.1)),
    Row("all-quarter", "all of these, a quarter of the images",
        "attention", GATES_TRIPLET, ALL.but(fraction=0.25)),
    Row("all-half", "all of these, a half of the images",
        "attention", GATES_TRIPLET, ALL.but(fraction=0.5)),
)

# Semantic embedding: what people say of the classes, which no other row is told.
SEMANTIC_ROWS = (
    Row("semantic", "semantic embedding: similarity to the classes' attributes",
        "semantic", {}, PLAIN),
    Row("semantic-both", "semantic embedding and a softmax head, logits added",
        "semantic", {"softmax": True}, PLAIN),
    Row("semantic-shuffled",
        "semantic embedding, attributes given to the wrong classes (our control)",
        "semantic", {"shuffled": True}, PLAIN),
    Row("semantic-quarter", "semantic embedding, a quarter of the images",
        "semantic", {}, PLAIN_QUARTER),
    Row("semantic-shuffled-quarter",
        "attributes given to the wrong classes, a quarter of the images (our control)",
        "semantic", {"shuffled": True}, PLAIN_QUARTER),
)

# Self-supervised learning: SimSiam's first stage, and what learns from labels, after it
# or without it.
PRETRAINING_ROWS = (
    Row("scratch", "from random weights",
        "plain", {}, SCRATCH),
    Row("scratch-quarter", "from random weights, a quarter of the images",
        "plain", {}, SCRATCH_QUARTER),
    Row("scratch-long", "from random weights, as long as two stages (our control)",
        "plain", {}, SCRATCH_LONG),
    Row("simsiam-scratch-first", "SimSiam from random weights (first stage, no labels)",
        "simsiam", FIRST, SIMSIAM_SCRATCH_FIRST),
    Row("simsiam-scratch", "SimSiam from random weights, then labels",
        "simsiam", SECOND, SCRATCH, after="simsiam-scratch-first"),
    Row("simsiam-scratch-quarter",
        "SimSiam from random weights, then a quarter of the labels",
        "simsiam", SECOND, SCRATCH_QUARTER, after="simsiam-scratch-first"),
    Row("plain-long", "plain backbone, as long as two stages (our control)",
        "plain", {}, PLAIN_LONG),
    Row("simsiam-first", "SimSiam from pretrained weights (first stage, no labels)",
        "simsiam", FIRST, SIMSIAM_FIRST),
    Row("simsiam", "SimSiam from pretrained weights, then labels",
        "simsiam", SECOND, PLAIN, after="simsiam-first"),
    Row("simsiam-quarter",
        "SimSiam from pretrained weights, then a quarter of the labels",
        "simsiam", SECOND, PLAIN_QUARTER, after="simsiam-first"),
    Row("simsiam-recomputed-first",
        "the same first stage, BatchNorm's statistics recomputed on plain views",
        "simsiam", FIRST, SIMSIAM_RECOMPUTED_FIRST),
    Row("simsiam-recomputed",
        "SimSiam from pretrained weights, statistics recomputed, then labels (control)",
        "simsiam", SECOND, PLAIN.only("quick", "photo"),
        after="simsiam-recomputed-first"),
)

# Other networks that it names: as a feature, as the expensive rival.
NETWORK_ROWS = (
    Row("efficientnet", "all of these, EfficientNet-B0",
        "attention", GATES_TRIPLET, EFFICIENTNET),
    Row("vit", "vision transformer ViT-B/16",
        "plain", {}, VIT),
)
# fmt: on

PAPER = Paper(
    key="gautam",
    title="Fine Grained Image Classification using Deep Learning",
    authors="Lakshya Gautam, Lakshya Suman, Kritanshu Sharma",
    tables=(),
    rows=(
        *COMPONENT_ROWS,
        *FEW_IMAGES_ROWS,
        *SEMANTIC_ROWS,
        *PRETRAINING_ROWS,
        *NETWORK_ROWS,
    ),
    # "Improved" and the like, without an effect. Of C5 (less computation than
    # transformers) accuracy says nothing: records hold the operations of either
    # network. Focus (C1) is counted on Grad-CAM maps: see evaluation/explanation.py.
    claims=(
        Claim("C1", "attention improves accuracy", better="attention", worse="plain"),
        Claim(
            "C1 blocks",
            "attention in every residual block does",
            better="attention-blocks",
            worse="plain",
        ),
        Claim(
            "C1 channel",
            "channel attention alone does",
            better="channel",
            worse="plain",
        ),
        Claim(
            "C1 spatial",
            "spatial attention alone does",
            better="spatial",
            worse="plain",
        ),
        Claim(
            "C1 focus",
            "attention improves the focus: more of the map lies in the object's box",
            better="attention",
            worse="plain",
            metric="focus_energy",
        ),
        Claim(
            "C1 parts",
            "attention improves the focus: the map's maximum lies on a part more often",
            better="attention",
            worse="plain",
            metric="focus_part",
        ),
        Claim(
            "C2 mixup", "mixup improves generalisation", better="mixup", worse="plain"
        ),
        Claim(
            "C2 CutMix",
            "CutMix improves generalisation",
            better="cutmix",
            worse="plain",
        ),
        Claim(
            "C2 smoothing",
            "label smoothing improves generalisation",
            better="smoothing",
            worse="plain",
        ),
        Claim(
            "C3",
            "the triplet loss widens the margin between classes",
            better="triplet",
            worse="plain",
            metric="margin",
        ),
        Claim(
            "C4 distortion",
            "the whole system is more robust to distortion",
            better="all",
            worse="plain",
            metric="robust_distortion",
        ),
        Claim(
            "C4 occlusion",
            "the whole system is more robust to occlusion",
            better="all",
            worse="plain",
            metric="robust_occlusion",
        ),
        Claim(
            "C4 noise",
            "the whole system is more robust to noise",
            better="all",
            worse="plain",
            metric="robust_noise",
        ),
        Claim(
            "C4 data",
            "the whole system is better with a quarter of the images",
            better="all-quarter",
            worse="plain-quarter",
        ),
        Claim("C6", "the whole system improves accuracy", better="all", worse="plain"),
    ),
    datasets={
        "quick": ("fieldguide",),
        "photo": ("cub50",),
        "paper": ("cub", "cars", "aircraft"),
    },
    seeds={"photo": Seeds(claimed=5, others=3)},
    # The plain backbone and the whole system have the same four tries; each component
    # three of its own strength, with the settings of the plain backbone. All-but-one
    # rows take what the components alone were given.
    tuning={
        "photo": Tuning(
            PHOTO_START,
            {
                "plain": TRIES,
                "all": tuple(ALL_AT_PHOTO | change for change in TRIES),
                "attention": (
                    {"options": {"start": "identity"}},
                    {"options": {"start": "usual"}},
                    {"options": {"where": "blocks"}},
                ),
                "mixup": ({"mixup": 0.1}, {"mixup": 0.2}, {"mixup": 0.5}),
                "cutmix": ({"cutmix": 0.2}, {"cutmix": 0.5}, {"cutmix": 1.0}),
                "smoothing": (
                    {"label_smoothing": 0.05},
                    {"label_smoothing": 0.1},
                    {"label_smoothing": 0.2},
                ),
                "rotation": (
                    {"rotate": 5.0, "crop_scale": 0.85},
                    {"rotate": 15.0, "crop_scale": 0.7},
                    {"rotate": 15.0, "crop_scale": 0.5},
                ),
                "triplet": (
                    {"per_class": 4, "loss_weights": (("triplet", 1.0),)},
                    {"per_class": 4, "loss_weights": (("triplet", 0.3),)},
                    {"per_class": 4, "loss_weights": (("triplet", 0.1),)},
                ),
                "adam": (
                    ADAM_CHANGES,
                    ADAM_CHANGES | {"lr": 3e-3},
                    ADAM_CHANGES | {"backbone_lr_factor": 0.3},
                ),
            },
        ),
    },
)

MAIN = (
    "probe",
    "plain",
    "channel",
    "spatial",
    "attention",
    "attention-usual",
    "mixup",
    "cutmix",
    "smoothing",
    "rotation",
    "triplet",
    "grouped",
    "adam",
    "all",
    "no-attention",
    "no-mixup",
    "no-cutmix",
    "no-smoothing",
    "no-rotation",
    "no-triplet",
)
"""The table that the paper lacks."""

QUESTIONS = (
    Claim(
        "Q1",
        "gates that start at 1 are better than gates that start near 0.5",
        better="attention",
        worse="attention-usual",
    ),
    Claim(
        "Q1 blocks",
        "gates in every block are better than one pair behind the last stage",
        better="attention-blocks",
        worse="attention",
    ),
    Claim(
        "Q2",
        "is it the loss, not its batches? The triplet loss improves accuracy over its"
        " batches alone",
        better="triplet",
        worse="grouped",
    ),
    Claim(
        "Q2 margin",
        "the same, margin between classes",
        better="triplet",
        worse="grouped",
        metric="margin",
    ),
    Claim(
        "Q3",
        "what damage costs is less: the whole system loses less accuracy than the plain"
        " backbone",
        better="all",
        worse="plain",
        metric="robust_change",
    ),
    Claim(
        "Q4",
        "the paper's Adam with cycles and early stopping is better than the tuned"
        " recipe",
        better="adam",
        worse="plain",
    ),
    *(
        Claim(
            f"Q5 {name}", f"{name} adds to the others", better="all", worse=f"no-{name}"
        )
        for name in ("attention", *COMPONENTS)
    ),
)
"""What a reader asks next. Not claims of the paper; judged in the same way."""

LOOKS = (
    Claim(
        "Q8",
        "with attention, more of the map lies in the object's box than of a map that"
        " knows nothing",
        better="attention",
        worse="attention",
        metric="focus_energy",
        worse_metric="focus_energy_chance",
    ),
    Claim(
        "Q8 parts",
        "its maximum lies on a part more often than a random pixel",
        better="attention",
        worse="attention",
        metric="focus_part",
        worse_metric="focus_part_chance",
    ),
    Claim(
        "Q8 others",
        "more of the map lies in the box than of the mean map of the other images",
        better="attention",
        worse="attention",
        metric="focus_energy",
        worse_metric="focus_energy_others",
    ),
    Claim(
        "Q8 others, parts",
        "its maximum lies on a part more often than that of the mean map",
        better="attention",
        worse="attention",
        metric="focus_part",
        worse_metric="focus_part_others",
    ),
    Claim(
        "Q9",
        "before the gates, too, attention brings more of the map into the box",
        better="attention",
        worse="plain",
        metric="focus_energy_backbone",
    ),
    Claim(
        "Q9 all",
        "the whole system brings more of the map into the box than the plain backbone",
        better="all",
        worse="plain",
        metric="focus_energy",
    ),
    Claim(
        "Q9 all, parts",
        "the whole system brings the maximum to a part more often",
        better="all",
        worse="plain",
        metric="focus_part",
    ),
)
"""Questions about the maps: is it more than chance, is it more than that birds are in
the middle, is it the gates?
"""

DESCRIBED = (
    "plain",
    "semantic",
    "semantic-both",
    "semantic-shuffled",
    "plain-quarter",
    "semantic-quarter",
    "semantic-shuffled-quarter",
)
"""What belongs together: rows with and without descriptions of the classes."""

PRETRAINED = (
    "scratch",
    "simsiam-scratch",
    "scratch-long",
    "plain",
    "simsiam",
    "simsiam-recomputed",
    "plain-long",
    "scratch-quarter",
    "simsiam-scratch-quarter",
    "plain-quarter",
    "simsiam-quarter",
)
"""The same: rows with and without a first stage that sees no label."""

FEATURES = (
    Claim(
        "Q6", "semantic embedding improves accuracy", better="semantic", worse="plain"
    ),
    Claim(
        "Q6 both",
        "semantic embedding beside the softmax head does",
        better="semantic-both",
        worse="plain",
    ),
    Claim(
        "Q6 quarter",
        "semantic embedding does with a quarter of the images",
        better="semantic-quarter",
        worse="plain-quarter",
    ),
    Claim(
        "Q6 knowledge",
        "it is the attributes: given to the wrong classes, they help less",
        better="semantic",
        worse="semantic-shuffled",
    ),
    Claim(
        "Q6 knowledge, quarter",
        "the same with a quarter of the images",
        better="semantic-quarter",
        worse="semantic-shuffled-quarter",
    ),
    Claim(
        "Q7 scratch",
        "without other weights, pretraining on the same pictures without labels helps",
        better="simsiam-scratch",
        worse="scratch",
    ),
    Claim(
        "Q7 scratch, long",
        "it helps more than training with labels for as long",
        better="simsiam-scratch",
        worse="scratch-long",
    ),
    Claim(
        "Q7 scratch, quarter",
        "it helps with a quarter of the labels",
        better="simsiam-scratch-quarter",
        worse="scratch-quarter",
    ),
    Claim(
        "Q7 pretrained",
        "with pretrained weights, pretraining further on the same pictures helps",
        better="simsiam",
        worse="plain",
    ),
    Claim(
        "Q7 pretrained, long",
        "it helps more than training with labels for as long",
        better="simsiam",
        worse="plain-long",
    ),
    Claim(
        "Q7 pretrained, quarter",
        "it helps with a quarter of the labels",
        better="simsiam-quarter",
        worse="plain-quarter",
    ),
    Claim(
        "Q7 statistics",
        "is it BatchNorm? With statistics recomputed on plain views it helps more",
        better="simsiam-recomputed",
        worse="simsiam",
    ),
)
"""Questions about two things that the paper lists as features and does not describe:
semantic embedding and self-supervised learning.
"""
