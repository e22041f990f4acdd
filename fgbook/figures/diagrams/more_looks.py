"""Diagrams of methods that look more than once, or at parts: regions, jigsaws."""

from .language import (
    FIRST,
    LOOK,
    Diagram,
    Node,
    again,
    answer,
    head,
    layer,
    loss,
    maps,
    net,
    photo,
    step,
)

# ---- views that attention draws

CAL = Diagram(
    "CAL",
    "cal",
    LOOK
    | {
        "crop": Node("crops", 1, 1, "crop"),
        "dropped": Node("dropped", 1, 2, "a part dropped", training=True),
        "attention": Node("heat", 2, 1, "{m} attention maps", "attention", n="m"),
        "random": Node("heat", 2, 2, "random attention", n="m", training=True),
        "pooled": step(3, 0, "maps × attention"),
        "blind": step(3, 2, "maps × random"),
        "head": head(4, 0, "view head", "view_head"),
        "same": head(4, 2, "same head", "view_head"),
        "centre": loss(4, 1, "centre: distance"),
        "views": loss(5, 1, "views"),
        "effect": loss(5, 2, "effect: of the difference"),
        "prediction": answer(5, 0, "prediction: mean with crop"),
    },
    FIRST
    + """
    maps > attention > pooled > head > prediction
    maps > pooled > centre
    head > views
    maps > blind > same > effect
    random > blind
    head > effect
    attention |> crop > backbone
    attention |> dropped > backbone
    """,
    "CAL. Attention maps weigh the maps; what they change, against random attention,"
    " must tell the class too. They also draw a crop and drop a part: two more views.",
)

# ---- jigsaw

PMG = Diagram(
    "PMG",
    "pmg",
    {
        "jigsaw 1": Node(
            "jigsaw", 0, 0, "step 1: {n[0]} × {n[0]}", n="n[0]", training=True
        ),
        "jigsaw 2": Node(
            "jigsaw", 0, 1, "step 2: {n[1]} × {n[1]}", n="n[1]", training=True
        ),
        "jigsaw 3": Node(
            "jigsaw", 0, 2, "step 3: {n[2]} × {n[2]}", n="n[2]", training=True
        ),
        "image": photo(0, 3, "step 4: image"),
        "backbone": net(1, 1.5),
        "block 1": layer(2, 0, "early maps, block", "blocks.stage1"),
        "block 2": layer(2, 1, "later maps, block", "blocks.stage2"),
        "block 3": layer(2, 2, "last maps, block", "blocks.stage3"),
        "head 1": head(3, 0, "stage1 head", "heads.stage1"),
        "head 2": head(3, 1, "stage2 head", "heads.stage2"),
        "head 3": head(3, 2, "stage3 head", "heads.stage3"),
        "head 4": head(3, 3, "concat head", "heads.concat"),
        "loss 1": loss(4, 0, "stage1"),
        "loss 2": loss(4, 1, "stage2"),
        "loss 3": loss(4, 2, "stage3"),
        "loss 4": loss(4, 3, "concat: twice"),
        "prediction": answer(5, 1.5, "prediction: the sum"),
    },
    """
    jigsaw 1 > backbone > block 1 > head 1 > loss 1
    jigsaw 2 > backbone > block 2 > head 2 > loss 2
    jigsaw 3 > backbone > block 3 > head 3 > loss 3
    image > backbone
    block 1 > head 4 > loss 4
    block 2 > head 4
    block 3 > head 4
    head 1 > prediction
    head 2 > prediction
    head 3 > prediction
    head 4 > prediction
    """,
    "PMG. Every batch is learnt from in four optimiser steps: three jigsaws, each by"
    " the stage of its grain, then the whole image by all of them.",
)

DCL = Diagram(
    "DCL",
    "dcl",
    {
        "image": photo(0, 0),
        "destroyed": Node("jigsaw", 0, 1, "destroyed: {n} × {n}", n="n", training=True),
        "backbone": net(1, 0),
        "again": net(1, 1, "same pass"),
        "maps": maps(2, 0),
        "other maps": maps(2, 1, "maps"),
        "head": head(3, 0, "image head", "image_head"),
        "same": head(3, 1, "same head", "image_head"),
        "adversarial head": head(3, 2, "adversarial head", "adversarial_head"),
        "location head": head(3, 3, "location head", "location_head"),
        "prediction": answer(5, 0.5),
        "image loss": loss(4, 0, "image: a half"),
        "destroyed loss": loss(4, 1, "destroyed: a half"),
        "adversarial": loss(4, 2, "adversarial: which one?"),
        "location": loss(4, 3, "location: from where?"),
    },
    """
    image > backbone > maps > head > prediction
    head > image loss
    destroyed > again > other maps > same > destroyed loss
    maps > adversarial head > adversarial
    other maps > adversarial head
    maps > location head > location
    other maps > location head
    """,
    "DCL. In training every image is also seen with its patches moved a little; two"
    " more heads say which one was destroyed, and where each patch came from.",
)

FLRDF = Diagram(
    "FLRDF",
    "flrdf",
    {
        "image": photo(0, 0),
        "backbone": net(1, 0),
        "suppression": layer(2, 0, "peaks pressed down", "suppression"),
        "cam": Node("heat", 2, 1, "class map"),
        "foreground": Node("object", 0, 2, "foreground, enlarged"),
        "again": again(1, 2),
        "shuffled": Node("jigsaw", 0, 3, "{n} × {n} patches, shuffled", n="n"),
        "third": again(1, 3),
        "head": head(3, 0, "image head", "image_head"),
        "foreground head": head(3, 2, "foreground head", "foreground_head"),
        "shuffled head": head(3, 3, "shuffled head", "shuffled_head"),
        "image loss": loss(4, 0, "image"),
        "foreground loss": loss(4, 2, "foreground"),
        "shuffled loss": loss(4, 3, "shuffled"),
        "prediction": answer(5, 1.5, "prediction: the mean"),
    },
    """
    image > backbone > suppression > head > image loss
    suppression |> cam > foreground > again > foreground head > foreground loss
    head |> cam
    image > foreground
    foreground > shuffled > third > shuffled head > shuffled loss
    head > prediction
    foreground head > prediction
    """,
    "FLRDF. The class map says where the foreground is; the same backbone looks at it"
    " enlarged, and in training once more when it is cut into patches and shuffled.",
)

# ---- parts

MACNN = Diagram(
    "MA-CNN, simplified",
    "macnn",
    LOOK
    | {
        "weights": layer(2, 2, "weights of channels, {parts} times", "grouping"),
        "part maps": Node("heat", 3, 2, "{parts} part maps", n="parts"),
        "features": step(3, 1, "maps × part maps"),
        "head": head(4, 0, "image head", "image_head"),
        "part heads": head(4, 1, "{parts} part heads", "part_heads"),
        "joint head": head(4, 3, "joint head", "joint_head"),
        "image loss": loss(5, 0, "image"),
        "parts": loss(5, 1, "parts"),
        "distance": loss(4, 2, "distance: tight"),
        "diversity": loss(5, 2, "diversity: apart"),
        "joint": loss(6, 2, "joint"),
        "prediction": answer(6, 3),
    },
    FIRST
    + """
    maps > head > image loss
    maps |> weights > part maps |> features > part heads > parts
    maps > features
    part maps > distance
    part maps > diversity
    features |> joint head > joint
    maps |> joint head > prediction
    """,
    "MA-CNN, simplified. Weighed sums of channels become maps of parts, pulled together"
    " and apart by two losses; the heads learn from what lies under them.",
)

PARTNET = Diagram(
    "PartNet",
    "partnet",
    {
        "image": photo(0, 1),
        "backbone": net(1, 1),
        "maps": maps(2, 1),
        "boxes": Node("boxes", 2, 2, "boxes where channels peak", n=4),
        "features": layer(3, 2, "features of the boxes", "narrow"),
        "head": head(4, 1, "image head", "image_head"),
        "classification": head(4, 2, "what is it?", "classification"),
        "detection": head(4, 3, "which of {parts} parts?", "detection"),
        "product": step(5, 2, "product, summed over boxes"),
        "image loss": loss(5, 0, "image"),
        "score": loss(6, 2, "score: two-way"),
        "prediction": answer(6, 1, "prediction: the mean"),
    },
    FIRST
    + """
    maps > head > prediction
    head > image loss
    maps |> boxes > features > classification > product > score
    maps > features
    features > detection > product
    product > prediction
    """,
    "PartNet. One stream says what each box shows, another which boxes are parts; their"
    " product is the score of a class.",
)

# ---- regions

FOCUS = Diagram(
    "focus and discriminate",
    "focus",
    LOOK
    | {
        "map": Node("heat", 2, 1, "highest of all class maps"),
        "boxes": Node("boxes", 1, 1, "{m} best boxes", n="m"),
        "regions": Node("crops", 0, 2, "{m} regions, enlarged", n="m"),
        "again": again(1, 2),
        "more maps": maps(2, 2),
        "head": head(3, 0, "image head", "image_head"),
        "hybrid head": head(3, 1, "hybrid head: best {l}", "hybrid_head"),
        "region head": head(3, 2, "region head", "region_head"),
        "image loss": loss(4, 0, "image"),
        "region loss": loss(4, 2, "region"),
        "hybrid loss": loss(5, 0, "hybrid"),
        "prediction": answer(5, 1),
    },
    FIRST
    + """
    maps > head > image loss
    maps |> map > boxes > regions > again > more maps > region head > region loss
    head |> map
    image > regions
    maps > hybrid head > prediction
    more maps > hybrid head > hybrid loss
    """,
    "Focus and discriminate. The weights of the image head make a map of the maps; the"
    " backbone looks again at its best places, and the hybrid head reads both looks.",
)

NTSNET = Diagram(
    "NTS-Net",
    "ntsnet",
    LOOK
    | {
        "navigator": layer(2, 1, "navigator: scores of boxes", "navigator"),
        "boxes": Node("boxes", 1, 1, "{m} best boxes", n="m"),
        "regions": Node("crops", 0, 2, "{m} regions, enlarged", n="m"),
        "again": again(1, 2),
        "more maps": maps(2, 2),
        "head": head(3, 0, "image head", "image_head"),
        "concat head": head(3, 1, "concat head: best {k}", "concat_head"),
        "part head": head(3, 2, "part head", "part_head"),
        "image loss": loss(4, 0, "image"),
        "part loss": loss(4, 2, "part"),
        "rank": loss(4, 3, "rank: same order"),
        "concat loss": loss(5, 0, "concat"),
        "prediction": answer(5, 1),
    },
    FIRST
    + """
    maps > head > image loss
    maps |> navigator |> boxes > regions > again > more maps > part head > part loss
    image > regions
    maps > concat head > prediction
    more maps > concat head > concat loss
    navigator > rank
    part head |> rank
    """,
    "NTS-Net. The navigator scores boxes; the teacher (part head) looks at the best,"
    " and the scores shall have its order; the scrutinizer (concat head) reads all.",
)

RACNN = Diagram(
    "RA-CNN",
    "racnn",
    {
        "image": photo(1, 0),
        "backbone": net(2, 0),
        "proposal 1": layer(0, 1, "proposal: a square", "proposals.0"),
        "zoom 1": Node("object", 1, 1, "zoom1"),
        "again": again(2, 1),
        "proposal 2": layer(0, 2, "proposal: a square", "proposals.1"),
        "zoom 2": Node("crops", 1, 2, "zoom2"),
        "third": again(2, 2),
        "peak": loss(0, 3, "peak: near maxima"),
        "head": head(3, 0, "image head", "image_head"),
        "head 1": head(3, 1, "zoom1 head", "zoom_heads.0"),
        "head 2": head(3, 2, "zoom2 head", "zoom_heads.1"),
        "joint head": head(3, 3, "joint head", "joint_head"),
        "image loss": loss(4, 0, "image"),
        "loss 1": loss(4, 1, "zoom1"),
        "loss 2": loss(4, 2, "zoom2"),
        "joint": loss(5, 2, "joint"),
        "rank": loss(5, 1, "rank: surer"),
        "prediction": answer(5, 3),
    },
    """
    image > backbone > head > image loss
    backbone |> proposal 1 > zoom 1 > again > head 1 > loss 1
    again |> proposal 2 > zoom 2 > third > head 2 > loss 2
    image > zoom 1 > zoom 2
    proposal 1 > peak
    proposal 2 > peak
    head |> rank
    head 1 > rank
    head 2 > rank
    backbone |> joint head
    again |> joint head
    third |> joint head > prediction
    joint head > joint
    """,
    "RA-CNN. Each look says which square the next one enlarges, and the next shall be"
    " surer of the true class.",
)

MMAL = Diagram(
    "MMAL-Net",
    "mmal",
    LOOK
    | {
        "object": Node("object", 0, 1, "object: where maps are strong"),
        "again": again(1, 1),
        "object maps": maps(2, 1),
        "parts": Node("crops", 0, 2, "7 parts: strongest windows", n=7),
        "third": again(1, 2),
        "part maps": maps(2, 2),
        "head": head(3, 0, "image head", "image_head"),
        "same": head(3, 1, "same head", "image_head"),
        "same again": head(3, 2, "same head", "image_head"),
        "image loss": loss(4, 0, "image"),
        "object loss": loss(4, 1, "object"),
        "part loss": loss(4, 2, "part"),
        "prediction": answer(5, 0.5),
    },
    FIRST
    + """
    maps > head > image loss
    image > object > again > object maps > same > prediction
    maps |> object
    same > object loss
    object > parts > third > part maps > same again > part loss
    object maps |> parts
    """,
    "MMAL-Net. Image, object and, in training, parts pass one backbone and one head."
    " Nothing that learns is added for finding them.",
)

WSDL = Diagram(
    "WSDL in its smallest form",
    "wsdl",
    {
        "image": photo(0, 1),
        "backbone": net(1, 1),
        "early": maps(2, 0, "early maps"),
        "last": maps(2, 1, "last maps"),
        "boxes": Node("boxes", 1, 2, "a box of each class map", n="levels"),
        "crops": Node("crops", 0, 2, "{levels} regions", n="levels"),
        "again": again(1, 3),
        "head": head(3, 0, "level1 head", "heads.level1"),
        "image head": head(3, 1, "image head", "heads.image"),
        "path 1": head(3, 2, "path1 head", "pathways.path1"),
        "path 2": head(3, 3, "path2 head", "pathways.path2"),
        "loss 1": loss(4, 0, "level1"),
        "image loss": loss(4, 1, "image"),
        "path loss 1": loss(4, 2, "path1"),
        "path loss 2": loss(4, 3, "path2"),
        "prediction": answer(5, 1.5, "prediction: the mean"),
    },
    """
    image > backbone > early > head > loss 1
    backbone > last > image head > image loss
    early |> boxes > crops > again > path 1 > path loss 1
    last |> boxes
    head |> boxes
    image head |> boxes
    image > crops
    again > path 2 > path loss 2
    image head > prediction
    path 1 > prediction
    path 2 > prediction
    """,
    "WSDL in its smallest form. The class maps of two depths draw a box each; each box"
    " has a pathway of its own, and the mean of what they say predicts.",
)
