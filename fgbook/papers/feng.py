"""Feng, Fu, Zhao: Learning to focus and discriminate for fine-grained classification
(2019).
"""

from ..recipe import Recipe
from .photo import PHOTO, TRIES
from .spec import Claim, Paper, Recipes, Row, Seeds, Table, Tuning

# The paper's own hyper-parameters (section 4.2). Batch size, augmentation, the
# treatment of BatchNorm and the resize before the crop are silent: 16, flips and random
# crops of 448 from 512, batch statistics. It has no validation split: settings are
# fixed, the last epoch counts.
PAPER_RECIPE = Recipe(
    image_size=448,
    store_size=512,
    backbone="resnet50",
    epochs=100,
    batch_size=16,
    optimiser="sgd",
    lr=0.01,
    backbone_lr_factor=0.1,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="step",
    step_epochs=40,
    step_factor=0.1,
    batchnorm="batch",
    train_on="train+val",
)

# A side of 8 k + 1 pixels, where 8 is the network's stride, lets the cells of the map
# lie evenly from border to border; at 72 all of them would look too far up and left.
QUICK_RECIPE = Recipe(
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
)


METHOD = Recipes(quick=QUICK_RECIPE, photo=PHOTO, paper=PAPER_RECIPE)
# The best of its tries that is no longer than the others; half as many epochs again
# brought one validation image more.
PLAIN = METHOD.at("photo", lr=0.006)
# The best of the whole method's tries has the same rate. At the usual one, fewer and
# smaller regions came within three validation images of it.
WHOLE = METHOD.at("photo", lr=0.006)
# The best of NTS-Net's eight tries, too.
NAVIGATED = METHOD.at("photo", lr=0.006)

# Six regions of which four are read, as in the original. Of its pyramid of three maps
# the coarser two would have 4 x 4 and 2 x 2 cells here; two sizes on the one map take
# their place.
NTS_NET = {"sides": (0.3, 0.45)}

# ---- tuning: four tries of each method's own, after the common ones

FOCUS_TRIES: tuple[dict, ...] = (
    # fewer regions, of other sizes: the last ones leave the object
    {"options": {"m": 4}},
    {"options": {"m": 4, "box": 0.25}},
    {"options": {"m": 3, "l": 2}},
    {"options": {"m": 3, "l": 2, "box": 0.5}},
)
NTS_NET_TRIES: tuple[dict, ...] = (
    {"options": {"m": 4, "k": 2}},
    {"options": {"sides": (0.4, 0.6)}},
    {"options": {"sides": None}},
    {"options": {"dropout": 0.2}},
)

# name, title,
#     method, its options, recipes
# fmt: off
ROWS = (
    # Our yardstick, not in the paper: what training the backbone must beat. It is
    # solved, and so the same for every seed.
    Row("probe", "linear probe: logistic regression on frozen features",
        "probe", {}, METHOD, unstable=True),
    Row("plain", "plain backbone",
        "plain", {}, PLAIN),
    Row("nts-net", "NTS-Net",
        "ntsnet", NTS_NET, NAVIGATED),
    Row("image", "image level only",
        "focus", {"heads": "image"}, WHOLE),
    Row("single", "hybrid head, one class activation map",
        "focus", {"attention": "true"}, WHOLE),
    Row("hybrid", "hybrid head, maximum over classes",
        "focus", {}, WHOLE),
)
# fmt: on

PAPER = Paper(
    key="feng",
    title="Learning to Focus and Discriminate for Fine-Grained Classification",
    authors="Zhicong Feng, Keren Fu, Qijun Zhao",
    tables=(
        Table(
            name="Table 1",
            caption="Top-1 accuracy beside methods that use image labels only.",
            columns=("cub", "aircraft", "cars"),
            cells={
                "Bilinear-CNN": (84.1, 84.1, 91.3),
                "ResNet-50": (84.5, None, None),
                "RA-CNN": (85.3, 88.2, 92.5),
                "Boost-CNN": (85.6, 88.5, 92.1),
                "MA-CNN": (86.5, 89.9, 92.8),
                "PartNet-Full": (87.3, None, None),
                "NTS-Net": (87.5, 91.4, 93.9),
                "Ours": (87.6, 92.1, 94.1),
            },
            rows={"ResNet-50": "plain", "NTS-Net": "nts-net", "Ours": "hybrid"},
        ),
        Table(
            name="Table 2",
            caption="Ablation on CUB-200-2011.",
            columns=("cub",),
            cells={
                "ResNet-50": (84.5,),
                "NTS-Net (image level only)": (85.3,),
                "Ours (image level only)": (86.7,),
                "Ours (without max-pooling)": (87.3,),
                "Ours (hybrid + max-pooling)": (87.6,),
            },
            rows={
                "ResNet-50": "plain",
                "Ours (image level only)": "image",
                "Ours (without max-pooling)": "single",
                "Ours (hybrid + max-pooling)": "hybrid",
            },
        ),
    ),
    rows=ROWS,
    claims=(
        Claim(
            "B1",
            "training with regions improves the image-level branch over the plain"
            " backbone",
            better="image",
            worse="plain",
            printed_effect=2.2,
        ),
        Claim(
            "B2",
            "the hybrid head improves on the image-level branch",
            better="hybrid",
            worse="image",
            printed_effect=0.9,
        ),
        Claim(
            "B3",
            "the maximum over all class activation maps beats the map of one class",
            better="hybrid",
            worse="single",
            printed_effect=0.3,
        ),
        Claim(
            "B4",
            "the whole method is at least as good as NTS-Net (the paper: on each of"
            " three sets; here each set is judged by itself)",
            better="hybrid",
            worse="nts-net",
            printed_effect=0.1,
        ),
        # Section 4.3 says this in passing; it is the claim that a reader asks about
        # first.
        Claim(
            "B5",
            "the whole method beats the plain backbone",
            better="hybrid",
            worse="plain",
            printed_effect=3.1,
        ),
    ),
    datasets={
        "quick": ("fieldguide",),
        "photo": ("cub50", "cars98"),
        "paper": ("cub", "aircraft", "cars"),
    },
    # An ablation changes one thing of the whole method and takes its settings.
    seeds={"photo": Seeds(claimed=5, others=3)},
    tuning={
        "photo": Tuning(
            PHOTO,
            {
                "plain": TRIES,
                "nts-net": (*TRIES, *NTS_NET_TRIES),
                "hybrid": (*TRIES, *FOCUS_TRIES),
            },
        ),
    },
)
