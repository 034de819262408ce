"""Prints the oldest versions that pyproject.toml allows, as constraints for pip.

Leaves out torch, whose builds have hundreds of megabytes: pip then keeps the newest allowed one.
"""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
for requirement in project["dependencies"]:
    found = re.match(r"([\w.-]+)\s*>=\s*([\w.]+)", requirement)
    if found is not None and found[1] != "torch":
        print(f"{found[1]}=={found[2]}")
