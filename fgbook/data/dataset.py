"""The form in which every data set reaches the rest of the package: uint8 squares,
labels, names, and what ground truth there is."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .split import part

PART_NAMES = (
    "back",
    "beak",
    "belly",
    "breast",
    "crown",
    "forehead",
    "left eye",
    "left leg",
    "left wing",
    "nape",
    "right eye",
    "right leg",
    "right wing",
    "tail",
    "throat",
)
"""CUB-200-2011's fifteen parts, in its order; fieldguide uses the same."""


@dataclass
class Split:
    """One split. N images of S x S pixels; all coordinates are pixels of those S x S
    images, x to the right, y down.

    Optional ground truth is None where a data set has none.
    """

    # (N, 3, S, S) uint8, RGB; may be memory-mapped: index it with a tensor of at most a
    # batch
    images: Tensor
    labels: Tensor  # (N,) int64
    files: list[str]  # N names, for messages and records; unique within the data set
    boxes: Tensor | None = None  # (N, 4) float32 xyxy, the object
    # (N, 15, 3) float32: x, y, visible (0 or 1); PART_NAMES
    parts: Tensor | None = None
    # (N, P, 4) float32 xyxy of the parts that tell siblings apart; NaN rows where fewer
    # than P
    part_boxes: Tensor | None = None
    masks: Tensor | None = None  # (N, S, S) uint8, 1 on the object
    attributes: Tensor | None = None  # (N, A) float32

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Tensor) -> "Split":
        """The images at `index` (K,), in that order."""
        pick = lambda value: None if value is None else value[index]
        return Split(
            self.images[index],
            self.labels[index],
            [self.files[i] for i in index.tolist()],
            pick(self.boxes),
            pick(self.parts),
            pick(self.part_boxes),
            pick(self.masks),
            pick(self.attributes),
        )


@dataclass
class DataSet:
    """A data set at one stored size: three splits, its classes, and a fingerprint of
    everything that determines the pixels and labels."""

    name: str
    classes: list[str]
    size: int  # S
    fingerprint: str  # hex; goes into run keys and records
    train: Split
    val: Split
    test: Split
    # of each class, where there is such a thing
    genus: list[int] = field(default_factory=list)
    # (C, A) float32 in [0, 1]: how far each attribute is a class's; what people say,
    # not seen in these images
    class_attributes: Tensor | None = None
    attribute_names: list[str] = field(default_factory=list)  # A, in words

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def split(self, name: str) -> Split:
        """ "train", "val", "test", or "train+val" (both joined)."""
        if name == "train+val":
            return concatenate(self.train, self.val)
        return getattr(self, name)

    def part(self, share: float) -> "DataSet":
        """The same data set with a share, in (0, 1], of each class's training and
        validation images (see :func:`fgbook.data.split.part`)."""
        if share == 1:
            return self
        keep = lambda some: (
            some.subset(torch.from_numpy(part(some.files, some.labels.numpy(), share)))
            if len(some)
            else some
        )
        return replace(self, train=keep(self.train), val=keep(self.val))


def concatenate(a: Split, b: Split) -> Split:
    """Both splits, one after the other. Images that follow each other in one stored
    array stay there; others are copied."""
    both = [
        None if x is None or y is None else _follow(x, y)
        for x, y in zip(_tensors(a), _tensors(b), strict=True)
    ]
    images, labels, *truth = both
    return Split(images, labels, a.files + b.files, *truth)


def _tensors(split: Split) -> tuple:
    return (
        split.images,
        split.labels,
        split.boxes,
        split.parts,
        split.part_boxes,
        split.masks,
        split.attributes,
    )


def _follow(x: Tensor, y: Tensor) -> Tensor:
    together = (
        x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()
        and x.is_contiguous()
        and y.is_contiguous()
    )
    if (
        together
        and y.data_ptr() == x.data_ptr() + x.nbytes
        and x.shape[1:] == y.shape[1:]
    ):
        return x.as_strided(
            (len(x) + len(y), *x.shape[1:]), x.stride(), x.storage_offset()
        )
    return torch.cat([x, y])
