"""No method but what region methods share: tensors that depend on the size of images
alone.
"""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor


class Constants:
    """Tensors made once for a key (a size, a device, the options they come from) and
    kept.

    A compiled forward has them within its graph: a tensor of its tracing must not be
    kept.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Tensor, ...]] = {}

    def get(
        self, key: Hashable, make: Callable[[], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """What make() gave for this key."""
        if torch.compiler.is_compiling():
            return make()
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]
