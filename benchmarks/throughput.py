"""Images a second that a method learns from and classifies, and whether it costs more
time than its arithmetic explains.

    python benchmarks/throughput.py             # MobileNetV2, 160 px, 1 thread

On a GPU (--device cuda) ResNet-50, 448 px, bf16. A training step is forward, losses,
backward and optimiser; prediction is what counts at test time. "time" and "FLOPs" are
those of the plain backbone times so much; "overhead" is their ratio: 1 when everything
that is not arithmetic (maps, boxes, crops, heads) costs nothing. Wanted: at most 1.1
for the training step of every method, and at most 1.15 for a prediction of focus.
"input" is the share of a training step that goes into making its batch
(fgbook.images.augment from uint8 on the device); on a GPU wanted below 5 %. FLOPs are
counted by torch.utils.flop_counter, of convolutions and matrix products, in the real
training step and prediction.
"""

import common
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from fgbook.errors import InputError
from fgbook.images.augment import augment
from fgbook.methods import build
from fgbook.recipe import Recipe

CLASSES = 50
TRAINING_LIMIT = 1.1
PREDICTION_LIMITS = {"focus": 1.15}


def training_step(
    model: nn.Module, images: torch.Tensor, targets: torch.Tensor, autocast
):
    """One step of SGD on a batch, or all of a method's rounds, as a function; weights
    that do not learn are left alone.
    """
    optimiser = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], 1e-4, momentum=0.9
    )

    # what forward is told: of methods with several optimiser steps a batch, which one
    rounds = [(name,) for name in getattr(model, "rounds", ())] or [()]

    def step() -> None:
        model.train()
        for told in rounds:
            optimiser.zero_grad(set_to_none=True)
            with autocast():
                losses = model.losses(model(images, targets, *told), targets)
            sum(losses.values()).backward()
            optimiser.step()

    return step


def prediction(model: nn.Module, images: torch.Tensor, autocast):
    @torch.no_grad()
    def predict() -> None:
        model.eval()
        with autocast():
            model.predict(images)

    return predict


def flops(function) -> int:
    """Floating-point operations of convolutions and matrix products (a multiplication
    and an addition are two).
    """
    with FlopCounterMode(
        display=False,
        custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward},
    ) as counter:
        function()
    return counter.get_total_flops()


def _convolution_backward(
    grad,
    x,
    weight,
    bias,
    stride,
    padding,
    dilation,
    transposed,
    output_padding,
    groups,
    mask,
    out_shape=None,
    **_,
) -> int:
    """The gradients of input and weight cost a forward pass each. PyTorch's own formula
    counts grouped convolutions `groups` times.
    """
    return (mask[0] + mask[1]) * conv_flop_count(x, weight, grad, transposed)


def main() -> None:
    parser = common.on_device(__doc__, seconds=8)
    parser.add_argument("--size", type=int, help="pixels (default: 160; 448 on a GPU)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), help="default: fp32; bf16 on a GPU"
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the models' forward, as recipe.compile does",
    )
    common.compares_methods(parser)
    chosen, device = common.options(parser)
    gpu, backbone = device.type == "cuda", chosen.backbone
    size = chosen.size or (448 if gpu else 160)
    precision = chosen.precision or ("bf16" if gpu else "fp32")

    def autocast():
        return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")

    recipe = Recipe(
        image_size=size,
        store_size=round(size * 8 / 7),
        backbone=backbone,
        weights="none",
        compile=chosen.compile,
    )
    torch.manual_seed(0)
    kept = torch.randint(
        0,
        256,
        (chosen.batch, 3, recipe.store_size, recipe.store_size),
        dtype=torch.uint8,
    ).to(device)
    index = torch.arange(chosen.batch, device=device)

    def batch() -> torch.Tensor:
        return augment(kept, index, recipe, 0, 0).contiguous(
            memory_format=torch.channels_last
        )

    images, targets = batch(), index % CLASSES
    steps, predictions, arithmetic, refused = {}, {}, {}, {}
    for method in chosen.methods:
        try:
            model = build(method, CLASSES, recipe, {}, torch.rand(CLASSES, 312)).to(
                device, memory_format=torch.channels_last
            )
            step = training_step(model, images, targets, autocast)
            predict = prediction(model, images, autocast)
            # before compiling: the counter sees operators, not kernels
            arithmetic[method] = flops(step), flops(predict)
        except InputError as error:
            refused[method] = str(error)
            continue
        if chosen.compile:
            model.compile()
        steps[method], predictions[method] = step, predict

    suffix = f"-{precision}" * (precision != "fp32") + "-compiled" * chosen.compile
    report = common.Report(
        f"throughput-{backbone}-{size}px{suffix}",
        f"Images a second by method: {backbone}, {size} px",
        chosen.device,
        [
            "method",
            "train/s",
            "time",
            "FLOPs",
            "overhead",
            "input",
            "predict/s",
            "time ",
            "FLOPs ",
            "overhead ",
        ],
        size=size,
        batch=chosen.batch,
        backbone=backbone,
        precision=precision,
        compiled=chosen.compile,
    )
    names = list(steps)
    *train_times, input_times = common.turns(
        [*steps.values(), batch], device, chosen.seconds
    )
    predict_times = common.turns(list(predictions.values()), device, chosen.seconds)
    train = dict(zip(names, train_times, strict=True))
    predicted = dict(zip(names, predict_times, strict=True))
    for method in names:
        cells = []
        for kind, times in enumerate((train, predicted)):
            more = arithmetic[method][kind] / arithmetic["plain"][kind]
            found = common.ratio(times[method], times["plain"])
            cells += [
                chosen.batch / common.median(times[method]),
                found[0],
                more,
                found[0] / more,
            ]
            if method != "plain":
                limit = PREDICTION_LIMITS.get(method) if kind else TRAINING_LIMIT
                report.ratio(
                    f"{method}, {('training', 'prediction')[kind]}: time over plain,"
                    " divided by FLOPs over plain",
                    *(value / more for value in found),
                    wanted=f"<= {limit}" if limit else "",
                )
            if not kind:
                share = common.median(input_times) / (
                    common.median(input_times) + common.median(times[method])
                )
                cells.append(share)
        report.row(method, *cells)
        if method == "plain":
            report.ratio(
                "share of the plain training step spent on its input",
                share,
                wanted="<= 0.05" if gpu else "",
            )
    for method, sentence in refused.items():
        print(f"{method}: not measured, {sentence}")
    report.finish(chosen.save)


if __name__ == "__main__":
    main()
