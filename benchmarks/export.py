"""What exported models cost, and whether they stay right: PyTorch, ONNX Runtime, and
there in eight bits, on the same test images.

    python benchmarks/export.py RUN... [--images 400] [--repeats 20]

RUN: the folder of a trained run, or its key. Times are of single images, of the fastest
repeat: on one thread processor time, on two the time that passes, which says something
on a machine without other work only (`--threads 1` leaves it out). The three forms take
turns. Wanted: in ONNX Runtime at least as fast as in PyTorch.
"""

import statistics
from importlib import metadata

import common

from fgbook import data
from fgbook.evidence import runs
from fgbook.export import measured


def main() -> None:
    """Measure, print, save."""
    parser = common.parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--images", type=int, default=400, help="test images, at most")
    parser.add_argument("--repeats", type=int, default=20, help="of single images")
    parser.add_argument("--threads", type=int, default=2, help="at most (default: 2)")
    chosen = parser.parse_args()
    found = []
    report = common.Report(
        "export",
        "Exported models: size, time of one image, and how many test images are right",
        "cpu",
        list(measured.COLUMNS),
        layout="exported",
        images=chosen.images,
        repeats=chosen.repeats,
        onnxruntime=metadata.version("onnxruntime"),
    )
    for key in chosen.runs:
        model, about = runs.load_model(key, "cpu")
        one = measured.measure(
            f"{about['row']} ({about['paper']}), {about['dataset']}",
            model,
            about,
            data.load(about["dataset"], about["recipe"]["store_size"]),
            images=chosen.images,
            repeats=chosen.repeats,
            threads=(1, 2)[: chosen.threads],
        )
        for line in one.lines():
            report.row(*line)
        found.append(one)

    for place, name in enumerate(measured.FORMS):
        if not place:
            continue
        times = [
            one.forms[0].seconds[1].min() / one.forms[place].seconds[1].min()
            for one in found
        ]
        low, middle, high = spread(times)
        report.ratio(
            f"PyTorch's time on one thread over {name}, median of {len(found)} models",
            middle,
            low,
            high,
            wanted=">= 1",
        )
    report.finish(chosen.save)


def spread(values: list[float]) -> tuple[float, float, float]:
    """The quartiles of some numbers."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


if __name__ == "__main__":
    main()
