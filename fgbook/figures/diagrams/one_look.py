"""Diagrams of methods that look once: frozen features, pooling, losses, filters,
attention, and other answers to few images and to small ones.
"""

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

# ---- the plain backbone, and what is built of it

PLAIN = Diagram(
    "the plain backbone",
    "plain",
    LOOK
    | {
        "head": head(3, 0, "image head", "image_head"),
        "loss": loss(4, 1, "image"),
        "prediction": answer(4, 0),
    },
    FIRST + "maps > head > prediction \n head > loss",
    "The plain backbone. Its last maps are averaged over places, and a linear head"
    " scores the classes. All other methods are this and one idea more.",
)

PROBE = Diagram(
    "a linear probe",
    "probe",
    {
        "image": photo(0, 0),
        "backbone": Node("frozen", 1, 0, "frozen backbone", "backbone"),
        "features": Node("table", 2, 0, "features, kept"),
        "head": head(3, 0, "logistic regression", "head.layer"),
        "loss": loss(4, 1, "image: and a penalty"),
        "prediction": answer(4, 0),
    },
    "image > backbone |> features > head > prediction \n head > loss",
    "A linear probe. Every image passes the backbone once; the one minimum of the loss"
    " on all kept features is then found by a solver.",
)

NEIGHBOURS = Diagram(
    "nearest neighbours",
    "probe",
    {
        "image": photo(0, 0),
        "backbone": Node("frozen", 1, 0, "frozen backbone", "backbone"),
        "feature": step(2, 0, "feature"),
        "bank": Node("table", 2, 1, "features of all training images", "head.bank"),
        "vote": step(3, 0, "the {k} nearest vote"),
        "prediction": answer(4, 0),
    },
    "image > backbone |> feature > vote > prediction \n bank > vote",
    "Nearest neighbours. Nothing is trained: the training images whose features have"
    " the highest cosine vote for their class.",
    options=({"k": 10},),
)

TRANSFER = Diagram(
    "transfer learning",
    "transfer",
    {
        "image": photo(0, 0),
        "backbone": Node("frozen", 1, 0, "frozen backbone", "backbone"),
        "maps": maps(2, 0, "maps, kept"),
        "flat": step(3, 0, "flatten (or average)"),
        "hidden": layer(4, 0, "{hidden} units, ReLU, dropout", "head.layers.0"),
        "head": head(5, 0, "linear", "head.layers.3"),
        "loss": loss(6, 1, "image"),
        "prediction": answer(6, 0),
    },
    "image > backbone |> maps > flat > hidden > head > prediction \n head > loss",
    "Transfer learning. The maps of all images are computed once; only the classifier"
    " behind them learns.",
)

SIMPLE = Diagram(
    "the network from scratch",
    "simple",
    {
        "image": photo(0, 0),
        "layers": Node("net", 1, 0, "3 × (conv, ReLU, max-pool)", "layers"),
        "maps": maps(2, 0),
        "pool": step(3, 0, "average (or flatten)"),
        "head": head(4, 0, "image head", "image_head"),
        "loss": loss(5, 1, "image"),
        "prediction": answer(5, 0),
    },
    "image > layers > maps > pool > head > prediction \n head > loss",
    "The network from scratch. It brings its own layers, and all of them learn from the"
    " images at hand.",
)

LEVELS = Diagram(
    "multi-level attention",
    "levels",
    {
        "image": photo(0, 1),
        "backbone": net(1, 1),
        "shallow": maps(2, 0, "early maps"),
        "middle": maps(2, 1, "later maps"),
        "deep": maps(2, 2, "last maps"),
        "head 1": head(3, 0, "level1 head", "heads.level1"),
        "head 2": head(3, 1, "level2 head", "heads.level2"),
        "head 3": head(3, 2, "image head", "heads.image"),
        "cams": Node("heat", 4, 3, "class maps, cut by Otsu's rule", n="levels"),
        "boxes": Node("boxes", 5, 3, "a box for each depth", n="levels"),
        "loss 1": loss(4, 0, "level1"),
        "loss 2": loss(4, 1, "level2"),
        "loss 3": loss(4, 2, "image"),
        "prediction": answer(5, 1.5),
    },
    """
    image > backbone > shallow > head 1 > loss 1
    backbone > middle > head 2 > loss 2
    backbone > deep > head 3 > loss 3
    head 3 > prediction
    shallow |> cams |> boxes
    middle |> cams
    deep |> cams
    head 1 |> cams
    head 2 |> cams
    head 3 |> cams
    """,
    "Multi-level attention. A head at each of three depths; each head's weights make a"
    " class map of its own maps, and each map a box. The deepest alone predicts.",
)

# ---- pooling

BILINEAR = Diagram(
    "Bilinear CNN",
    "bilinear",
    LOOK
    | {
        "reduce": layer(3, 0, "1 × 1 conv to {width} channels", "reduce"),
        "products": step(4, 0, "each channel × each other, averaged"),
        "root": step(5, 0, "signed root, equal length"),
        "head": head(6, 0, "linear", "head"),
        "loss": loss(7, 1, "image"),
        "prediction": answer(7, 0),
    },
    FIRST + "maps > reduce > products > root > head > prediction \n head > loss",
    "Bilinear CNN. In place of the mean of each map, the head reads the mean of all"
    " products of two maps: what answers at the same place.",
)

COMPACT = Diagram(
    "compact bilinear pooling",
    "bilinear",
    LOOK
    | {
        "reduce": layer(3, 0, "1 × 1 conv to {width} channels", "reduce"),
        "products": step(4, 0, "each channel × each other, averaged"),
        "sketch": step(5, 0, "added up in {sketch} sums by chance"),
        "root": step(5, 1, "signed root, equal length"),
        "head": head(6, 1, "linear", "head"),
        "loss": loss(7, 0, "image"),
        "prediction": answer(7, 1),
    },
    FIRST
    + "maps > reduce > products > sketch > root > head > prediction\n head > loss",
    "Compact bilinear pooling. Every product falls, with a random sign, into one of a"
    " few sums; the head reads these.",
    options=({"sketch": 2048},),
)

# ---- losses

BOOSTED = Diagram(
    "boosted heads",
    "boosted",
    {
        "image": photo(0, 1),
        "backbone": net(1, 1),
        "maps": maps(2, 1),
        "views": layer(3, 1, "1 × 1 conv, {width} channels a round", "views"),
        "head 1": head(4, 0, "head 1", "heads.0"),
        "head 2": head(4, 1, "head 2", "heads.1"),
        "head 3": head(4, 2, "head 3", "heads.2"),
        "head 4": head(4, 3, "head 4", "heads.3"),
        "loss 1": loss(6, 0, "round1: step"),
        "loss 2": loss(6, 1, "round2: step"),
        "loss 3": loss(6, 2, "round3: step"),
        "loss 4": loss(6, 3, "round4: step"),
        "prediction": answer(7, 1.5, "prediction: the sum"),
    },
    """
    image > backbone > maps > views > head 1 > loss 1
    views > head 2 > loss 2
    views > head 3 > loss 3
    views > head 4 > loss 4
    head 1 |> loss 2
    head 2 |> loss 3
    head 3 |> loss 4
    head 1 > prediction
    head 2 > prediction
    head 3 > prediction
    head 4 > prediction
    """,
    "Boosted heads. Each head learns the step (squared distance) that the sum of those"
    " before it still needs.",
)

MCLOSS = Diagram(
    "MC-Loss",
    "mcloss",
    LOOK
    | {
        "head": head(4, 0, "image head", "image_head"),
        "groups": step(3, 2, "each class gets some channels"),
        "half": step(4, 2, "half hidden, highest at each place"),
        "apart": step(4, 3, "softmax over places, highest at each"),
        "loss": loss(5, 1, "image"),
        "channels": loss(5, 2, "channels"),
        "diversity": loss(5, 3, "diversity: 1 - mean"),
        "prediction": answer(5, 0),
    },
    FIRST
    + """
    maps > head > prediction
    head > loss
    maps > groups > half > channels
    groups > apart > diversity
    """,
    "MC-Loss. The plain backbone; in training, each class must also be told by its own"
    " channels, half of them hidden, and these must look at different places.",
)

APINET = Diagram(
    "API-Net",
    "apinet",
    {
        "image": photo(0, 0),
        "partner": Node(
            "photo", 0, 1, "most alike, of its class and another", n=2, training=True
        ),
        "backbone": net(1, 0),
        "again": again(1, 1),
        "mutual": layer(2, 1, "mutual vector of the pair", "mutual"),
        "gates": step(3, 1, "each × its own gate, × the other's"),
        "head": head(4, 0, "image head", "image_head"),
        "same": head(4, 1, "same head", "image_head"),
        "softmax": loss(5, 1, "softmax"),
        "rank": loss(5, 2, "rank: own gate ahead"),
        "prediction": answer(5, 0),
    },
    """
    image > backbone > head > prediction
    partner > again > mutual > gates > same > softmax
    backbone > mutual
    same > rank
    """,
    "API-Net. In training each image is paired with the most similar ones of the batch;"
    " seen through its own gate it must be surer than through its partner's. Alone, at"
    " test time, it is the plain network.",
)

# ---- filters

DFLCNN = Diagram(
    "DFL-CNN",
    "dflcnn",
    {
        "image": photo(0, 1),
        "backbone": net(1, 1),
        "last": maps(2, 0, "last maps"),
        "maps": maps(2, 1, "maps before them"),
        "bank": layer(3, 1, "{k} filters a class, best place each", "bank"),
        "own": step(4, 2, "mean of a class's own {k}"),
        "head": head(4, 0, "image head", "image_head"),
        "filter head": head(4, 1, "filter head", "filter_head"),
        "image loss": loss(5, 0, "image"),
        "filters": loss(5, 1, "filters"),
        "side": loss(5, 2, "side: × {side}"),
        "prediction": answer(6, 1, "prediction: the sum"),
    },
    """
    image > backbone > maps > bank > filter head > filters
    backbone > last > head > image loss
    bank > own > side
    head > prediction
    filter head > prediction
    own > prediction
    """,
    "DFL-CNN. Beside the usual look at the whole, a bank of filters of which only the"
    " strongest answer counts, wherever it is.",
)

# ---- attention

ATTENTION = Diagram(
    "channel and spatial attention with a triplet loss",
    "attention",
    LOOK
    | {
        "channel": layer(3, 0, "× channel gate", "channel"),
        "spatial": layer(4, 0, "× spatial gate", "spatial"),
        "head": head(5, 0, "image head", "image_head"),
        "triplet": loss(5, 1, "triplet: distances"),
        "loss": loss(6, 1, "image"),
        "prediction": answer(6, 0),
    },
    FIRST
    + """
    maps > channel > spatial > head > prediction
    head > loss
    spatial > triplet
    """,
    "Attention, and the triplet loss. One gate weighs the channels of the maps, a"
    " second one the places; the triplet loss compares the averaged maps of a batch.",
    options=({"triplet": True},),
)

CROSSX = Diagram(
    "Cross-X",
    "crossx",
    {
        "image": photo(0, 1),
        "backbone": net(1, 1),
        "early": maps(2, 0, "early maps"),
        "late": maps(2, 2, "last maps"),
        "early gates": layer(3, 0, "× {parts} gates", "early_gates"),
        "late gates": layer(3, 2, "× {parts} gates", "late_gates"),
        "join": layer(4, 1, "joined, convolved", "narrow join"),
        "parts": loss(4, 3, "parts: alike, apart"),
        "early head": head(5, 0, "early head", "heads.early"),
        "both head": head(5, 1, "both head", "heads.both"),
        "image head": head(5, 2, "image head", "heads.image"),
        "sum": step(6, 1, "sum"),
        "agree": loss(6, 3, "agree: divergence"),
        "classes": loss(7, 2, "classes"),
        "prediction": answer(7, 1),
    },
    """
    image > backbone > early > early gates > early head > sum > prediction
    backbone > late > late gates > image head > sum > classes
    early gates > join > both head > sum
    late gates > join
    early gates > parts
    late gates > parts
    join > parts
    early head > agree
    both head > agree
    image head > agree
    """,
    "Cross-X. Gates make parts of the maps of two layers; each part shall mean the same"
    " in all images of a batch, and the heads shall agree.",
)

# ---- transformers

TRANSFG = Diagram(
    "TransFG",
    "transfg",
    {
        "image": photo(0, 0),
        "patches": Node("tokens", 1, 0, "patches as tokens"),
        "layers": Node(
            "net", 2, 0, "layers 1 to L - 1", "backbone enter class_token added"
        ),
        "attention": Node("heat", 2, 1, "attention of all, multiplied"),
        "chosen": step(3, 0, "class token, a patch a head"),
        "last": layer(4, 0, "layer L", "last added_norm"),
        "head": head(5, 0, "linear", "head"),
        "contrast": loss(5, 1, "contrast: class tokens"),
        "loss": loss(6, 1, "image"),
        "prediction": answer(6, 0),
    },
    """
    image > patches > layers > chosen > last > head > prediction
    layers |> attention > chosen
    head > loss
    last > contrast
    """,
    "TransFG. Of all patches the last layer sees only those that the class token looked"
    " at most, one for each attention head.",
)

# ---- other answers to few images, and to small ones

SEMANTIC = Diagram(
    "semantic embedding",
    "semantic",
    LOOK
    | {
        "head": head(3, 0, "attribute head", "attribute_head"),
        "classes": Node("table", 3, 1, "descriptions of the classes"),
        "cosine": layer(4, 0, "cosine × scale", "log_scale"),
        "loss": loss(5, 1, "image"),
        "prediction": answer(5, 0),
    },
    FIRST
    + """
    maps > head > cosine > prediction
    classes > cosine
    cosine > loss
    """,
    "Semantic embedding. The network describes the image, and the class whose"
    " description is most alike is the answer.",
)

SIMSIAM = Diagram(
    "SimSiam, then fine-tuning",
    "simsiam",
    {
        "view 1": Node("photo", 0, 0, "a view", training=True),
        "view 2": Node("object", 0, 1, "another view", training=True),
        "backbone": net(1, 0),
        "again": again(1, 1),
        "projector": layer(2, 0, "projector", "projector"),
        "same": layer(2, 1, "same projector", "projector"),
        "predictor": layer(3, 0, "predictor", "predictor"),
        "similarity": loss(4, 0, "similarity: both ways"),
        "spread": loss(3, 1, "spread: watched"),
        "image": photo(0, 2, "then: image"),
        "tuned": net(1, 2, "that backbone"),
        "head": head(2, 2, "image head", "image_head"),
        "loss": loss(3, 3, "image"),
        "prediction": answer(3, 2),
    },
    """
    view 1 > backbone > projector > predictor > similarity
    view 2 > again > same |> similarity
    same |> spread
    image > tuned > head > prediction
    head > loss
    """,
    "SimSiam, then fine-tuning. First the projection of one view is predicted from the"
    " other, without labels; then backbone and a new head learn as usual.",
    options=({"part": "pretrain", "views": 2}, {"part": "classifier"}),
)

STAGES = Diagram(
    "fine-to-coarse transfer",
    "plain",
    {
        "image": Node("photo", 0, 0, "first: sharp image", training=True),
        "backbone": net(1, 0),
        "head": head(2, 0, "image head", "image_head"),
        "loss": loss(3, 0, "image"),
        "reduced": Node("small", 0, 1, "then: reduced, enlarged"),
        "tuned": net(1, 1, "that backbone"),
        "that head": head(2, 1, "that head", "image_head"),
        "later loss": loss(3, 2, "image"),
        "prediction": answer(3, 1),
    },
    """
    image > backbone > head > loss
    reduced > tuned > that head > prediction
    that head > later loss
    """,
    "Fine-to-coarse transfer. The plain backbone learns from sharp images; then the"
    " same network goes on with the same images made small, and predicts from these.",
)

SUPERRES = Diagram(
    "super-resolution before the classifier",
    "superres",
    {
        "image": Node("photo", 0, 0, "sharp image", training=True),
        "reduced": Node("small", 1, 0, "reduced, enlarged", training=True),
        "restorer": layer(2, 0, "restorer", "restorer"),
        "restoration": loss(3, 0, "restoration: pixels"),
        "low": Node("small", 1, 1, "then: low-resolution image"),
        "rests": Node("rest", 2, 1, "restorer, at rest", "restorer"),
        "restored": photo(3, 1, "restored"),
        "backbone": net(4, 1),
        "head": head(5, 1, "image head", "image_head"),
        "loss": loss(6, 0, "image"),
        "prediction": answer(6, 1),
    },
    """
    image > reduced > restorer > restoration
    image > restoration
    low > rests |> restored > backbone > head > prediction
    head > loss
    """,
    "Super-resolution before the classifier. First a small network learns to undo the"
    " loss of pixels; then the classifier learns from what it restores.",
    options=({"part": "restorer"}, {"part": "classifier"}),
)
