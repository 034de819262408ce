"""A training writes only into its output folder, and needs no network."""

import os
import subprocess
import sys
from pathlib import Path

from support import ROOT, SMALL

# Runs the entry point, and refuses and prints every connection to another machine.
WITHOUT_NETWORK = """
import runpy, socket, sys
def refuse(self, address, *_):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        print("connection to", address, file=sys.stderr)
        raise OSError("no network")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = lambda *arguments, **_: refuse(socket.socket(), arguments)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_training_writes_only_into_its_output_folder_and_needs_no_network(tmp_path: Path):
    home, here, temporary = (tmp_path / name for name in ("home", "here", "tmp"))
    for folder in (home, here, temporary):
        folder.mkdir()
    places = {"HOME": str(home), "TMPDIR": str(temporary), "XDG_CACHE_HOME": str(home / ".cache")}
    # Torch makes this folder on import; without this its subprocesses would inherit the one of this process.
    places["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path / "torch")
    environment = {key: value for key, value in os.environ.items() if key not in ("MPLCONFIGDIR", "XDG_CONFIG_HOME")}
    outcome = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK, str(ROOT / "train.py"), *SMALL],
        cwd=here, env=environment | places, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    assert "connection to" not in outcome.stderr
    assert [path.name for path in here.iterdir()] == ["outputs"]
    assert list(temporary.iterdir()) == []
    left = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    # Matplotlib caches its list of fonts.
    assert [path for path in left if not path.startswith((".cache/matplotlib/", ".config/matplotlib/"))] == []
