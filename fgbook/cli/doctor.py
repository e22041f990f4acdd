"""``fgbook doctor``: what is installed and found here. Needs no torch unless asked."""

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import click

from .. import __version__, paths
from .common import examples

PACKAGES = {
    "packages": (
        "torch",
        "torchvision",
        "timm",
        "accelerate",
        "torchmetrics",
        "safetensors",
        "numpy",
        "pandas",
    ),
    "notebooks and book": (
        "papermill",
        "ipykernel",
        "jupyter-book",
        "sphinx",
        "jupyterlab",
    ),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "optional": ("tensorboard", "ruff", "mypy"),
}
LISTED = 12  # names in a folder


@click.command(epilog=examples("fgbook doctor", "fgbook doctor --torch"))
@click.option(
    "--torch",
    "ask_torch",
    is_flag=True,
    help="Also ask PyTorch which devices it can use; takes some seconds.",
)
def doctor(ask_torch: bool) -> None:
    """What is installed and found here.

    The first thing to send with a question.
    """
    from ..evidence import records

    click.echo(
        f"fgbook {__version__}, Python {platform.python_version()}, {platform.system()}"
        f" {platform.machine()}"
    )
    for title, packages in PACKAGES.items():
        found = ", ".join(f"{name} {version(name)}" for name in packages)
        click.echo(f"{title}: {found}")
    click.echo(f"processor: {records.cores()} cores")
    click.echo(f"GPUs: {gpus()}")
    if ask_torch:
        click.echo(f"PyTorch can use: {devices()}")

    click.echo(folder_line("data", paths.data(), "FGBOOK_DATA", names=True))
    click.echo(folder_line("weights", paths.weights(), "FGBOOK_WEIGHTS", names=True))
    click.echo(folder_line("runs", paths.runs(), "FGBOOK_RUNS"))
    click.echo(folder_line("results", paths.results(), "FGBOOK_RESULTS"))
    shipped = (paths.PACKAGE / "backbones" / "shipped").glob("*.safetensors")
    names = sorted(path.name for path in shipped)
    click.echo(f"shipped weights: {', '.join(names) or 'none'}")
    click.echo(disk_line(paths.runs()))


def version(package: str) -> str:
    """The installed version, from the package's metadata: nothing is imported."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "-"


def gpus() -> str:
    """What the driver's own program lists. Whether PyTorch can use them is another
    question, which takes seconds to ask.
    """
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "none found (nvidia-smi does not answer here)"
    found = done.stdout.split("\n") if done.returncode == 0 else []
    names = [line.strip() for line in found if line.strip()]
    if not names:
        return "none found (by nvidia-smi)"
    return f"{'; '.join(names)} (`fgbook doctor --torch`: whether PyTorch can use it)"


def devices() -> str:
    """What PyTorch computes on, and with how many threads."""
    import torch

    named = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join([*named, f"cpu with {torch.get_num_threads()} threads"])


def folder_line(title: str, folder: Path, variable: str, names: bool = False) -> str:
    """One line about a place: where, how it is chosen, how much is in it."""
    where = f"{title}: {folder} ({variable}), "
    if folder.exists() and not folder.is_dir():
        return where + "which is a FILE; name a folder"
    if not folder.is_dir():
        return where + "not there yet"
    inside = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    count = f"{len(inside)} entries"
    if names and inside:
        return f"{where}{count}: {', '.join(inside[:LISTED])}"
    return where + count


def disk_line(folder: Path) -> str:
    """How much room there is for runs, and whether they can be written."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free / 2**30
    possible = there.is_dir() and os.access(there, os.W_OK)
    writable = "can be written" if possible else "CANNOT be written"
    return f"disk: {free:.1f} GiB free for runs, {writable}"
