"""Memory that a training step needs for each image of its batch, by method and image
size, with and without recipe.recompute.

    python benchmarks/memory.py                 # MobileNetV2, 224 and 448 px

On a GPU (--device cuda) ResNet-50. Two batch sizes are measured in a fresh process a
line, and the difference is divided by their difference: what does not depend on the
batch (weights, libraries) drops out. "kept" is what the forward pass keeps for the
backward pass, tensor by tensor; "peak" is the most that was in use at one moment: on a
GPU as its allocator counts (torch.cuda.max_memory_allocated), on a CPU as the system
does (Linux: peak resident memory). "recomputed" is the same with recipe.recompute, and
the ratio is what of the peak it leaves.
"""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import common
import torch

from fgbook.errors import InputError
from fgbook.methods import build
from fgbook.recipe import Recipe
from fgbook.training import memory

CLASSES, MIB = 50, 2**20


def step_memory(
    method: str,
    size: int,
    recompute: bool,
    backbone: str,
    batches: list[int],
    device: torch.device,
) -> dict:
    """Bytes kept and peak bytes of a training step, a number each batch size; "refused"
    with a sentence where the method cannot.
    """
    torch.manual_seed(0)
    kept, peak = [], []
    try:
        model = build(
            method,
            CLASSES,
            Recipe(image_size=size, store_size=size, backbone=backbone, weights="none"),
            {},
            torch.rand(CLASSES, 312),
        )
        model.to(device, memory_format=torch.channels_last).train()
        optimiser = torch.optim.SGD(
            [p for p in model.parameters() if p.requires_grad], 1e-4, momentum=0.9
        )
        with memory.recomputed(model) if recompute else nullcontext():
            # once before, for buffers that are made only once
            for batch in (batches[0], *batches):
                optimiser.zero_grad(set_to_none=True)
                images = torch.rand(batch, 3, size, size, device=device).contiguous(
                    memory_format=torch.channels_last
                )
                targets = torch.arange(batch, device=device) % CLASSES
                reset(device)
                with memory.Activations(model) as activations:
                    loss = sum(model.losses(model(images, targets), targets).values())
                loss.backward()
                optimiser.step()
                kept.append(activations.bytes)
                peak.append(highest(device))
    except InputError as error:
        return {"refused": str(error)}
    return {"kept": kept[1:], "peak": peak[1:]}


def reset(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif os.path.exists("/proc/self/clear_refs"):
        Path("/proc/self/clear_refs").write_text("5")  # see proc(5): resets VmHWM


def highest(device: torch.device) -> int | None:
    """The most bytes in use since the reset, None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if not os.path.exists("/proc/self/clear_refs"):
        return None
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def measured(line: list, threads: int) -> dict:
    """step_memory in a fresh process. Its large tensors are given back to the system at
    once, so that what is free does not count as used.
    """
    process = subprocess.run(
        [sys.executable, __file__, "--line", json.dumps([*line, threads])],
        capture_output=True,
        text=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    if process.returncode:
        sys.exit(f"{line[0]} at {line[1]} px failed:\n{process.stderr}")
    return json.loads(process.stdout.splitlines()[-1])


def main() -> None:
    parser = common.on_device(__doc__, seconds=None)
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=[224, 448],
        help="pixels (default: 224 448)",
    )
    parser.add_argument(
        "--batches",
        type=int,
        nargs=2,
        help="the two batch sizes (default: 2 4; 8 16 on a GPU)",
    )
    common.compares_methods(parser)
    chosen, device = common.options(parser)
    backbone = chosen.backbone
    batches = chosen.batches or ([8, 16] if device.type == "cuda" else [2, 4])
    report = common.Report(
        f"memory-{backbone}",
        f"Memory of a training step, MiB an image: {backbone}",
        chosen.device,
        [
            "method",
            "size",
            "kept",
            "peak",
            "kept, recomputed",
            "peak, recomputed",
            "ratio",
        ],
        backbone=backbone,
        batches=" and ".join(map(str, batches)),
        precision="fp32",
    )
    for size in chosen.sizes:
        peaks = {}
        for method in chosen.methods:
            found = [
                measured(
                    [method, size, recompute, backbone, batches, chosen.device],
                    chosen.threads,
                )
                for recompute in (False, True)
            ]
            if "refused" in found[0]:
                print(f"{method}, {size} px: not measured, {found[0]['refused']}")
                continue
            values = [
                (
                    None
                    if None in line[what]
                    else (line[what][1] - line[what][0])
                    / (batches[1] - batches[0])
                    / MIB
                )
                for line in found
                for what in ("kept", "peak")
            ]
            before, after = values[1], values[3]
            left = after / before if before and after else values[2] / values[0]
            report.row(method, size, *values, left)
            report.ratio(
                f"{method}, {size} px: {'peak' if before else 'kept'} memory with"
                " recomputing over without",
                left,
            )
            peaks[method] = before or values[0]
            if method != "plain":
                report.ratio(
                    f"{method}, {size} px: {'peak' if before else 'kept'} memory over"
                    " plain",
                    peaks[method] / peaks["plain"],
                )
    report.finish(chosen.save)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--line"]:
        *about, device, threads = json.loads(sys.argv[2])
        torch.set_num_threads(threads)
        print(json.dumps(step_memory(*about, torch.device(device))))
    else:
        main()
