"""CPU time of a command from its start to its end: `train.py --help`, and a training of one step.

    python benchmarks/startup.py
    OMP_NUM_THREADS=1 python benchmarks/startup.py --repeats 9

The seconds are user and system time of the process. Two baselines take turns with the commands: `import torch`, and the
imports that no training can do without: torch, Lightning, Hydra, and an optimizer, which imports torch._dynamo. They are
imported as Python does by itself; `train.py` pauses garbage collection meanwhile, so it may take less than they do.

The training is the smallest that runs every part: 32 x 32 pixels, two steps of statistics, four samples each of validation
and test, TensorBoard without the graph. The first round compiles Python files and is not counted.
"""

import os
import resource
import subprocess
import sys
import tempfile

from measure import CONF, Measure, Row, arguments, interleave, pick_device, report, trainer_group

TRAIN = str(CONF.parent / "train.py")
ONE_STEP = (
    "trainer.max_steps=1",
    "debug=fast",
    "data.image_size=32",
    "callbacks.graph=null",
    "trainer.progress_bar=false",
)
TORCH = "import torch"
NEEDED = (
    "import torch, lightning.pytorch, hydra; torch.optim.Adam([torch.zeros(1, requires_grad=True)])"  # imports _dynamo
)


def cpu_seconds(*typed: str) -> Measure:
    """A measure of the CPU seconds of Python with these arguments."""

    def measure() -> float:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, *typed], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    return measure


def main() -> None:
    options = arguments(__doc__).parse_args()
    device = pick_device(options.device)
    measures = {
        "torch": cpu_seconds("-c", TORCH),
        "needed": cpu_seconds("-c", NEEDED),
        "help": cpu_seconds(TRAIN, "--help"),
        "step": cpu_seconds(TRAIN, *ONE_STEP, trainer_group(device)),
    }
    interleave(measures, 1)
    times = interleave(measures, options.repeats)
    needed = "importing torch, Lightning, Hydra and an optimizer"
    rows = [
        Row("train.py --help", "importing torch", times["help"], times["torch"], "cost", 1.0),
        Row("train.py, one step", needed, times["step"], times["needed"], "cost", 1.0, unit="run"),
        Row("train.py, one step", "importing torch", times["step"], times["torch"], "cost", unit="run"),
    ]
    report("startup", rows, device, options.json)


if __name__ == "__main__":
    main()
