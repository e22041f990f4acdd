"""What all tests of backbones need."""

import urllib.error

import pytest
import torch


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """An empty weights folder, an empty download cache, and a download that fails as it
    does without a network."""

    def fail(url, *arguments, **options):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FGBOOK_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    torch.manual_seed(0)
