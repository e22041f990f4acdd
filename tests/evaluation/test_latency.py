"""Times of real work on real files, and what is said about them."""

import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fgbook import backbones
from fgbook.data import store
from fgbook.evaluation import latency
from fgbook.evaluation.latency import STAGES, Latency
from fgbook.figures import golodov as figures
from fgbook.methods import Transfer

MACHINE = {
    "cpu": "a processor",
    "threads": 1,
    "cores": 2,
    "memory_gib": 8.0,
    "system": "Linux x86_64",
    "device": "cpu",
}


@pytest.fixture
def files(tmp_path):
    generator = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.jpg" for i in range(3)]
    for path in paths:
        Image.fromarray(generator.integers(0, 256, (60, 80, 3), np.uint8)).save(path)
    return paths


def network(size: int = 32) -> Transfer:
    torch.manual_seed(0)
    return Transfer(backbones.create("small", "none"), 4, image_size=size)


def test_stages_are_disjoint_and_add_up_to_the_whole(files):
    begin = time.perf_counter()
    found = latency.measure(network(), files, 32, batch=2, repeats=5, warm_up=1)
    wall = time.perf_counter() - begin
    assert set(found.seconds) == {*STAGES, "total"}
    for values in found.seconds.values():
        assert len(values) == 5
        assert (values > 0).all()
    np.testing.assert_allclose(
        sum(found.seconds[stage] for stage in STAGES), found.seconds["total"], rtol=1e-9
    )
    assert found.seconds["total"].sum() < wall
    assert (found.name, found.image_size, found.batch, found.threads, found.device) == (
        "small",
        32,
        2,
        torch.get_num_threads(),
        "cpu",
    )


class Clock:
    """Stands still, but for what is said to take time."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def slow(self, work):
        """The same work, which takes a second."""

        def slowly(*arguments, **options):
            self.now += 1.0
            return work(*arguments, **options)

        return slowly


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(latency.time, "perf_counter", clock)
    return clock


@pytest.mark.parametrize("stage", STAGES)
def test_time_is_booked_to_the_stage_that_takes_it(files, stage, clock, monkeypatch):
    model = network()
    if stage == "decode":
        monkeypatch.setattr(store, "decode", clock.slow(store.decode))
    elif stage == "preprocess":
        monkeypatch.setattr(latency, "preprocess", clock.slow(latency.preprocess))
    else:
        part = model.backbone if stage == "network" else model.head
        monkeypatch.setattr(part, "forward", clock.slow(part.forward))
    seconds = latency.measure(model, files, 32, repeats=3, warm_up=1).seconds
    for name in STAGES:
        assert seconds[name].tolist() == [1.0 if name == stage else 0.0] * 3
    assert seconds["total"].tolist() == [1.0] * 3


def test_what_is_timed_is_the_prediction(files):
    """The stages together do what predict does with the pictures as data sets decode
    them; files are taken in turn."""
    model, seen, said = network(), [], []
    model.backbone.register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].clone())
    )
    model.head.layers.register_forward_hook(
        lambda module, inputs, output: said.append(output.clone())
    )
    latency.measure(model, files, 32, batch=2, repeats=2, warm_up=1)
    assert len(seen) == 3
    for repeat, chosen in enumerate(((0, 1), (2, 0), (1, 2))):
        images = (
            torch.from_numpy(
                np.stack([store.decode(files[i], 32)[0] for i in chosen])
            ).float()
            / 255
        )
        torch.testing.assert_close(seen[repeat], images)
        torch.testing.assert_close(
            said[repeat], model.predict(images), atol=1e-4, rtol=1e-4
        )


def test_warm_up_is_not_counted(files, clock):
    class Cold(nn.Module):
        name, first = "cold", True

        def forward(self, images):
            if self.first:
                clock.now += 1.0
            self.first = False
            return images

    model = network()
    model.backbone = Cold()
    model.head.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    counted = latency.measure(model, files, 32, repeats=3, warm_up=1)
    assert counted.seconds["total"].tolist() == [0.0] * 3


def test_a_cold_start_is_a_process_of_its_own(files, monkeypatch):
    started = []

    def run(command, **options):
        started.append(command)
        return subprocess_run(command, **options)

    subprocess_run = latency.subprocess.run
    monkeypatch.setattr(latency.subprocess, "run", run)
    assert latency.cold_start("small", files[0], 32) > 0
    assert len(started) == 1
    assert started[0][0] == sys.executable


def timed(seconds: list[float], name: str = "inception_v3", batch: int = 1) -> Latency:
    total = np.array(seconds)
    return Latency(
        name,
        299,
        batch,
        {stage: total / 4 for stage in STAGES} | {"total": total},
        1,
        "cpu",
    )


def test_per_image_is_median_and_percentiles_over_repeats():
    one = timed([1.0, 2.0, 3.0, 4.0, 100.0], batch=2)
    assert one.per_image() == (
        1.5,
        0.5 * np.percentile(one.seconds["total"], 10),
        0.5 * np.percentile(one.seconds["total"], 90),
    )
    assert one.per_image("decode")[0] == pytest.approx(0.375)


def test_the_claim_about_minutes_is_judged_by_the_slowest_honest_time():
    quick = timed([0.2] * 9 + [0.4])
    assert figures.speed([quick]).outcome == "does not hold"
    assert "200 ms" in figures.speed([quick]).why
    assert figures.speed([quick], cold=8.0).outcome == "does not hold"
    assert "8.0 s" in figures.speed([quick], cold=8.0).why
    assert figures.speed([quick], cold=70.0).outcome == "holds"
    assert figures.speed([timed([80.0, 90.0])]).outcome == "holds"
    for missing in ([], [timed([0.2], name="small")], [timed([0.2], batch=32)]):
        assert figures.speed(missing).outcome == "not run"


def test_tables_and_figures_say_what_was_timed_where():
    found = [timed([0.2, 0.3]), timed([1.2, 1.3], batch=8)]
    for shown in (
        figures.latency_table(found, MACHINE),
        figures.latency_figure(found, MACHINE),
    ):
        assert "a processor (1 of 2 cores)" in shown.html
        assert "1 thread," in shown.html
    assert "<td>250.0</td>" in figures.latency_table(found, MACHINE).html
    assert (
        "inception_v3 at 299 px, 8 at a time: decode 39.1"
        in figures.latency_figure(found, MACHINE).html
    )
    assert "does not hold" in figures.speed_table(figures.speed(found)).html
