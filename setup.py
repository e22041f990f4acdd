"""What pyproject.toml cannot say: the published records go into the wheel, to where an
installed package looks for them (fgbook/paths.py).
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

RECORDS = Path("results")


class WithRecords(build_py):
    """Copy the package, and `results/` into it as ``fgbook/published/``."""

    def run(self) -> None:
        """As always, and then the records; a clone has them where they are."""
        super().run()
        if self.editable_mode:
            return
        for source, target in self.records().items():
            self.mkpath(str(Path(target).parent))
            self.copy_file(source, target)

    def records(self) -> dict[str, str]:
        """Every published file, and where it goes."""
        place = Path(self.build_lib, "fgbook", "published")
        # a lock is hidden
        files = [path for path in RECORDS.rglob("[!.]*") if path.is_file()]
        return {str(path): str(place / path.relative_to(RECORDS)) for path in files}

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """The files of the package and those of the records."""
        outputs = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, *self.records().values()]


setup(cmdclass={"build_py": WithRecords})
