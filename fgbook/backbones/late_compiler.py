"""Importing timm and torchvision without torch's compiler, which takes the longest.

    timm = late_compiler.imported("timm")

While they are imported they ask the compiler two small things: to leave a function
alone, and whether it knows a kind of device. For that all of it is imported. Here it is
asked when such a function is called; naming a picture calls none.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

COMPILER = "torch._dynamo"
UTILITIES = f"{COMPILER}.utils"


def imported(name: str) -> ModuleType:
    """The module of that name. Raises ImportError where it is not installed."""
    if COMPILER in sys.modules:  # nothing to gain
        return importlib.import_module(name)
    try:
        with _stand_ins():
            return importlib.import_module(name)
    except (ImportError, AttributeError):
        # another version, which asks the compiler more than that: it gets all of it
        return importlib.import_module(name)


@contextmanager
def _stand_ins() -> Iterator[None]:
    """In the compiler's place, until the end of the block, what asks it later."""
    utilities = ModuleType(UTILITIES)
    vars(utilities)["is_compile_supported"] = _is_compile_supported
    disable = torch.compiler.disable
    try:
        sys.modules[COMPILER] = ModuleType(COMPILER)
        sys.modules[UTILITIES] = utilities
        torch.compiler.disable = _disable
        yield
    finally:
        torch.compiler.disable = disable
        del sys.modules[COMPILER], sys.modules[UTILITIES]


def _disable(
    fn: Callable | None = None, recursive: bool = True, *, reason: str | None = None
) -> Callable:
    """As torch.compiler.disable, which it asks when the function is called."""
    if fn is None:
        return functools.partial(_disable, recursive=recursive, reason=reason)

    @functools.wraps(fn)
    def called(*args: Any, **options: Any) -> Any:
        left_alone = torch.compiler.disable(fn, recursive, reason=reason)
        return left_alone(*args, **options)

    return called


def _is_compile_supported(device: str) -> bool:
    from torch._dynamo.utils import is_compile_supported

    return is_compile_supported(device)
