"""Prints the oldest versions that pyproject.toml allows, as constraints for pip.

Torch is left to the newest that is allowed: each of its CPU builds is hundreds of megabytes.
"""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
for requirement in project["dependencies"]:
    found = re.match(r"([\w.-]+)\s*>=\s*([\w.]+)", requirement)
    if found is not None and found[1] != "torch":
        print(f"{found[1]}=={found[2]}")
