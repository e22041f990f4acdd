"""Where training happens: the device, the precision, and the processes that share the
work (torchrun, accelerate launch, notebook_launcher).

Alone, a process needs nothing of this but ``accelerator``, ``Images`` and
``to_device``.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..backbones import BatchNorm, in_bf16, modules_of_stages
from ..errors import InputError
from ..recipe import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.state import PartialState

Made = TypeVar("Made")


def default_device() -> str:
    """Where there is a GPU "cuda", else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def accelerator(recipe: Recipe, device: str | None) -> "Accelerator":
    """Device, precision and processes, from environment and recipe. Raises InputError
    for a device or precision that is not to be had.
    """
    from accelerate import Accelerator

    on_cpu = processes(device).device.type == "cpu"
    if on_cpu:
        keep_memory()
    precision = recipe.precision
    if precision == "auto":
        precision = _best_precision(on_cpu)
    if precision == "fp16" and on_cpu:
        raise InputError(
            "precision 'fp16' needs a GPU; use 'auto', 'fp32' or 'bf16' on a CPU."
        )
    mixed = "no" if precision == "fp32" else precision
    return Accelerator(mixed_precision=mixed, cpu=on_cpu)


def _best_precision(on_cpu: bool) -> str:
    if on_cpu:
        return "fp32"
    # emulated bf16 is slower than fp16
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "fp16"


def frozen_precision(recipe: Recipe, device: torch.device) -> str:
    """What the recipe's frozen stages compute in, where precision is "auto": "bf16" on
    a CPU that has instructions for it, which makes a step about a sixth shorter, else
    as all the rest. What learns stays in float32 on a CPU: its backward pass is no
    faster in bf16.
    """
    wanted = recipe.precision == "auto" and recipe.frozen_stages > 0
    # a graph is compiled as it stands
    if not wanted or recipe.compile or device.type != "cpu":
        return "same"
    # not to be had in older versions of torch
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if capabilities.get("avx512_bf16") else "same"


def in_precision(
    model: nn.Module, recipe: Recipe, device: torch.device
) -> Callable[[], AbstractContextManager]:
    """What opens the context in which the model's frozen stages compute in their
    :func:`frozen_precision`.
    """
    if frozen_precision(recipe, device) == "same":
        return nullcontext
    return partial(in_bf16, modules_of_stages(model, recipe.frozen_stages))


def keep_memory() -> None:
    """Have the C library (glibc) keep what is freed. By itself it gives large tensors
    back to the system at every step, and getting them again, page by page, takes up to
    a third of the step. No result changes.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(-4, 0)  # M_MMAP_MAX: large tensors come from the heap
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: which is not given back


# ---- processes that work together


def processes(device: str | None = None) -> "PartialState":
    """The device of this process, and its place among those that were started together;
    connects them when it is first asked.

    Accelerate keeps the first device and precision for as long as a Python process
    lives; a notebook trains with several, so its state is begun anew. Raises InputError
    for a device that is not to be had.
    """
    from accelerate.state import AcceleratorState, PartialState

    place = _place(device or default_device())
    if place.type == "cuda" and place.index is not None:
        torch.cuda.set_device(place)
    known = bool(PartialState._shared_state)
    moved = known and PartialState().device.type != place.type
    AcceleratorState._reset_state(reset_partial_state=moved)
    return PartialState(cpu=place.type == "cpu")


def _place(device: str) -> torch.device:
    """The device of that name; raises InputError where there is none."""
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise InputError(
            f"{device!r} is not a device; use 'cpu', 'cuda' or 'cuda:1'."
        ) from error
    there = place.type == "cpu" or (place.type == "cuda" and torch.cuda.is_available())
    if not there:
        raise InputError(
            f"device {device!r} is not available here; use {default_device()!r}."
        )
    return place


def alone() -> bool:
    """Whether this is the only process of its job."""
    return int(os.environ.get("WORLD_SIZE", "1")) == 1


def first() -> bool:
    """Whether this process is the one that writes and prints."""
    return int(os.environ.get("RANK", "0")) == 0


def agree(make: Callable[[], Made], device: str | None = None) -> Made:
    """What ``make()`` gives in the first process, in all of them; what it raises there,
    all raise. Alone: just ``make()``.
    """
    if alone():
        return make()
    from accelerate.utils import broadcast_object_list

    said: list[Any] = [None]
    if processes(device).is_main_process:
        try:
            said = [(make(), None)]
        except Exception as error:  # whatever it is, the others wait for a message
            said = [(None, error)]
    value, failure = broadcast_object_list(said)[0]
    if failure is not None:
        raise failure
    return value


def leave() -> None:
    """End the connection of several processes, when all work is done."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


# ---- images on the device


class Images:
    """A split's images by index, as they are stored, on the device: kept there whole if
    they fill up to a quarter of its free memory, else copied.
    """

    def __init__(self, images: Tensor, device: torch.device):
        self.device = device
        self.resident = False
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            self.resident = images.nbytes < free / 4
        self.images = images.to(device) if self.resident else images

    def __len__(self) -> int:
        return len(self.images)

    def __call__(self, index: Tensor, on_device: Tensor) -> Tensor:
        """Index (B,) on the CPU and the same on the device -> (B, ...), such as (B, 3,
        S, S) uint8.
        """
        if self.resident:
            return self.images[on_device]
        return to_device(self.images[index], self.device)


def move(model: nn.Module, device: torch.device) -> None:
    """Put a model on the device, its convolutions in the layout that is the faster one
    for them, on CPUs too.
    """
    model.to(device).to(memory_format=torch.channels_last)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """To the device without waiting for it: from pinned memory a copy runs by
    itself.
    """
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor


def reseed(number: int, device: torch.device) -> None:
    """Seed torch's generators for a step (``torch.manual_seed`` would also format a
    stack trace for a CUDA that is not there).
    """
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)


def parallel(
    model: nn.Module, accelerator: "Accelerator", some_rest: bool
) -> nn.Module:
    """What is called in place of the model where several processes share the work;
    `some_rest`: not every pass uses all parameters. Those that no process used keep no
    gradient, so that the optimiser leaves them alone, as it does in one process.
    """
    if some_rest:
        from accelerate import DistributedDataParallelKwargs

        accelerator.ddp_handler = DistributedDataParallelKwargs(
            find_unused_parameters=True
        )
    return accelerator.prepare_model(model)


def share_buffers(model: nn.Module) -> None:
    """Give all processes the first one's buffers (running statistics), so that they
    evaluate the same network.
    """
    if not alone():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


# ---- BatchNorm over all processes


class SyncBatchNorm(BatchNorm):
    """BatchNorm whose batch statistics are those of all processes' images together:
    ``torch.nn.SyncBatchNorm`` for CPUs, where that has none.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions; channels are the second."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalised images (B, C, ...), in the type of `input`."""
        if not self.training:
            return super().forward(input)
        x = input.float()
        places = [0, *range(2, input.ndim)]  # all dimensions but the channels'
        as_channels = (1, -1, *[1] * (input.ndim - 2))

        # of all processes together; their slices may differ in size
        values = torch.tensor(float(x.numel() // x.shape[1]), device=x.device)
        count = _Sum.apply(values)
        mean = _Sum.apply(x.sum(places)) / count  # (C,)
        centred = x - mean.view(as_channels)
        variance = _Sum.apply(centred.square().sum(places)) / count  # (C,)
        if self.track_running_stats:
            self._note(mean, variance * count / (count - 1))

        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias.view(as_channels)
        return (centred * scale.view(as_channels) + shift).to(input.dtype)

    @torch.no_grad()
    def _note(self, mean: Tensor, variance: Tensor) -> None:
        """Take a batch into the running statistics; without a momentum these are the
        mean over all batches.
        """
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:
            momentum = 1 / self.num_batches_tracked.item()
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class _Sum(torch.autograd.Function):
    """The sum over all processes. Each of them has a loss that depends on it, so the
    gradient is a sum over all of them too.
    """

    @staticmethod
    def forward(ctx, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


def synchronise_batchnorm(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` with BatchNorm layers that share their batch statistics over the
    processes. Names and values of its weights stay.
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            # its weights, buffers and place in the model stay
            module.__class__ = SyncBatchNorm  # type: ignore[assignment]
    return model
