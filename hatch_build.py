# SPDX-License-Identifier: BSD-2-Clause
"""Makes manual pages of ``docs/man/NAME.SECTION.rst`` when the package is built, and installs them with it."""

from pathlib import Path
from typing import Any

from docutils.core import publish_file
from docutils.writers.manpage import Writer
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = Path("docs/man")
STRICT = {"halt_level": 2, "report_level": 2, "input_encoding": "utf-8", "output_encoding": "utf-8"}


class ManualPages(BuildHookInterface):
    """The hook; hatchling makes one and calls it."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Convert all pages; any remark of docutils is an error."""
        target = Path(self.directory) / "man"
        target.mkdir(parents=True, exist_ok=True)
        for source in sorted((Path(self.root) / SOURCES).glob("*.rst")):
            page = target / source.stem
            publish_file(
                source_path=str(source), destination_path=str(page), writer=Writer(), settings_overrides=STRICT
            )
            build_data["shared_data"][str(page)] = f"share/man/man{source.stem.rpartition('.')[2]}/{source.stem}"
