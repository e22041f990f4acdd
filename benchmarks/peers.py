"""Training steps of NTS-Net, PMG and DCL as their public repositories write them,
against ours: same backbone, weights, pictures and optimiser.

    python benchmarks/peers.py                  # MobileNetV2, 224 px, 1 thread

(--device cuda on a GPU.) The usual ways are in benchmarks/usual.py: boxes chosen by
numpy on the host and cut by one interpolate call each (NTS-Net), patches swapped one
after another for the whole batch, and all heads in every round (PMG), pictures
destroyed one by one by PIL (DCL); images in PyTorch's own order of memory, and every
loss read after its step. "ratio" is the usual time over ours. "alike" is the usual step
with our order of memory (channels_last): what is left is how the method is written.
"waits": how often the host has to wait for a result, as in regions.py (on a CPU a copy
to numpy escapes this count).

The first lines are NTS-Net's region step, from scores to crops; "crops alone" leaves
out choosing, padding and copying, and so shows the floor on a CPU: sampling is nearly
all of ours, and interpolate's own kernel is no faster than grid_sample's. Wanted: the
region step at least 3 times as fast, no training step slower.
"""

import copy
from collections.abc import Sequence
from contextlib import nullcontext

import common
import numpy as np
import regions as region_step
import throughput
import torch
import torch.nn.functional as F
import usual
from PIL import Image
from torch import Tensor

from fgbook.images import regions
from fgbook.methods import build
from fgbook.methods.ntsnet import NTSNet
from fgbook.recipe import Recipe

CLASSES = 50
OPTIONS: dict[str, dict] = {
    "ntsnet": {"dropout": 0.0},
    "pmg": {"width": 128},
    "dcl": {"location": "index"},  # the public code's
}
USUAL = {
    "ntsnet": usual.UsualNTSNet,
    "pmg": usual.UsualPMG,
    "dcl": usual.UsualDCL,
}


def model_of(method: str, backbone: str, size: int) -> torch.nn.Module:
    torch.manual_seed(0)
    recipe = Recipe(backbone=backbone, weights="none", image_size=size)
    return build(method, CLASSES, recipe, OPTIONS[method])


def region_steps(model: NTSNet, images: Tensor):
    """Two functions from the navigator's scores to crops, on the same images: ours and
    the usual one, which choose the same boxes; and two that only cut these out.
    """
    height, width = model.backbone(images[:1]).shape[2:]  # cells
    boxes, overlaps = model._geometry(images, height, width)
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(len(images), len(boxes), generator=generator).to(images.device)
    side = round(model.zoom * images.shape[-1])
    plain = images.contiguous(memory_format=torch.contiguous_format)
    whole = usual.anchors(boxes)

    def ours() -> tuple[Tensor, Tensor]:
        chosen = regions.select(scores, overlaps, model.m, model.threshold)
        return chosen, regions.crop_zoom(images, boxes[chosen], side)

    def theirs() -> tuple[Tensor, Tensor]:
        return usual.cut_regions(plain, scores, whole, model.m, side, model.threshold)

    found = ours()[0]
    torch.testing.assert_close(found, theirs()[0])
    corners = whole[found.cpu().numpy()].tolist()

    def our_crops() -> Tensor:
        return regions.crop_zoom(images, boxes[found], side)

    def their_crops() -> list[Tensor]:
        crops = []
        for image, of_image in zip(plain, corners, strict=True):
            for y0, x0, y1, x1 in of_image:
                part = image[None, :, y0:y1, x0:x1]
                crops.append(
                    F.interpolate(
                        part, (side, side), mode="bilinear", align_corners=True
                    )
                )
        return crops

    return (ours, theirs), (our_crops, their_crops)


def main() -> None:
    parser = common.on_device(__doc__, seconds=8)
    parser.add_argument("--size", type=int, default=224, help="pixels (default: 224)")
    parser.add_argument("--batch", type=int, default=8, help="images (default: 8)")
    parser.add_argument(
        "--backbone", default="mobilenet_v2", help="default: mobilenet_v2"
    )
    chosen, device = common.options(parser)
    size, batch = chosen.size, chosen.batch
    report = common.Report(
        "peers",
        "NTS-Net, PMG and DCL: training steps as their repositories write them, and"
        " ours",
        chosen.device,
        ["step", "ours ms", "usual ms", "ratio", "alike ms", "waits", "usual waits"],
        size=size,
        batch=batch,
        backbone=chosen.backbone,
        precision="fp32",
    )

    def line(name: str, functions: Sequence, wanted: float | None = None) -> None:
        """A row and a ratio: of ours, the usual one and, where there is one, that in
        our order of memory.
        """
        times = common.turns(functions, device, chosen.seconds)
        found = common.ratio(times[1], times[0])
        alike = 1e3 * common.median(times[2]) if len(times) > 2 else None
        report.row(
            name,
            1e3 * common.median(times[0]),
            1e3 * common.median(times[1]),
            found[0],
            alike,
            region_step.waits(functions[0], device),
            region_step.waits(functions[1], device),
        )
        what = f"{name}: the usual way's time over ours"
        report.ratio(what, *found, wanted=f">= {wanted:g}" if wanted else "")
        if alike is not None:
            what = f"{name}: the usual way's, in our order of memory, over ours"
            report.ratio(what, *common.ratio(times[2], times[0]))

    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(
        0, 256, (batch, size, size, 3), dtype=torch.uint8, generator=generator
    )
    pictures = [Image.fromarray(one) for one in np.asarray(pixels)]
    images = pixels.permute(0, 3, 1, 2).to(device).float().div(255)
    ordered = images.contiguous(memory_format=torch.channels_last)
    plain = images.contiguous()
    targets = torch.arange(batch, device=device) % CLASSES

    with torch.no_grad():
        network = model_of("ntsnet", chosen.backbone, size).to(device)
        for side in (size, 2 * size):
            larger = torch.rand(2 * batch, 3, side, side, generator=generator)
            larger = larger.to(device).contiguous(memory_format=torch.channels_last)
            whole, crops = region_steps(network, larger)
            line(f"regions of ntsnet, {side} px", whole, 3)
            line(f"crops alone, {side} px", crops)

    for method, way in USUAL.items():
        model = model_of(method, chosen.backbone, size).to(device)
        functions = [
            throughput.training_step(
                copy.deepcopy(model).to(memory_format=torch.channels_last),
                ordered,
                targets,
                nullcontext,
            )
        ]
        for layout, seen in (
            (torch.contiguous_format, plain),
            (torch.channels_last, ordered),
        ):
            peer = way(copy.deepcopy(model).to(memory_format=layout))
            given = pictures if method == "dcl" else seen
            functions.append(lambda peer=peer, given=given: peer.step(given, targets))
        line(f"{method}, a training step", functions, 1)
    report.finish(chosen.save)


if __name__ == "__main__":
    main()
