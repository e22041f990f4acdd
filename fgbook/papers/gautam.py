"""Gautam, Suman, Sharma: Fine grained image classification using deep learning (year not printed).

It prints no number and no hyper-parameter, so there is no table to reproduce. The rows are the table that it lacks: each of its components
alone, all of them, and all but one.
"""

from ..recipe import Recipe
from . import feng
from .spec import Claim, Paper, Row, Tuning

# Section 4: ResNet-50, Adam, cyclic learning rate, early stopping on validation. All else is silent: 448 px as in the other papers; rates that
# are usual for fine-tuning with Adam; cycles of four epochs; stop after ten epochs without a better one. Batches of 32, so that groups of four
# images of a class (for the triplet loss) leave eight classes in a batch.
PAPER_RECIPE = Recipe(
    image_size=448, store_size=512, backbone="resnet50", epochs=60, batch_size=32, optimiser="adam", lr=1e-3, backbone_lr_factor=0.1,
    weight_decay=0.0, schedule="cyclic", cycle_epochs=4.0, patience=10,
)  # fmt: skip

# At the small profiles: the recipe of the plain backbone that was tuned for the chapter on paper B; at photo on smaller images, because there are
# two dozen rows, and with the best epoch on validation, as the paper says. The paper's Adam with cycles is a row of its own there.
TUNED = feng.PAPER.row("plain").recipes
PHOTO_START = TUNED["photo"].but(image_size=112, store_size=128, train_on="train")
SLOWER = {"backbone_lr_factor": 0.1}
PHOTO_RECIPE = PHOTO_START.but(**SLOWER)  # the best of six tries for the plain backbone
QUICK_RECIPE = TUNED["quick"]
ADAM = {"optimiser": "adam", "lr": 1e-3, "backbone_lr_factor": 0.1, "weight_decay": 0.0, "schedule": "cyclic"}
CYCLES = {"cycle_epochs": 2.0, "patience": 3}  # three of them

# The components. Strengths are silent: those of the papers that brought them up.
COMPONENTS = {
    "mixup": {"mixup": 0.2},  # Zhang et al. 2018, on ImageNet: 0.1 to 0.4
    "cutmix": {"cutmix": 1.0},  # Yun et al. 2019
    "smoothing": {"label_smoothing": 0.1},  # Szegedy et al. 2016
    "rotation": {"rotate": 15.0, "crop_scale": 0.7},  # "rotation, zoom": degrees; side of the square that is enlarged, at least
    "triplet": {"per_class": 4},  # Hermans et al. 2017; the weight of the loss is 1
}
NO_GATES = {"channel": False, "spatial": False}
QUARTER = {"fraction": 0.25}


def row(name: str, title: str, options: dict | None = None, components: tuple[str, ...] = (), measures: tuple[str, ...] = (), **changes) -> Row:
    """A row at all profiles: attention's `options` (None: the plain backbone), these components, and other changes of the recipe."""
    for component in components:
        changes = changes | COMPONENTS[component]
    if "triplet" in components:
        options = (NO_GATES if options is None else options) | {"triplet": True}
    recipes = {"quick": QUICK_RECIPE.but(**changes), "photo": PHOTO_RECIPE.but(**changes), "paper": PAPER_RECIPE.but(**changes)}
    return Row(name, title, "plain" if options is None else "attention", options or {}, recipes, measures=measures)


def without(component: str, title: str) -> Row:
    """All components but one."""
    return row(f"no-{component}", title, {}, tuple(name for name in COMPONENTS if name != component))


DAMAGE, MARGIN = ("robust",), ("margin",)

PAPER = Paper(
    key="gautam",
    title="Fine Grained Image Classification using Deep Learning",
    authors="Lakshya Gautam, Lakshya Suman, Kritanshu Sharma",
    year="not printed",
    tables=(),
    rows=(
        row("plain", "plain backbone", measures=DAMAGE + MARGIN),
        # One component.
        row("channel", "channel attention", {"spatial": False}),
        row("spatial", "spatial attention", {"channel": False}),
        row("attention", "channel and spatial attention", {}, measures=DAMAGE),
        row("attention-usual", "the same, gates that start near 0.5", {"start": "usual"}),
        row("mixup", "mixup", None, ("mixup",), DAMAGE),
        row("cutmix", "CutMix", None, ("cutmix",), DAMAGE),
        row("smoothing", "label smoothing", None, ("smoothing",)),
        row("rotation", "rotation and zoom", None, ("rotation",)),
        row("triplet", "triplet loss", None, ("triplet",), MARGIN),
        row("grouped", "the triplet loss's batches without the loss (our control)", measures=MARGIN, per_class=4),
        Row("adam", "Adam, cyclic learning rate, early stopping", "plain", {}, {  # at the paper's profile all rows are trained so
            "quick": QUICK_RECIPE.but(**ADAM, **CYCLES), "photo": PHOTO_RECIPE.but(**ADAM, **CYCLES)}),
        # All, and all but one.
        row("all", "all of these", {}, tuple(COMPONENTS), DAMAGE + MARGIN),
        row("no-attention", "all but attention", NO_GATES, tuple(COMPONENTS)),
        without("mixup", "all but mixup"),
        without("cutmix", "all but CutMix"),
        without("smoothing", "all but label smoothing"),
        without("rotation", "all but rotation and zoom"),
        without("triplet", "all but the triplet loss"),
        # Few images.
        row("plain-quarter", "plain backbone, a quarter of the images", **QUARTER),
        row("all-quarter", "all of these, a quarter of the images", {}, tuple(COMPONENTS), **QUARTER),
        # Other networks that it names: as a feature, as the expensive rival.
        Row("efficientnet", "all of these, EfficientNet-B0", "attention", {"triplet": True},
            {"paper": PAPER_RECIPE.but(backbone="efficientnet_b0", **{k: v for name in COMPONENTS for k, v in COMPONENTS[name].items()})}),
        Row("vit", "vision transformer ViT-B/16", "plain", {}, {"paper": PAPER_RECIPE.but(backbone="vit_b_16", lr=3e-4)}),
    ),
    # "Improved" and the like, without an effect. Of C5 (less computation than transformers) accuracy says nothing: records hold the operations of
    # either network. That attention improves the focus (C1) needs maps and boxes beside the accuracy.
    claims=(
        Claim("C1", "attention improves accuracy", "attention", "plain"),
        Claim("C1 channel", "channel attention alone does", "channel", "plain"),
        Claim("C1 spatial", "spatial attention alone does", "spatial", "plain"),
        Claim("C2 mixup", "mixup improves generalisation", "mixup", "plain"),
        Claim("C2 CutMix", "CutMix improves generalisation", "cutmix", "plain"),
        Claim("C2 smoothing", "label smoothing improves generalisation", "smoothing", "plain"),
        Claim("C3", "the triplet loss widens the margin between classes", "triplet", "plain", metric="margin"),
        Claim("C4 distortion", "the whole system is more robust to distortion", "all", "plain", metric="robust_distortion"),
        Claim("C4 occlusion", "the whole system is more robust to occlusion", "all", "plain", metric="robust_occlusion"),
        Claim("C4 noise", "the whole system is more robust to noise", "all", "plain", metric="robust_noise"),
        Claim("C4 data", "the whole system is better with a quarter of the images", "all-quarter", "plain-quarter"),
        Claim("C6", "the whole system improves accuracy", "all", "plain"),
    ),
    datasets={"quick": ("fieldguide",), "photo": ("cub50",), "paper": ("cub", "cars", "aircraft")},
    # The plain backbone first: small images want other rates. Then three tries for each component, from what was best there.
    # All-but-one rows take what the components alone were given.
    tuning={
        "photo": Tuning(PHOTO_START, {
            "plain": ({}, {"backbone_lr_factor": 0.6}, {"lr": 0.04}, {"lr": 0.01}, {"backbone_lr_factor": 0.1},
                      {"optimiser": "adamw", "lr": 0.002, "backbone_lr_factor": 0.1, "weight_decay": 0.05, "schedule": "onecycle", "clip_norm": 0.0}),
            "attention": tuple(SLOWER | change for change in ({}, {"lr": 0.01}, {"backbone_lr_factor": 0.05})),
            "mixup": tuple(SLOWER | {"mixup": parameter} for parameter in (0.1, 0.2, 0.5)),
            "cutmix": tuple(SLOWER | {"cutmix": parameter} for parameter in (0.2, 0.5, 1.0)),
            "smoothing": tuple(SLOWER | {"label_smoothing": share} for share in (0.05, 0.1, 0.2)),
            "rotation": tuple(SLOWER | {"rotate": degrees, "crop_scale": side} for degrees, side in ((5.0, 0.85), (15.0, 0.7), (15.0, 0.5))),
            "triplet": tuple(SLOWER | {"per_class": 4, "loss_weights": (("triplet", weight),)} for weight in (1.0, 0.3, 0.1)),
            "adam": tuple(ADAM | CYCLES | change for change in ({}, {"lr": 3e-3}, {"backbone_lr_factor": 0.3})),
        }),
    },
)

QUESTIONS = (
    Claim("Q1", "gates that start at 1 are better than gates that start near 0.5", "attention", "attention-usual"),
    Claim("Q2", "is it the loss, not its batches? The triplet loss improves accuracy over its batches alone", "triplet", "grouped"),
    Claim("Q2 margin", "the same, margin between classes", "triplet", "grouped", metric="margin"),
    Claim("Q3", "what damage costs is less: the whole system loses less accuracy than the plain backbone", "all", "plain", metric="robust_change"),
    Claim("Q4", "the paper's Adam with cycles and early stopping is better than the tuned recipe", "adam", "plain"),
    *(Claim(f"Q5 {name}", f"{name} adds to the others", "all", f"no-{name}") for name in ("attention", *COMPONENTS)),
)
"""What a reader asks next. Not claims of the paper; judged in the same way."""
