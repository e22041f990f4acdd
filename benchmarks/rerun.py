"""Published records, drawn at random and trained again: does the accuracy come back?

    python benchmarks/rerun.py [--draw 10] [--state 0] [--save]

Drawn are runs, each as likely as any other, among the published records of photographs
that count today (--state is that of the generator: the same number draws the same runs,
as long as the published ones are the same). Each is trained from nothing with the
record's own seed and settings, in the folder `rerun` of that for runs, with the stages
before it; what is published is not touched. Then its accuracy on the test images is set
beside the record's and the 95 % interval in it (Wilson, over test images), and its
answers beside the record's, image by image. On equal hardware and libraries the same
bits are expected.

A run that was cut off goes on when the command is given again.
"""

import argparse
import os
import random
import re
import sys

import common
import numpy as np

from fgbook import paths
from fgbook.errors import InputError
from fgbook.evidence import current, plan, records, runs

PROFILE = "photo"


def arguments() -> argparse.Namespace:
    found = common.on_device(__doc__, seconds=None)
    found.add_argument("--draw", type=int, default=10, help="how many runs")
    found.add_argument("--state", type=int, default=0, help="of the generator")
    chosen, _ = common.options(found)
    if chosen.draw < 1:
        found.error(f"--draw is {chosen.draw}; expected 1 or more.")
    return chosen


def candidates() -> list[dict]:
    """The published records that count today, in the order of their keys; a run that
    several papers share is there once. Raises InputError where there is none.
    """
    found: dict[str, dict] = {}
    for record in current.counted(records.published(profile=PROFILE)).records:
        found.setdefault(record["key"], record)
    if not found:
        raise InputError(f"there is no published record of profile {PROFILE!r}.")
    return [found[key] for key in sorted(found)]


def drawn(among: list[dict], number: int, state: int) -> list[dict]:
    """So many of them without repetition, each as likely as any other."""
    return random.Random(state).sample(among, min(number, len(among)))


def again(record: dict, device: str) -> dict:
    """The record of the same run, trained anew. Raises InputError where the pictures or
    the weights here are not those that the record names.
    """
    run = plan.of(record)
    if run.key != record["key"]:
        raise InputError(
            f"{run.command} would not repeat record {record['key']} here: the pictures,"
            " the weights or the code differ from those it names."
        )
    made = runs.execute(run, device=device, train=True, progress=sys.stderr.isatty())
    assert made is not None  # there is no time budget
    return made


def named(record: dict) -> str:
    """What was run, without the place of a person's own folder."""
    words = (record[name] for name in ("paper", "row", "dataset", "seed"))
    return re.sub("folder:[^,]*", "folder:PATH", ", ".join(map(str, words)))


def same_answers(one: dict, other: dict) -> float:
    """The share of test images that both records give the same name, in per cent."""
    answers = [records.load_predictions(each)["prediction"] for each in (one, other)]
    return 100 * float(np.mean(answers[0] == answers[1]))


def main() -> None:
    chosen = arguments()
    among = candidates()
    picked = drawn(among, chosen.draw, chosen.state)
    # nothing trained is found there but by an earlier call
    os.environ["FGBOOK_RUNS"] = str(paths.runs() / "rerun")

    report = common.Report(
        "rerun",
        "Published records, drawn at random and trained again",
        chosen.device,
        [
            "run (paper, row, data set, seed)",
            "record, %",
            "its 95 % interval",
            "again, %",
            "same answers, %",
            "record's processor",
        ],
        layout=PROFILE,
        drawn=f"{len(picked)} of {len(among)}",
        state=chosen.state,
    )
    inside = equal = 0
    for record in picked:
        made = again(record, chosen.device)
        was, now = (each["metrics"]["test"] for each in (record, made))
        same = same_answers(record, made)
        inside += was["top1_low"] <= now["top1"] <= was["top1_high"]
        equal += same == 100
        report.row(
            named(record),
            f"{100 * was['top1']:.2f}",
            f"{100 * was['top1_low']:.1f} to {100 * was['top1_high']:.1f}",
            f"{100 * now['top1']:.2f}",
            f"{same:.1f}",
            record["hardware"].get("gpu", record["hardware"]["cpu"]),
        )
    number = len(picked)
    report.ratio("inside the record's interval", inside / number, wanted=">= 1")
    report.ratio("every test image named as in the record", equal / number)
    report.finish(chosen.save)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"rerun: {error}")
