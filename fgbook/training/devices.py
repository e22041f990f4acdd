"""Where training happens: the device, the precision, and the processes that share the
    work (torchrun, accelerate launch, notebook_launcher).

Alone, a process needs nothing of this but ``accelerator``, ``Images`` and
``to_device``.
"""

import ctypes
import os
import sys
from collections.abc import Callable

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from ..errors import InputError
from ..recipe import Recipe


def default_device() -> str:
    """ "cuda" where there is a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def accelerator(recipe: Recipe, device: str | None) -> Accelerator:
    """Device, precision and processes, from environment and recipe. Raises InputError
    for a device or precision that is not to be had."""
    state = processes(device)
    if state.device.type == "cpu":
        keep_memory()
    precision = recipe.precision
    if precision == "auto":
        precision = (
            "fp32"
            if state.device.type == "cpu"
            else (
                "bf16"
                if torch.cuda.is_bf16_supported(including_emulation=False)
                else "fp16"
            )
        )
    if precision == "fp16" and state.device.type == "cpu":
        raise InputError(
            "precision 'fp16' needs a GPU; use 'auto', 'fp32' or 'bf16' on a CPU."
        )
    return Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        cpu=state.device.type == "cpu",
    )


def keep_memory() -> None:
    """Have the C library (glibc) keep what is freed. By itself it gives large tensors
    back to the system at every step, and getting them again, page by page, takes up to
    a third of the step. No result changes."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(library, "mallopt"):
        library.mallopt(-4, 0)  # M_MMAP_MAX: large tensors come from the heap
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: which is not given back


def processes(device: str | None = None) -> PartialState:
    """This process's device, and its place among those that were started together;
    connects them when it is first asked.

    Accelerate keeps the first device and precision for as long as a Python process
    lives; a notebook trains with several, so its state is begun anew. Raises InputError
    for a device that is not to be had.
    """
    try:
        place = torch.device(device or default_device())
    except RuntimeError as error:
        raise InputError(
            f"{device!r} is not a device; use 'cpu', 'cuda' or 'cuda:1'."
        ) from error
    if place.type not in ("cpu", "cuda") or (
        place.type == "cuda" and not torch.cuda.is_available()
    ):
        raise InputError(
            f"device {device!r} is not available here; use {default_device()!r}."
        )
    if place.type == "cuda" and place.index is not None:
        torch.cuda.set_device(place)
    moved = (
        bool(PartialState._shared_state) and PartialState().device.type != place.type
    )
    AcceleratorState._reset_state(reset_partial_state=moved)
    return PartialState(cpu=place.type == "cpu")


def alone() -> bool:
    """Whether this is the only process of its job."""
    return int(os.environ.get("WORLD_SIZE", "1")) == 1


def first() -> bool:
    """Whether this process is the one that writes and prints."""
    return int(os.environ.get("RANK", "0")) == 0


def agree(make: Callable, device: str | None = None):
    """What ``make()`` gives in the first process, in all of them; what it raises there,
    all raise. Alone: just ``make()``."""
    if alone():
        return make()
    said = [None]
    if processes(device).is_main_process:
        try:
            said = [(make(), None)]
        except Exception as error:
            said = [(None, error)]
    value, error = broadcast_object_list(said)[0]
    if error is not None:
        raise error
    return value


def leave() -> None:
    """End the connection of several processes, when all work is done."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


class Images:
    """A split's images by index, as they are stored, on the device: kept there whole if
    they fill up to a quarter of its free memory, else copied."""

    def __init__(self, images: Tensor, device: torch.device):
        fits = (
            device.type == "cuda"
            and images.nbytes < torch.cuda.mem_get_info(device)[0] / 4
        )
        self.images, self.device, self.resident = (
            images.to(device) if fits else images,
            device,
            fits,
        )

    def __len__(self) -> int:
        return len(self.images)

    def __call__(self, index: Tensor, on_device: Tensor) -> Tensor:
        """Index (B,) on the CPU and the same on the device -> (B, ...), such as (B, 3,
        S, S) uint8."""
        return (
            self.images[on_device]
            if self.resident
            else to_device(self.images[index], self.device)
        )


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """To the device without waiting for it: from pinned memory a copy runs by
    itself."""
    return (
        tensor.pin_memory().to(device, non_blocking=True)
        if device.type == "cuda"
        else tensor
    )


def reseed(number: int, device: torch.device) -> None:
    """Seed torch's generators for a step (``torch.manual_seed`` would also format a
    stack trace for a CUDA that is not there)."""
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)


def share_buffers(model: nn.Module) -> None:
    """Give all processes the first one's buffers (running statistics), so that they
    evaluate the same network."""
    if not alone():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


# BatchNorm over all processes


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm whose batch statistics are those of all processes' images together:
    ``torch.nn.SyncBatchNorm`` for CPUs, where that has none."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions; channels are the second."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x, places = input.float(), [0, *range(2, input.ndim)]
        as_channels = (1, -1, *[1] * (input.ndim - 2))
        # slices may differ in size
        count = _Sum.apply(
            torch.tensor(float(x.numel() // x.shape[1]), device=x.device)
        )
        mean = _Sum.apply(x.sum(places)) / count  # (C,)
        centred = x - mean.view(as_channels)
        variance = _Sum.apply(centred.square().sum(places)) / count
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(as_channels) + self.bias.view(as_channels)).to(
            input.dtype
        )


class _Sum(torch.autograd.Function):
    """The sum over all processes. Each of them has a loss that depends on it, so the
    gradient is a sum over all of them too."""

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
    processes. Names and values of its weights stay."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            module.__class__ = SyncBatchNorm
    return model
