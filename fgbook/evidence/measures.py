"""What is measured of a trained run: one table, a line for each measure, that says when
it applies and what it puts into the record.

A measure applies where the run is of the right kind, the model offers what is measured
(regions, boxes, restored images), the data set has the ground truth, and, for the
expensive ones, a row of some paper asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from torch import Tensor

from .. import papers
from ..data.dataset import DataSet
from ..methods import Method
from ..papers.spec import same_options
from ..training import loop

if TYPE_CHECKING:
    from ..methods import SuperResolution
    from .plan import Run


VERSION = 1
"""Of the code that measures, here and in evaluation/: one more when the same model
gives other numbers, by more than rounding. Part of a run's key once it is above 1.
"""


@dataclass
class Trained:
    """A run when its training is done."""

    run: Run
    network: Method
    part: Method  # of the network, that was trained: all of it, or its head
    dataset: DataSet
    seen: DataSet  # what the part sees: the data set's images, or maps of them
    device: str | None

    @cached_property
    def wanted(self) -> set[str]:
        """The expensive measures that rows ask for."""
        return wanted(self.run)


@dataclass
class Found:
    """What goes into the record, and beside it."""

    metrics: dict[str, dict | None] = field(
        default_factory=lambda: {"val": None, "test": None}
    )
    localisation: dict | None = None
    # one entry for each test image; all metrics that claims compare
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


class Measure(NamedTuple):
    """One line of the table."""

    applies: Callable[[Trained], bool]
    add: Callable[[Trained, Found], None]


def measure(trained: Trained) -> Found:
    """All that applies to a trained run, in the order of the table."""
    found = Found()
    # a frozen backbone whose features were there already has not been moved
    trained.network.to(next(trained.part.parameters()).device)
    for applies, add in MEASURES:
        if applies(trained):
            add(trained, found)
    return found


# ---- which class


def add_validation(trained: Trained, found: Found) -> None:
    """Accuracy of what selection looks at, at the resolution of the training."""
    resolution = trained.run.recipe.resolution
    found.metrics["val"], _ = _classification(trained, "val", resolution)


def add_test(trained: Trained, found: Found) -> None:
    """Accuracy on the test split, and what is kept of each image."""
    found.metrics["test"], kept = _classification(trained, "test", "high")
    labels = trained.dataset.test.labels.numpy()
    found.arrays |= kept | {"label": labels.astype(np.uint16)}


def add_low_resolution(trained: Trained, found: Found) -> None:
    """The same on reduced images."""
    found.metrics["test_low"], kept = _classification(trained, "test", "low")
    found.arrays |= {f"low_{name}": values for name, values in kept.items()}


def _classification(
    trained: Trained, split: str, resolution: str
) -> tuple[dict, dict[str, np.ndarray]]:
    """Metrics of a split, and of each image: prediction (N,) uint16, confidence (N,)
    float16, nll (N,) float32 in nats.
    """
    from ..evaluation import classification

    about = trained.seen.split(split)
    probabilities = loop.predict(  # (N, C)
        trained.part,
        about,
        trained.run.recipe,
        device=trained.device,
        resolution=resolution,
    )
    confidence, prediction = probabilities.max(1)
    of_truth = probabilities.gather(1, about.labels[:, None])[:, 0]
    kept = {
        "prediction": prediction.numpy().astype(np.uint16),
        "confidence": confidence.numpy().astype(np.float16),
        "nll": (-of_truth.clamp(min=classification.TINY).log()).numpy(),
    }
    classes = trained.dataset.num_classes
    return classification.metrics(probabilities, about.labels, classes), kept


# ---- where, how sharp


def add_regions(trained: Trained, found: Found) -> None:
    """Where the regions lie that a method selects."""
    from ..evaluation import localisation

    test, recipe = trained.dataset.test, trained.run.recipe
    found.localisation = localisation.measure(trained.network, test, recipe)


def add_boxes(trained: Trained, found: Found) -> None:
    """How well the boxes fit that a method draws."""
    from ..evaluation import localisation

    test, recipe = trained.dataset.test, trained.run.recipe
    found.localisation, ious = localisation.boxes(trained.network, test, recipe)
    found.arrays |= _arrays(ious)


def add_sharpness(trained: Trained, found: Found) -> None:
    """How near restored images come to sharp ones."""
    from ..evaluation import restoration

    test, recipe = trained.dataset.test, trained.run.recipe
    network = cast("SuperResolution", trained.network)  # or like it: see _restores
    found.arrays |= _arrays(restoration.psnr(network, test, recipe))


def _arrays(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: values.numpy() for name, values in tensors.items()}


# ---- what rows ask for


def add_heat(trained: Trained, found: Found) -> None:
    """Occlusion maps as numbers."""
    from ..evaluation import heatmaps

    test, recipe = trained.dataset.test, trained.run.recipe
    images = heatmaps.IMAGES[trained.run.profile]
    found.arrays |= heatmaps.measure(trained.network, test, recipe, images)


def add_robustness(trained: Trained, found: Found) -> None:
    """Accuracy on damaged images."""
    from ..evaluation import robustness

    test, recipe = trained.dataset.test, trained.run.recipe
    images = robustness.IMAGES[trained.run.profile]
    found.arrays |= robustness.measure(trained.network, test, recipe, images)


def add_margins(trained: Trained, found: Found) -> None:
    """How far apart the classes lie for the network."""
    from ..evaluation import robustness

    test, recipe = trained.dataset.test, trained.run.recipe
    embeddings = robustness.embeddings(trained.network, test, recipe)
    margins = robustness.margins(embeddings, test.labels)
    found.arrays["margin"] = margins.numpy()
    found.metrics["classes"] = robustness.class_ratio(embeddings, test.labels)


def add_focus(trained: Trained, found: Found) -> None:
    """Grad-CAM as numbers."""
    from ..evaluation import explanation

    test, recipe = trained.dataset.test, trained.run.recipe
    images = explanation.IMAGES[trained.run.profile]
    curved = explanation.CURVED[trained.run.profile]
    found.arrays |= explanation.measure(trained.network, test, recipe, images, curved)


# ---- the table


def _is_result(trained: Trained) -> bool:
    """Tuning never touches the test split."""
    return trained.run.purpose == "result"


def _holds_out(trained: Trained) -> bool:
    """Else the validation images were trained on."""
    return trained.run.recipe.train_on == "train"


def _has_low_side(trained: Trained) -> bool:
    return _is_result(trained) and trained.run.recipe.low_side > 0


def _restores(trained: Trained) -> bool:
    return _is_result(trained) and hasattr(trained.network, "restore")


def _with_boxes(offer: str) -> Callable[[Trained], bool]:
    """The model offers something to compare with the objects' boxes."""

    def applies(trained: Trained) -> bool:
        known = trained.dataset.test.boxes is not None
        return _is_result(trained) and known and hasattr(trained.network, offer)

    return applies


def _wanted(name: str) -> Callable[[Trained], bool]:
    """A row asks for it."""

    def applies(trained: Trained) -> bool:
        return _is_result(trained) and name in trained.wanted

    return applies


def _margins_wanted(trained: Trained) -> bool:
    """A row asks for it, and there are two classes, one with two images: else there is
    nothing to compare.
    """
    each = trained.dataset.test.labels.bincount()
    comparable = bool(each.max() > 1) and bool((each > 0).sum() > 1)
    return comparable and _wanted("margin")(trained)


MEASURES = (
    Measure(_holds_out, add_validation),
    Measure(_is_result, add_test),
    Measure(_has_low_side, add_low_resolution),
    Measure(_with_boxes("regions"), add_regions),
    Measure(_with_boxes("locate"), add_boxes),
    Measure(_restores, add_sharpness),
    Measure(_wanted("heat"), add_heat),
    Measure(_wanted("robust"), add_robustness),
    Measure(_margins_wanted, add_margins),
    Measure(_wanted("focus"), add_focus),
)


def wanted(run: Run) -> set[str]:
    """What is measured besides accuracy: all that any row asks for which is this run,
    in whatever chapter. Whoever comes first runs it for all.
    """
    told = run.recipe.as_dict()
    # as the recipe has them: those of a record are of JSON's types
    overrides = {name: told[name] for name in run.overrides if name in told}
    stage_before = run.after.row if run.after else None
    found: set[str] = set()
    for name in papers.names():
        for row in papers.get(name).rows_at(run.profile):
            # with the changes that this run was asked for with
            recipe = row.recipes[run.profile].as_dict() | overrides
            options = row.options | run.option_changes
            same_method = row.method == run.method and same_options(
                options, run.options
            )
            if same_method and row.after == stage_before and recipe == told:
                found |= set(row.measures)
    return found
