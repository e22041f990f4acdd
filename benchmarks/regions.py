"""Speed of the region step (attention map -> boxes -> crops) and of a training step
that contains it.

    python benchmarks/regions.py            # 1 thread on the CPU

(--device cuda on a GPU; --threads N.) The first lines set the batched region step of
fgbook/images/regions.py beside the usual way, a loop over images with torchvision's nms
and one interpolate call a crop; "ratio" is the loop's time over ours. Wanted: at least
5 on a GPU, at least 1 on a CPU. "waits" counts how often a call makes the host wait for
the device, ours and the loop's (none is wanted of ours): on a GPU as CUDA reports it;
on a CPU, where nothing waits, the operators whose result the program has to know before
it goes on (the loop's reading of corners escapes this count). The last lines set a
training step of `focus` beside one of `plain`; their "ratio" is focus over plain. Times
are medians, in milliseconds, of alternating repetitions.
"""

import warnings

import common
import torch
import torch.nn.functional as F
import torchvision
from torch.utils._python_dispatch import TorchDispatchMode

from fgbook.images import regions
from fgbook.methods import build
from fgbook.recipe import Recipe

M, THRESHOLD, SIGMA = 6, 0.25, 1.0


def region_steps(batch: int, size: int, stride: int, device: torch.device):
    """Two functions that make the same (B, M, 3, size / 2, size / 2) crops of the same
    random images and maps.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, size, size, generator=generator).to(
        device, memory_format=torch.channels_last
    )
    cells = size // stride
    maps = regions.gaussian_smooth(
        torch.rand(batch, cells, cells, generator=generator), SIGMA
    ).to(device)
    # Cells that look at the middle of a patch: at 448 px all corners are then whole
    # pixels, as the loop's slices need them.
    boxes = regions.centre_boxes(
        cells, cells, size, size * 160 // 448, stride, stride / 2, device
    )
    # both are constants of the method, so neither way pays for them
    iou = regions.iou_matrix(boxes)

    def batched() -> torch.Tensor:
        return regions.crop_zoom(
            images, boxes[regions.select(maps.flatten(1), iou, M, THRESHOLD)], size // 2
        )

    def loop() -> torch.Tensor:
        crops = []
        for image, score in zip(images, maps.flatten(1), strict=True):
            kept = torchvision.ops.nms(boxes, score, THRESHOLD)
            if len(kept) < M:  # the best of the rest
                order = score.argsort(descending=True)
                kept = torch.cat([kept, order[~torch.isin(order, kept)]])
            for x0, y0, x1, y1 in boxes[kept[:M]].round().int().tolist():
                crops.append(
                    F.interpolate(
                        image[None, :, y0:y1, x0:x1],
                        (size // 2, size // 2),
                        mode="bilinear",
                        align_corners=False,
                    )
                )
        return torch.cat(crops).unflatten(0, (batch, M))

    return batched, loop


class Waits(TorchDispatchMode):
    """Counts operators whose result's values (or shape) the host has to know: a device
    would have to be waited for.
    """

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tags = set(function.tags) & {
            torch.Tag.data_dependent_output,
            torch.Tag.dynamic_output_shape,
        }
        # tagged because of masks; places in a tensor of integers are no reason to wait
        if function is torch.ops.aten.index.Tensor:
            tags = any(
                index is not None and index.dtype in (torch.bool, torch.uint8)
                for index in args[1]
            )
        self.count += bool(tags) or function is torch.ops.torchvision.nms.default
        return function(*args, **(kwargs or {}))


def waits(function, device: torch.device) -> int:
    """How often a call of `function` makes the host wait for the device."""
    if device.type != "cuda":
        with Waits() as counted:
            function()
        return counted.count
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            function()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def training_step(
    method: str, backbone: str, batch: int, size: int, device: torch.device
):
    torch.manual_seed(0)
    recipe = Recipe(backbone=backbone, weights="none")
    model = build(method, 20, recipe, {}).to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    images = torch.rand(batch, 3, size, size, device=device).contiguous(
        memory_format=torch.channels_last
    )
    targets = torch.arange(batch, device=device) % 20

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        sum(model.losses(model(images, targets), targets).values()).backward()
        optimiser.step()

    return step


def main() -> None:
    parser = common.on_device(__doc__)
    parser.add_argument(
        "--batch", type=int, default=16, help="images a step (default: 16)"
    )
    chosen, device = common.options(parser)
    report = common.Report(
        "regions",
        "The region step, batched or as a loop over images; a training step with it",
        chosen.device,
        ["step", "batched ms", "loop ms", "ratio", "waits", "loop's waits"],
        precision="fp32",
        batch=chosen.batch,
        m=M,
    )
    with torch.no_grad():
        for size, stride in ((72, 8), (160, 32), (448, 32)):
            batched, loop = region_steps(chosen.batch, size, stride, device)
            # both ways agree but at the rim, where ours still sees the pixel outside
            if size == 448:
                torch.testing.assert_close(
                    batched()[..., 1:-1, 1:-1],
                    loop()[..., 1:-1, 1:-1],
                    atol=1e-3,
                    rtol=0,
                )
            ours, theirs = common.turns((batched, loop), device, chosen.seconds)
            found = common.ratio(theirs, ours)
            name = f"regions, {size} px, stride {stride}"
            ours_waits, loop_waits = waits(batched, device), waits(loop, device)
            report.row(
                name,
                1e3 * common.median(ours),
                1e3 * common.median(theirs),
                found[0],
                ours_waits,
                loop_waits,
            )
            report.ratio(
                f"{name}: the loop's time over ours",
                *found,
                wanted=">= 5" if device.type == "cuda" else ">= 1",
            )
            report.ratio(f"{name}: the host waits", ours_waits, wanted="<= 0")

    for backbone, size in (("small", 72), ("mobilenet_v2", 160)):
        steps = [
            training_step(method, backbone, chosen.batch, size, device)
            for method in ("plain", "focus")
        ]
        plain, focus = common.turns(steps, device, chosen.seconds)
        found = common.ratio(focus, plain)
        name = f"training step, {backbone}, {size} px"
        report.row(
            f"{name}, focus and plain",
            1e3 * common.median(focus),
            1e3 * common.median(plain),
            found[0],
            None,
            None,
        )
        report.ratio(f"{name}: focus over plain", *found)
    report.finish(chosen.save)


if __name__ == "__main__":
    main()
