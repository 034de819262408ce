"""Memory that a job leaves behind in the process of a sweep."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_traced_net_is_freed():
    size = "int(open('/proc/self/statm').read().split()[1]) * 4096 / 1e6"
    program = (
        "import torch\n"
        "from torch.utils.tensorboard._pytorch_graph import graph\n"
        "from segsweep.callbacks.tensorboard import forget_traced_classes\n"
        "from segsweep.nets import TextureCNN\n"
        "sizes = []\n"
        "for _ in range(31):\n"
        "    graph(TextureCNN(), torch.zeros(1, 1, 32, 32))\n"
        "    forget_traced_classes()\n"
        f"    sizes.append({size})\n"
        "print(sizes[-1] - sizes[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    assert float(done.stdout) < 15  # MB; without it, 50
