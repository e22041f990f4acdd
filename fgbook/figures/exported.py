"""The table of exported models in the chapter on latency: what each form of a model
costs, and whether it stays right.
"""

import html

from ..evaluation.wilson import wilson
from ..export import measured
from .base import Shown, between, sentence, table
from .summary import hardware


def exported_table(
    lines: list[list], machine: dict, load: float | None = None, quick: bool = False
) -> Shown:
    """A line for each form of each model, as :meth:`fgbook.export.measured.Measured.
    lines` gives them. `machine`: from ``records.hardware``; `load`: of the machine,
    when it was measured; `quick`: an illustration.
    """
    if not lines:
        return sentence(
            "Nothing was exported here: no row was asked for, or onnx, onnxscript and"
            " onnxruntime are not installed."
        )
    # of PyTorch on as many threads, by model
    reference: dict[str, tuple[float | None, float | None]] = {}
    shown = []
    for row, form, megabytes, one, two, right, images, changed in lines:
        first = reference.setdefault(row, (one, two))
        low, high = wilson(right, images)
        shown.append(
            {
                "model": html.escape(row),
                "form": html.escape(form),
                "MB": f"{megabytes:.1f}",
                "ms, one thread": _timed(one, first[0]),
                "ms, two threads": _timed(two, first[1]),
                "accuracy, %": f"{100 * right / images:.1f}",
                "from .. to, 95 %": between(100 * low, 100 * high),
                "test images": images,
                "of another class than in PyTorch": changed,
            }
        )
    busy = "" if load is None else f", load {load:g}"
    return table(
        shown,
        "Models in three forms: size on disk; time of one image, the fastest repeat"
        " (on one thread processor time, on two the time that passes, which is taken"
        " only where the machine has nothing else to do), in brackets how"
        " many times as fast as PyTorch; accuracy on the same test images, with"
        " Wilson's interval."
        f" Measured on {hardware({'hardware': machine})}{busy}.",
        illustration=quick,
    )


def _timed(milliseconds: float | None, in_pytorch: float | None) -> str:
    if milliseconds is None or in_pytorch is None:
        return "–"
    return f"{milliseconds:.1f} ({in_pytorch / milliseconds:.1f}×)"


def published_table() -> Shown:
    """The saved measurement of many models (``benchmarks/export.py``)."""
    found = measured.published()
    if found is None:
        return sentence(
            "No measurement of more models is saved here (benchmarks/export.py saves"
            " one, in a clone)."
        )
    return exported_table(found["rows"], found["hardware"], found["load"])
