"""Paper B (Feng et al. 2019): the regions of a trained network under other settings."""

from torch import Tensor

from ..data.dataset import DataSet
from ..errors import count
from ..evaluation import localisation
from ..figures.photos import class_names, seen, spread
from ..figures.regions import REGION_STYLES, variant
from ..methods.focus import Focus
from ..recipe import Recipe
from .piece import Choice, Frame, Piece
from .tiles import Marks, Tile, pictures, tiles
from .words import note, share

# Beyond the paper's four: colour, lengths of dashes and gaps. The number in the box
# tells as well.
COLOURS = [colour for colour, _ in REGION_STYLES] + ["#FF8A00", "#C050E0"]
DASHES = ("", "6 3", "8 3 2 3", "2 2", "12 3", "4 4")
THRESHOLDS = (0.1, 0.25, 0.5, 0.9)
SIDES = (0.2, 160 / 448, 0.5)  # the paper's in the middle


def regions(model: Focus, data: DataSet, recipe: Recipe, many: int = 8) -> Piece:
    """How many regions, how far they may overlap, and how large they are, on so
    many test images spread evenly.
    """
    index = spread(data.test, many)
    images = seen(data.test, index, recipe, model)
    drawn = pictures(images)
    truth = localisation.ground_truth(data.test, index, recipe.image_size)

    def frame(box: float, threshold: float, m: int) -> Frame:
        other = variant(model, m=m, threshold=threshold, box=box)
        boxes = other.regions(images).cpu()  # (B, m, 4)
        found = []
        for each, of_image, place in zip(drawn, boxes, index, strict=True):
            marks = []
            for rank in reversed(range(m)):  # the best one on top
                one = of_image[rank : rank + 1]
                marks.append(Marks(one, COLOURS[rank], DASHES[rank], str(rank + 1)))
            about = f"{class_names(data, place[None])} with {count(m, 'region')}"
            found.append(Tile(each, about, marks))
        return Frame(tiles(found, 4), _says(boxes, truth))

    return Piece(
        "Regions under other settings",
        "The regions of one trained network, asked with other settings; 1 is the best."
        " More overlap lets all regions crowd where the map is highest. Images spread"
        f" evenly over the test split, not chosen by eye.{note(data)}",
        (
            Choice("box", "side of a box", SIDES, SIDES[1], share),
            Choice("threshold", "IoU allowed", THRESHOLDS, 0.25, "{:g}".format),
            Choice("m", "m, regions", (1, 2, 3, 4, 6), 4),
        ),
        frame,
    )


def _says(boxes: Tensor, truth: dict[str, Tensor | None]) -> str:
    """Where boxes (B, m, 4) lie, as far as it is known."""
    images, m = boxes.shape[:2]
    found = localisation.score(boxes, **truth)
    said = []
    if "hit_object" in found:
        hit = int(found["hit_object"].nansum())
        known = int(found["hit_object"].isfinite().sum())
        said.append(f"the middle of {hit} of {known} lies on the object")
    if "union_iou" in found:
        together = float(found["union_iou"][:, -1].nanmean())
        said.append(f"together they meet its box with an IoU of {together:.2f}")
    words = f"{count(m, 'region')} in each of {count(images, 'image')}"
    return f"{words}: {'; '.join(said)}." if said else f"{words}."
