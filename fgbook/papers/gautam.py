"""Gautam, Suman, Sharma: Fine grained image classification using deep learning (year
    not printed).

It prints no number and no hyper-parameter, so there is no table to reproduce. The rows
are the table that it lacks: each of its components alone, all of them, and all but one.
"""

from ..recipe import Recipe
from . import feng
from .spec import Claim, Paper, Row, Tuning

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

# At the small profiles: the recipe of the plain backbone that was tuned for the chapter
# on paper B; at photo on smaller images, because there are two dozen rows, and with the
# best epoch on validation, as the paper says. The paper's Adam with cycles is a row of
# its own there.
TUNED = feng.PAPER.row("plain").recipes
PHOTO_START = TUNED["photo"].but(image_size=112, store_size=128, train_on="train")
SLOWER = {"backbone_lr_factor": 0.1}
PHOTO_RECIPE = PHOTO_START.but(**SLOWER)  # the best of six tries for the plain backbone
QUICK_RECIPE = TUNED["quick"]
ADAM = {
    "optimiser": "adam",
    "lr": 1e-3,
    "backbone_lr_factor": 0.1,
    "weight_decay": 0.0,
    "schedule": "cyclic",
}
CYCLES = {"cycle_epochs": 2.0, "patience": 3}  # three of them

# The components. Strengths are silent: those of the papers that brought them up.
COMPONENTS = {
    "mixup": {"mixup": 0.2},  # Zhang et al. 2018, on ImageNet: 0.1 to 0.4
    "cutmix": {"cutmix": 1.0},  # Yun et al. 2019
    "smoothing": {"label_smoothing": 0.1},  # Szegedy et al. 2016
    # "rotation, zoom": degrees; side of the square that is enlarged, at least
    "rotation": {"rotate": 15.0, "crop_scale": 0.7},
    "triplet": {"per_class": 4},  # Hermans et al. 2017; the weight of the loss is 1
}
# at photo, of three tries on validation; for the others the usual was best
CHOSEN = {"mixup": {"mixup": 0.1}, "cutmix": {"cutmix": 0.2}}
NO_GATES = {"channel": False, "spatial": False}
FRACTIONS = {"tenth": 0.1, "quarter": 0.25, "half": 0.5}  # of the training images
QUARTER = {"fraction": FRACTIONS["quarter"]}

# Self-supervised learning. The first stage sees the training pictures twice a step and
# no label, and its last epoch counts, because its class predictions mean nothing. From
# random weights all layers learn at one rate; the paper's profile has Adam anyway.
BASE = {"quick": QUICK_RECIPE, "photo": PHOTO_RECIPE, "paper": PAPER_RECIPE}
ADAMW = {"optimiser": "adamw", "lr": 1e-3, "weight_decay": 0.05, "schedule": "onecycle"}
RANDOM = {"weights": "none", "batchnorm": "batch", "backbone_lr_factor": 1.0}
SCRATCH = {"quick": RANDOM | ADAMW, "photo": RANDOM | ADAMW, "paper": RANDOM}
SIMSIAM = {
    "views": 2,
    "keep": "last",
    "patience": 0,
    "loss_weights": (("spread", 0.0),),
    "batchnorm": "batch",
    "crop_scale": 0.5,
    "jitter": 0.4,
    "batch_size": 64,
}
FIRST = {  # the paper's: Chen and He 2021, section 4, in 200 epochs
    "quick": SIMSIAM | ADAMW | {"epochs": 3},
    "photo": SIMSIAM | ADAMW | {"epochs": 8},
    "paper": (
        SIMSIAM
        | {
            "epochs": 200,
            "image_size": 224,
            "store_size": 256,
            "batch_size": 256,
            "optimiser": "sgd",
            "lr": 0.05,
            "weight_decay": 1e-4,
            "schedule": "cosine",
        }
    ),
}


def row(
    name: str,
    title: str,
    options: dict | None = None,
    components: tuple[str, ...] = (),
    measures: tuple[str, ...] = (),
    **changes,
) -> Row:
    """A row at all profiles: attention's `options` (None: the plain backbone), these
    components, and other changes of the recipe."""
    chosen = {}
    for component in components:
        changes = changes | COMPONENTS[component]
        chosen |= CHOSEN.get(component, {})
    if "triplet" in components:
        options = (NO_GATES if options is None else options) | {"triplet": True}
    recipes = {
        "quick": QUICK_RECIPE.but(**changes),
        "photo": PHOTO_RECIPE.but(**changes | chosen),
        "paper": PAPER_RECIPE.but(**changes),
    }
    return Row(
        name,
        title,
        "plain" if options is None else "attention",
        options or {},
        recipes,
        measures=measures,
    )


def without(component: str, title: str) -> Row:
    """All components but one."""
    return row(
        f"no-{component}",
        title,
        {},
        tuple(name for name in COMPONENTS if name != component),
    )


def described(name: str, title: str, changes: dict | None = None, **options) -> Row:
    """A row of semantic embedding, at all profiles."""
    return Row(
        name,
        title,
        "semantic",
        options,
        {profile: base.but(**changes or {}) for profile, base in BASE.items()},
    )


def labelled(
    name: str,
    title: str,
    after: str | None = None,
    scratch: bool = False,
    long: bool = False,
    **changes,
) -> Row:
    """A row that learns from labels, at all profiles: after SimSiam's first stage or
    without it. `scratch`: from random weights; `long`: a control that sees as many
    views as both stages together."""
    recipes = {}
    for profile, base in BASE.items():
        longer = (
            {"epochs": base.epochs + 2 * FIRST[profile]["epochs"], "patience": 0}
            if long
            else {}
        )
        recipes[profile] = base.but(
            **(SCRATCH[profile] if scratch else {}) | longer | changes
        )
    return Row(
        name,
        title,
        "simsiam" if after else "plain",
        {"part": "classifier"} if after else {},
        recipes,
        after=after,
    )


def unlabelled(name: str, title: str, **changes) -> Row:
    """SimSiam's first stage, at all profiles."""
    return Row(
        name,
        title,
        "simsiam",
        {"part": "pretrain"},
        {
            profile: base.but(**FIRST[profile] | changes)
            for profile, base in BASE.items()
        },
    )


DAMAGE, MARGIN, FOCUS = ("robust",), ("margin",), ("focus",)

PAPER = Paper(
    key="gautam",
    title="Fine Grained Image Classification using Deep Learning",
    authors="Lakshya Gautam, Lakshya Suman, Kritanshu Sharma",
    year="not printed",
    tables=(),
    rows=(
        row("plain", "plain backbone", measures=DAMAGE + MARGIN + FOCUS),
        # One component.
        row("channel", "channel attention", {"spatial": False}, measures=FOCUS),
        row("spatial", "spatial attention", {"channel": False}, measures=FOCUS),
        row("attention", "channel and spatial attention", {}, measures=DAMAGE + FOCUS),
        row(
            "attention-blocks", "the same in every residual block", {"where": "blocks"}
        ),
        row(
            "attention-usual", "the same, gates that start near 0.5", {"start": "usual"}
        ),
        row("mixup", "mixup", None, ("mixup",), DAMAGE),
        row("cutmix", "CutMix", None, ("cutmix",), DAMAGE),
        row("smoothing", "label smoothing", None, ("smoothing",)),
        row("rotation", "rotation and zoom", None, ("rotation",)),
        row("triplet", "triplet loss", None, ("triplet",), MARGIN),
        row(
            "grouped",
            "the triplet loss's batches without the loss (our control)",
            measures=MARGIN,
            per_class=4,
        ),
        # at the paper's profile all rows are trained so
        Row(
            "adam",
            "Adam, cyclic learning rate, early stopping",
            "plain",
            {},
            {
                "quick": QUICK_RECIPE.but(**ADAM, **CYCLES),
                "photo": PHOTO_RECIPE.but(**ADAM | CYCLES | {"lr": 3e-3}),
            },
        ),
        # All, and all but one.
        row("all", "all of these", {}, tuple(COMPONENTS), DAMAGE + MARGIN + FOCUS),
        row("no-attention", "all but attention", NO_GATES, tuple(COMPONENTS)),
        without("mixup", "all but mixup"),
        without("cutmix", "all but CutMix"),
        without("smoothing", "all but label smoothing"),
        without("rotation", "all but rotation and zoom"),
        without("triplet", "all but the triplet loss"),
        # Few images.
        *(
            row(
                f"plain-{part}",
                f"plain backbone, a {part} of the images",
                fraction=share,
            )
            for part, share in FRACTIONS.items()
        ),
        *(
            row(
                f"all-{part}",
                f"all of these, a {part} of the images",
                {},
                tuple(COMPONENTS),
                fraction=share,
            )
            for part, share in FRACTIONS.items()
        ),
        # Semantic embedding: what people say of the classes, which no other row is
        # told.
        described(
            "semantic", "semantic embedding: similarity to the classes' attributes"
        ),
        described(
            "semantic-both",
            "semantic embedding and a softmax head, logits added",
            softmax=True,
        ),
        described(
            "semantic-shuffled",
            "semantic embedding, attributes given to the wrong classes (our control)",
            shuffled=True,
        ),
        described(
            "semantic-quarter", "semantic embedding, a quarter of the images", QUARTER
        ),
        described(
            "semantic-shuffled-quarter",
            "attributes given to the wrong classes, a quarter of the images (our"
            " control)",
            QUARTER,
            shuffled=True,
        ),
        # Self-supervised learning.
        labelled("scratch", "from random weights", scratch=True),
        labelled(
            "scratch-quarter",
            "from random weights, a quarter of the images",
            scratch=True,
            **QUARTER,
        ),
        labelled(
            "scratch-long",
            "from random weights, as long as two stages (our control)",
            scratch=True,
            long=True,
        ),
        unlabelled(
            "simsiam-scratch-first",
            "SimSiam from random weights (first stage, no labels)",
            **RANDOM,
        ),
        labelled(
            "simsiam-scratch",
            "SimSiam from random weights, then labels",
            "simsiam-scratch-first",
            scratch=True,
        ),
        labelled(
            "simsiam-scratch-quarter",
            "SimSiam from random weights, then a quarter of the labels",
            "simsiam-scratch-first",
            scratch=True,
            **QUARTER,
        ),
        labelled(
            "plain-long",
            "plain backbone, as long as two stages (our control)",
            long=True,
        ),
        unlabelled(
            "simsiam-first", "SimSiam from pretrained weights (first stage, no labels)"
        ),
        labelled(
            "simsiam", "SimSiam from pretrained weights, then labels", "simsiam-first"
        ),
        labelled(
            "simsiam-quarter",
            "SimSiam from pretrained weights, then a quarter of the labels",
            "simsiam-first",
            **QUARTER,
        ),
        # Other networks that it names: as a feature, as the expensive rival.
        Row(
            "efficientnet",
            "all of these, EfficientNet-B0",
            "attention",
            {"triplet": True},
            {
                "paper": PAPER_RECIPE.but(
                    backbone="efficientnet_b0",
                    **{
                        k: v for name in COMPONENTS for k, v in COMPONENTS[name].items()
                    },
                )
            },
        ),
        Row(
            "vit",
            "vision transformer ViT-B/16",
            "plain",
            {},
            {"paper": PAPER_RECIPE.but(backbone="vit_b_16", lr=3e-4)},
        ),
    ),
    # "Improved" and the like, without an effect. Of C5 (less computation than
    # transformers) accuracy says nothing: records hold the operations of either
    # network. Focus (C1) is counted on Grad-CAM maps: see evaluation/explanation.py.
    claims=(
        Claim("C1", "attention improves accuracy", "attention", "plain"),
        Claim("C1 channel", "channel attention alone does", "channel", "plain"),
        Claim("C1 spatial", "spatial attention alone does", "spatial", "plain"),
        Claim(
            "C1 focus",
            "attention improves the focus: more of the map lies in the object's box",
            "attention",
            "plain",
            metric="focus_energy",
        ),
        Claim(
            "C1 parts",
            "attention improves the focus: the map's maximum lies on a part more often",
            "attention",
            "plain",
            metric="focus_part",
        ),
        Claim("C2 mixup", "mixup improves generalisation", "mixup", "plain"),
        Claim("C2 CutMix", "CutMix improves generalisation", "cutmix", "plain"),
        Claim(
            "C2 smoothing",
            "label smoothing improves generalisation",
            "smoothing",
            "plain",
        ),
        Claim(
            "C3",
            "the triplet loss widens the margin between classes",
            "triplet",
            "plain",
            metric="margin",
        ),
        Claim(
            "C4 distortion",
            "the whole system is more robust to distortion",
            "all",
            "plain",
            metric="robust_distortion",
        ),
        Claim(
            "C4 occlusion",
            "the whole system is more robust to occlusion",
            "all",
            "plain",
            metric="robust_occlusion",
        ),
        Claim(
            "C4 noise",
            "the whole system is more robust to noise",
            "all",
            "plain",
            metric="robust_noise",
        ),
        Claim(
            "C4 data",
            "the whole system is better with a quarter of the images",
            "all-quarter",
            "plain-quarter",
        ),
        Claim("C6", "the whole system improves accuracy", "all", "plain"),
    ),
    datasets={
        "quick": ("fieldguide",),
        "photo": ("cub50",),
        "paper": ("cub", "cars", "aircraft"),
    },
    # The plain backbone first: small images want other rates. Then three tries for each
    # component, from what was best there. All-but-one rows take what the components
    # alone were given.
    tuning={
        "photo": Tuning(
            PHOTO_START,
            {
                "plain": (
                    {},
                    {"backbone_lr_factor": 0.6},
                    {"lr": 0.04},
                    {"lr": 0.01},
                    {"backbone_lr_factor": 0.1},
                    {
                        "optimiser": "adamw",
                        "lr": 0.002,
                        "backbone_lr_factor": 0.1,
                        "weight_decay": 0.05,
                        "schedule": "onecycle",
                        "clip_norm": 0.0,
                    },
                ),
                "attention": tuple(
                    SLOWER | change
                    for change in ({}, {"lr": 0.01}, {"backbone_lr_factor": 0.05})
                ),
                "mixup": tuple(
                    SLOWER | {"mixup": parameter} for parameter in (0.1, 0.2, 0.5)
                ),
                "cutmix": tuple(
                    SLOWER | {"cutmix": parameter} for parameter in (0.2, 0.5, 1.0)
                ),
                "smoothing": tuple(
                    SLOWER | {"label_smoothing": share} for share in (0.05, 0.1, 0.2)
                ),
                "rotation": tuple(
                    SLOWER | {"rotate": degrees, "crop_scale": side}
                    for degrees, side in ((5.0, 0.85), (15.0, 0.7), (15.0, 0.5))
                ),
                "triplet": tuple(
                    SLOWER | {"per_class": 4, "loss_weights": (("triplet", weight),)}
                    for weight in (1.0, 0.3, 0.1)
                ),
                "adam": tuple(
                    ADAM | CYCLES | change
                    for change in ({}, {"lr": 3e-3}, {"backbone_lr_factor": 0.3})
                ),
            },
        ),
    },
)

MAIN = (
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
    *(f"no-{name}" for name in ("attention", *COMPONENTS)),
)
"""The table that the paper lacks."""

QUESTIONS = (
    Claim(
        "Q1",
        "gates that start at 1 are better than gates that start near 0.5",
        "attention",
        "attention-usual",
    ),
    Claim(
        "Q1 blocks",
        "gates in every block are better than one pair behind the last stage",
        "attention-blocks",
        "attention",
    ),
    Claim(
        "Q2",
        "is it the loss, not its batches? The triplet loss improves accuracy over its"
        " batches alone",
        "triplet",
        "grouped",
    ),
    Claim(
        "Q2 margin",
        "the same, margin between classes",
        "triplet",
        "grouped",
        metric="margin",
    ),
    Claim(
        "Q3",
        "what damage costs is less: the whole system loses less accuracy than the plain"
        " backbone",
        "all",
        "plain",
        metric="robust_change",
    ),
    Claim(
        "Q4",
        "the paper's Adam with cycles and early stopping is better than the tuned"
        " recipe",
        "adam",
        "plain",
    ),
    *(
        Claim(f"Q5 {name}", f"{name} adds to the others", "all", f"no-{name}")
        for name in ("attention", *COMPONENTS)
    ),
)
"""What a reader asks next. Not claims of the paper; judged in the same way."""

LOOKS = (
    Claim(
        "Q8",
        "with attention, more of the map lies in the object's box than of a map that"
        " knows nothing",
        "attention",
        "attention",
        metric="focus_energy",
        worse_metric="focus_energy_chance",
    ),
    Claim(
        "Q8 parts",
        "its maximum lies on a part more often than a random pixel",
        "attention",
        "attention",
        metric="focus_part",
        worse_metric="focus_part_chance",
    ),
    Claim(
        "Q8 others",
        "more of the map lies in the box than of the mean map of the other images",
        "attention",
        "attention",
        metric="focus_energy",
        worse_metric="focus_energy_others",
    ),
    Claim(
        "Q8 others, parts",
        "its maximum lies on a part more often than that of the mean map",
        "attention",
        "attention",
        metric="focus_part",
        worse_metric="focus_part_others",
    ),
    Claim(
        "Q9",
        "before the gates, too, attention brings more of the map into the box",
        "attention",
        "plain",
        metric="focus_energy_backbone",
    ),
    Claim(
        "Q9 all",
        "the whole system brings more of the map into the box than the plain backbone",
        "all",
        "plain",
        metric="focus_energy",
    ),
    Claim(
        "Q9 all, parts",
        "the whole system brings the maximum to a part more often",
        "all",
        "plain",
        metric="focus_part",
    ),
)
"""Questions about the maps: is it more than chance, is it more than that birds are in
    the middle, is it the gates?"""

DESCRIBED = (
    "plain",
    "semantic",
    "semantic-both",
    "semantic-shuffled",
    "plain-quarter",
    "semantic-quarter",
    "semantic-shuffled-quarter",
)
PRETRAINED = (
    "scratch",
    "simsiam-scratch",
    "scratch-long",
    "plain",
    "simsiam",
    "plain-long",
    "scratch-quarter",
    "simsiam-scratch-quarter",
    "plain-quarter",
    "simsiam-quarter",
)
"""What belongs together: rows with and without descriptions of the classes; with and
    without a first stage that sees no label."""

FEATURES = (
    Claim("Q6", "semantic embedding improves accuracy", "semantic", "plain"),
    Claim(
        "Q6 both",
        "semantic embedding beside the softmax head does",
        "semantic-both",
        "plain",
    ),
    Claim(
        "Q6 quarter",
        "semantic embedding does with a quarter of the images",
        "semantic-quarter",
        "plain-quarter",
    ),
    Claim(
        "Q6 knowledge",
        "it is the attributes: given to the wrong classes, they help less",
        "semantic",
        "semantic-shuffled",
    ),
    Claim(
        "Q6 knowledge, quarter",
        "the same with a quarter of the images",
        "semantic-quarter",
        "semantic-shuffled-quarter",
    ),
    Claim(
        "Q7 scratch",
        "without other weights, pretraining on the same pictures without labels helps",
        "simsiam-scratch",
        "scratch",
    ),
    Claim(
        "Q7 scratch, long",
        "it helps more than training with labels for as long",
        "simsiam-scratch",
        "scratch-long",
    ),
    Claim(
        "Q7 scratch, quarter",
        "it helps with a quarter of the labels",
        "simsiam-scratch-quarter",
        "scratch-quarter",
    ),
    Claim(
        "Q7 pretrained",
        "with pretrained weights, pretraining further on the same pictures helps",
        "simsiam",
        "plain",
    ),
    Claim(
        "Q7 pretrained, long",
        "it helps more than training with labels for as long",
        "simsiam",
        "plain-long",
    ),
    Claim(
        "Q7 pretrained, quarter",
        "it helps with a quarter of the labels",
        "simsiam-quarter",
        "plain-quarter",
    ),
)
"""Questions about two things that the paper lists as features and does not describe:
semantic embedding and self-supervised learning."""
