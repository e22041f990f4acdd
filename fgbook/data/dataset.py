"""The form in which every data set reaches the rest of the package: uint8 squares,
labels, names, and what ground truth there is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .split import part

if TYPE_CHECKING:
    from torch import Tensor

SPLITS = ("train", "val", "test")
"""Their names, in the order in which their images are kept."""

# fmt: off
PART_NAMES = (
    "back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg",
    "left wing", "nape", "right eye", "right leg", "right wing", "tail", "throat",
)
# fmt: on
"""CUB-200-2011's fifteen parts, in its order; fieldguide uses the same."""


@dataclass
class Split:
    """One split. N images of S x S pixels; all coordinates are pixels of those S x S
    images, x to the right, y down.

    Optional ground truth is None where a data set has none.
    """

    # (N, 3, S, S) uint8 RGB; may be memory-mapped: index it with a tensor of at most a
    # batch
    images: Tensor
    labels: Tensor  # (N,) int64
    files: list[str]  # N names, for messages and records; unique within the data set
    boxes: Tensor | None = None  # (N, 4) float32 xyxy, the object
    parts: Tensor | None = None  # (N, 15, 3) float32: x, y, visible (0 or 1)
    # (N, P, 4) float32 xyxy of the parts that tell siblings apart; NaN rows where there
    # are fewer than P
    part_boxes: Tensor | None = None
    masks: Tensor | None = None  # (N, S, S) uint8, 1 on the object

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Tensor) -> Split:
        """The images at `index` (K,), in that order."""
        return Split(
            images=self.images[index],
            labels=self.labels[index],
            files=[self.files[i] for i in index.tolist()],
            boxes=_rows(self.boxes, index),
            parts=_rows(self.parts, index),
            part_boxes=_rows(self.part_boxes, index),
            masks=_rows(self.masks, index),
        )


def _rows(values: Tensor | None, index: Tensor) -> Tensor | None:
    return None if values is None else values[index]


@dataclass
class DataSet:
    """A data set at one stored size: three splits, its classes, and a fingerprint of
    everything that determines the pixels and labels.
    """

    name: str
    classes: list[str]
    size: int  # S
    fingerprint: str  # hex; goes into run keys and records
    train: Split
    val: Split
    test: Split
    # (C, A) float32 in [0, 1]: how far each attribute is a class's; what people say,
    # not seen in these images
    class_attributes: Tensor | None = None
    attribute_names: list[str] = field(default_factory=list)  # A, in words

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    def split(self, name: str) -> Split:
        """The split of this name: "train", "val", "test", or "train+val", which is both
        joined.
        """
        if name == "train+val":
            return concatenate(self.train, self.val)
        return getattr(self, name)

    def part(self, share: float) -> DataSet:
        """The same data set with a share, in (0, 1], of each class's training and
        validation images (see :func:`fgbook.data.split.part`).
        """
        if share == 1:
            return self
        return replace(self, train=_part(self.train, share), val=_part(self.val, share))


def _part(whole: Split, share: float) -> Split:
    if len(whole) == 0:
        return whole
    import torch

    kept = part(whole.files, whole.labels.numpy(), share)
    return whole.subset(torch.from_numpy(kept))


def concatenate(a: Split, b: Split) -> Split:
    """Both splits, one after the other. Images that follow each other in one stored
    array stay there; others are copied. Ground truth that one of them lacks is None.
    """
    return Split(
        images=_follow(a.images, b.images),
        labels=_follow(a.labels, b.labels),
        files=a.files + b.files,
        boxes=_both(a.boxes, b.boxes),
        parts=_both(a.parts, b.parts),
        part_boxes=_both(a.part_boxes, b.part_boxes),
        masks=_both(a.masks, b.masks),
    )


def _both(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    return None if x is None or y is None else _follow(x, y)


def _follow(x: Tensor, y: Tensor) -> Tensor:
    """Both tensors, one after the other: a view of the array that holds them so, else a
    copy.
    """
    import torch

    same_array = x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()
    plain = x.is_contiguous() and y.is_contiguous() and x.shape[1:] == y.shape[1:]
    if same_array and plain and y.data_ptr() == x.data_ptr() + x.nbytes:
        shape = (len(x) + len(y), *x.shape[1:])
        return x.as_strided(shape, x.stride(), x.storage_offset())
    return torch.cat([x, y])
