"""Images a second of occlusion maps: fgbook.explain.occlusion, or captum's Occlusion
with the same patch and stride.

    python benchmarks/occlusion.py               # 1 thread on the CPU

(--device cuda on a GPU.) captum slides windows that lie inside the image; ours are
centred at pixels up to the border, so they are more: images a second counts whole maps,
the ratio of time by copy what one occluded image costs. captum gets a forward function
with the squared distance of the logits. Its default occludes one window at a time; with
more (perturbations_per_eval) it works on larger batches: the fastest of 2, 4, 8, 16 (on
a GPU 64, 256, 1024), found by a first try, is the fair rival. Both run the same network
in float32. Equal values are asserted where windows agree. Wanted: 3 times as many
images.
"""

from functools import partial

import captum.attr
import common
import torch

from fgbook.explain import GREY, occlusion
from fgbook.methods import build
from fgbook.recipe import Recipe

# backbone, image side, patch, stride
CASES = (
    ("small", 72, 13, 6),
    ("mobilenet_v2", 96, 17, 8),
    ("mobilenet_v2", 160, 27, 13),
)


def network(backbone: str, device: torch.device) -> torch.nn.Module:
    """A plain model with random weights."""
    torch.manual_seed(0)
    model = build("plain", 50, Recipe(backbone=backbone, weights="none"), {}).to(device)
    torch.nn.init.normal_(model.image_head.weight)
    return common.settle(model, torch.rand(16, 3, 96, 96, device=device))


def theirs(model: torch.nn.Module, images: torch.Tensor, patch: int, stride: int):
    """Captum's map with so many windows at once, as a function."""
    with torch.no_grad():
        logits = model.predict(images)
    method = captum.attr.Occlusion(
        lambda copies, logits: (model.predict(copies) - logits).square().sum(1)
    )

    def run(windows: int) -> torch.Tensor:
        with torch.no_grad():
            return -method.attribute(
                images,
                sliding_window_shapes=(3, patch, patch),
                strides=(3, stride, stride),
                baselines=GREY,
                additional_forward_args=logits,
                perturbations_per_eval=windows,
            )

    return run


def fastest(run, choices: tuple[int, ...], device: torch.device) -> int:
    times, now = [], common.clock(device)
    common.keep_memory()
    for windows in choices:
        run(windows)
        start = now()
        run(windows)
        common.wait(device)
        times.append(now() - start)
    return choices[times.index(min(times))]


def main() -> None:
    parser = common.on_device(__doc__)
    parser.add_argument(
        "--images", type=int, default=4, help="images a call (default: 4)"
    )
    chosen, device = common.options(parser)
    choices = (64, 256, 1024) if device.type == "cuda" else (2, 4, 8, 16)
    report = common.Report(
        "occlusion",
        "Occlusion maps: images a second, ours and captum's",
        chosen.device,
        [
            "network",
            "images/s",
            "captum/s, default",
            "captum/s, best",
            "windows",
            "ratio, default",
            "ratio, best",
            "a copy, best",
        ],
        images=chosen.images,
        precision="float32",
    )
    for backbone, size, patch, stride in CASES:
        model = network(backbone, device)
        images = torch.rand(chosen.images, 3, size, size, device=device)
        # side by side: one value a window
        window = theirs(model, images, patch, patch)(1)[
            :, 0, patch // 2 :: patch, patch // 2 :: patch
        ]
        ours = occlusion(model, images, patch, patch)[
            :, patch // 2 :: patch, patch // 2 :: patch
        ]
        inside = size // patch  # the last window may be cut off
        torch.testing.assert_close(
            ours[:, :inside, :inside], window[:, :inside, :inside], rtol=1e-2, atol=1e-4
        )

        captums = theirs(model, images, patch, stride)
        best = fastest(captums, choices, device)
        functions = [
            partial(occlusion, model, images, patch, stride),
            partial(captums, 1),
            partial(captums, best),
        ]
        times = common.turns(functions, device, chosen.seconds)
        usual, fair = (common.ratio(taken, times[0]) for taken in times[1:])
        # copies of an image that each way looks at
        our_copies = len(range(stride // 2, size, stride)) ** 2
        their_copies = (-(-(size - patch) // stride) + 1) ** 2
        report.row(
            f"{backbone}, {size} px, patch {patch}, stride {stride}",
            *(chosen.images / common.median(taken) for taken in times),
            best,
            usual[0],
            fair[0],
            fair[0] * our_copies / their_copies,
        )
        report.ratio(
            f"{backbone} at {size} px, against captum's default", *usual, wanted=">= 3"
        )
        report.ratio(
            f"{backbone} at {size} px, against captum with {best} windows at once",
            *fair,
            wanted=">= 3",
        )
    report.finish(chosen.save)


if __name__ == "__main__":
    main()
