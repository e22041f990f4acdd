"""timm and torchvision without torch's compiler, each in a process of its own."""

import subprocess
import sys

import pytest
import torch

from fgbook.backbones import create, late_compiler


def said_by(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_network_that_only_names_pictures_does_without_the_compiler():
    code = """
import sys, torch
from fgbook import methods
from fgbook.recipe import Recipe
recipe = Recipe(backbone="timm:tf_efficientnet_lite0", weights="none")
with torch.no_grad():
    model = methods.build("plain", 3, recipe, {}).eval()
    print(tuple(model(torch.rand(2, 3, 64, 64))["image"].shape))
print("torch._dynamo" in sys.modules)
"""
    assert said_by(code) == ["(2, 3)", "False"]


def test_what_asked_the_compiler_is_answered_when_it_is_called():
    """torchvision lets the compiler leave a function of its tensors alone, and asks it
    about a kind of device.
    """
    code = """
import sys, torch
from fgbook.backbones import late_compiler
before = torch.compiler.disable
torchvision = late_compiler.imported("torchvision")
print("torch._dynamo" in sys.modules, torch.compiler.disable is before)
from torchvision import ops, tv_tensors
print(ops.roi_align.__globals__["is_compile_supported"]("cpu"))
image = tv_tensors.Image(torch.zeros(3, 4, 4))
print(type(tv_tensors.wrap(torch.ones(3, 4, 4), like=image)).__name__)
print("torch._dynamo" in sys.modules)
"""
    assert said_by(code) == ["False True", "True", "Image", "True"]


def test_networks_are_compiled_afterwards():
    code = """
import sys, torch
from fgbook.backbones import create
with torch.no_grad():
    network = create("timm:tf_efficientnet_lite0", "none").eval()
    print("torch._dynamo" in sys.modules)
    images = torch.rand(2, 3, 64, 64)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), network(images))
print("torch._dynamo" in sys.modules)
"""
    assert said_by(code) == ["False", "True"]


@pytest.mark.parametrize(
    "line",
    [
        "from torch._dynamo import config",
        "import torch; torch._dynamo.config.verbose",
        "import torch._dynamo.utils as u; u.counters",
    ],
)
def test_a_module_that_asks_for_more_gets_the_compiler(tmp_path, line):
    (tmp_path / "asks.py").write_text(f"{line}\nanswer = 42\n")
    code = f"""
import sys
from fgbook.backbones import late_compiler
sys.path.insert(0, {str(tmp_path)!r})
print(late_compiler.imported("asks").answer)
import torch._dynamo
print(torch._dynamo.config is not None, "asks" in sys.modules)
"""
    assert said_by(code) == ["42", "True True"]


def test_nothing_stands_in_after_a_module_that_is_not_there():
    code = """
import sys
from fgbook.backbones import late_compiler
try:
    late_compiler.imported("not_installed_anywhere")
except ImportError as error:
    print(error)
print("torch._dynamo" in sys.modules, "torch._dynamo.utils" in sys.modules)
"""
    assert said_by(code) == ["No module named 'not_installed_anywhere'", "False False"]


def test_a_function_is_left_alone_with_and_without_words():
    """As torch.compiler.disable takes it: bare, and with its own options."""

    @late_compiler._disable
    def bare(x: int) -> int:
        return x + 1

    @late_compiler._disable(recursive=False, reason="a test")
    def with_options(x: int) -> int:
        return x + 2

    assert (bare(1), with_options(1)) == (2, 3)
    assert bare.__name__ == "bare"

    def whole(x: torch.Tensor) -> torch.Tensor:
        return bare(x) * 2

    with pytest.raises(Exception, match="(?i)graph|disable"):
        torch.compile(whole, backend="eager", fullgraph=True)(torch.ones(2))


def test_with_gradients_on_what_lies_behind_the_map_does_not_learn():
    """Off, nothing is looked for: a network that names pictures."""
    name = "timm:mobilenetv3_small_100"
    learning = create(name, "none")
    with torch.no_grad():
        naming = create(name, "none")
    behind = [key for key, p in learning.named_parameters() if not p.requires_grad]
    assert behind
    assert all(p.requires_grad for p in naming.parameters())
