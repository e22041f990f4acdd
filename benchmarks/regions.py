"""Speed of the region step (attention map -> boxes -> crops) and of a training step that contains it.

    python benchmarks/regions.py            # 1 thread on the CPU; --device cuda on a GPU; --threads N

Prints two tables. The first sets the batched region step of fgbook/regions.py beside the usual way, a loop over images with torchvision's
nms and one interpolate call a crop; "ratio" is the loop's time over ours. The second sets a training step of `focus` beside one of `plain`;
"ratio" is focus over plain. Times are medians, in milliseconds, of alternating repetitions.
"""

import argparse
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fgbook import regions  # noqa: E402
from fgbook.models import build  # noqa: E402
from fgbook.recipe import Recipe  # noqa: E402

M, THRESHOLD, SIGMA = 6, 0.25, 1.0


def region_steps(batch: int, size: int, stride: int, device: torch.device):
    """Two functions that make the same (B, M, 3, size / 2, size / 2) crops of the same random images and maps."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, size, size, generator=generator).to(device)
    cells = size // stride
    maps = regions.gaussian_smooth(torch.rand(batch, cells, cells, generator=generator), SIGMA).to(device)
    boxes = regions.centre_boxes(cells, cells, size, size * 160 // 448, stride, 0.5, device)
    iou = regions.iou_matrix(boxes)  # both are constants of the method, so neither way pays for them

    def batched() -> torch.Tensor:
        return regions.crop_zoom(images, boxes[regions.select(maps.flatten(1), iou, M, THRESHOLD)], size // 2)

    def loop() -> torch.Tensor:
        crops = []
        for image, score in zip(images, maps.flatten(1), strict=True):
            kept = torchvision.ops.nms(boxes, score, THRESHOLD)
            if len(kept) < M:  # the best of the rest
                order = score.argsort(descending=True)
                kept = torch.cat([kept, order[~torch.isin(order, kept)]])
            for x0, y0, x1, y1 in boxes[kept[:M]].round().int().tolist():
                crops.append(F.interpolate(image[None, :, y0:y1, x0:x1], (size // 2, size // 2), mode="bilinear", align_corners=False))
        return torch.cat(crops).unflatten(0, (batch, M))

    return batched, loop


def training_step(method: str, backbone: str, batch: int, size: int, device: torch.device):
    torch.manual_seed(0)
    recipe = Recipe(backbone=backbone, weights="none")
    model = build(method, 20, recipe, {}).to(device)
    optimiser = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    images, targets = torch.rand(batch, 3, size, size, device=device), torch.arange(batch, device=device) % 20

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        sum(model.losses(model(images, targets), targets).values()).backward()
        optimiser.step()

    return step


def medians(functions, device: torch.device, seconds: float) -> list[float]:
    """Milliseconds of each function: medians of repetitions taken in turn, so that a busy machine disturbs all alike."""
    times = [[] for _ in functions]
    for function in functions:
        function()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 3:
        for function, taken in zip(functions, times, strict=True):
            wait(device)
            start = time.perf_counter()
            function()
            wait(device)
            taken.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(taken) for taken in times]


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    model = names[0] if names else platform.processor() or platform.machine()
    return f"{model}, {torch.get_num_threads()} thread(s)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--batch", type=int, default=16, help="images a step (default: 16)")
    parser.add_argument("--seconds", type=float, default=4.0, help="spent on each line at least (default: 4)")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    device = torch.device(chosen.device)
    print(f"{hardware(device)} | torch {torch.__version__}, torchvision {torchvision.__version__} | float32, batch {chosen.batch}, m {M}\n")

    print(f"{'region step':<28}{'batched ms':>12}{'loop ms':>12}{'ratio':>8}")
    with torch.no_grad():
        for size, stride in ((72, 8), (160, 32), (448, 32)):
            batched, loop = region_steps(chosen.batch, size, stride, device)
            if size == 448:  # box corners are whole pixels: both ways agree but at the rim, where ours still sees the pixel outside
                torch.testing.assert_close(batched()[..., 1:-1, 1:-1], loop()[..., 1:-1, 1:-1], atol=1e-3, rtol=0)
            ours, theirs = medians((batched, loop), device, chosen.seconds)
            print(f"{f'{size} px, stride {stride}':<28}{ours:>12.2f}{theirs:>12.2f}{theirs / ours:>8.1f}")

    print(f"\n{'training step':<28}{'plain ms':>12}{'focus ms':>12}{'ratio':>8}")
    for backbone, size in (("small", 72), ("mobilenet_v2", 160)):
        steps = [training_step(method, backbone, chosen.batch, size, device) for method in ("plain", "focus")]
        plain, focus = medians(steps, device, chosen.seconds)
        print(f"{f'{backbone}, {size} px':<28}{plain:>12.1f}{focus:>12.1f}{focus / plain:>8.2f}")


if __name__ == "__main__":
    main()
