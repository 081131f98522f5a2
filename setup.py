"""What the wheel holds besides Python. The rest of the build is in pyproject.toml.

conf/, sweeps/, tables/ and reference/ lie where people read and edit them. A wheel carries copies inside the package,
so that an installed `moe-sweeps` finds them in any folder; an editable install reads them where they are.
moe_sweeps/paths.py knows both places.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

GIVEN = ("conf", "sweeps", "tables", "reference")


class BuildWithGivenFolders(build_py):
    """Copies the given folders to moe_sweeps/shipped/."""

    def run(self) -> None:
        if self.editable_mode:
            super().run()
            return
        package = Path(self.build_lib, "moe_sweeps")
        shutil.rmtree(package, ignore_errors=True)  # else a file that was deleted since the last build would be shipped
        super().run()
        for name in GIVEN:
            shutil.copytree(name, package / "shipped" / name, ignore=shutil.ignore_patterns(".*", "__pycache__"))


setup(cmdclass={"build_py": BuildWithGivenFolders})
