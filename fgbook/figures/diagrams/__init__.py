"""How each method works, as diagrams: one entry a method, or two where an option makes
it another. A test compares them with the code: the names of the losses, which weights
each loss teaches, which weights the prediction needs.
"""

from ...errors import unknown
from . import more_looks as more
from . import one_look as one
from .draw import figure
from .language import Diagram, Node, answer, loss, maps, photo, step

__all__ = ["DRAWINGS", "drawing", "figure"]

# ---- how to read them

LEGEND = Diagram(
    "the signs of the diagrams",
    "",
    {
        "photo": photo(0, 0, "an image"),
        "crops": Node("crops", 0, 1, "what is cut out of it", n=2),
        "net": Node("net", 1, 0, "backbone"),
        "boxes": Node("boxes", 1, 1, "boxes", n=3),
        "maps": maps(2, 0, "its maps"),
        "heat": Node("heat", 2, 1, "where it looks"),
        "layer": Node("layer", 3, 0, "a layer that learns"),
        "frozen": Node("frozen", 3, 1, "does not learn"),
        "head": Node("head", 4, 0, "a head"),
        "step": step(4, 1, "a step without weights"),
        "answer": answer(5, 0, "answer: at test time"),
        "loss": loss(5, 1, "a: named as in the code"),
    },
    """
    photo > net > maps > layer > head > answer
    head > loss
    maps |> heat > boxes > crops
    photo > crops
    """,
    "Arrows say what is made of what. A head is linear and reads the mean of maps over"
    " places, and a loss is the cross-entropy, where nothing else is said. Dashed: in"
    " training alone. A double bar across an arrow: no gradient comes back along it."
    " Sizes and counts are the defaults of the code, mostly the papers'.",
)

DRAWINGS: dict[str, Diagram] = {
    "legend": LEGEND,
    "plain": one.PLAIN,
    "probe": one.PROBE,
    "neighbours": one.NEIGHBOURS,
    "transfer": one.TRANSFER,
    "simple": one.SIMPLE,
    "levels": one.LEVELS,
    "bilinear": one.BILINEAR,
    "compact": one.COMPACT,
    "boosted": one.BOOSTED,
    "mc-loss": one.MCLOSS,
    "api-net": one.APINET,
    "dfl-cnn": one.DFLCNN,
    "attention": one.ATTENTION,
    "cross-x": one.CROSSX,
    "cal": more.CAL,
    "pmg": more.PMG,
    "dcl": more.DCL,
    "flrdf": more.FLRDF,
    "ma-cnn": more.MACNN,
    "partnet": more.PARTNET,
    "focus": more.FOCUS,
    "nts-net": more.NTSNET,
    "ra-cnn": more.RACNN,
    "mmal": more.MMAL,
    "wsdl": more.WSDL,
    "transfg": one.TRANSFG,
    "semantic": one.SEMANTIC,
    "simsiam": one.SIMSIAM,
    "stages": one.STAGES,
    "superres": one.SUPERRES,
}
"""Name of the row that it is of, or of the method -> diagram."""


def drawing(name: str) -> Diagram:
    """The diagram of that name; raises InputError for unknown ones."""
    if name not in DRAWINGS:
        raise unknown("diagram", name, DRAWINGS)
    return DRAWINGS[name]
