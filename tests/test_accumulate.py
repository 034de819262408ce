"""trainer.accumulate: an optimizer step over several batches is a step over one batch of all their samples."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support import SMALL, Command

from segsweep.runs import read_metrics

Train = Callable[..., Path]
# Without batch norm, whose statistics are those of a batch.
PLAIN = ["model=ablation/norm_none", "trainer.precision=32-true", "optim=sgd", "lr=0.1", "trainer.max_steps=4",
         "data.limit_samples=null", "data.samples_per_epoch=16", "trainer.log_every_n_steps=1",
         "trainer.val_every_n_steps=2"]  # fmt: skip


def weights(run: Path) -> dict[str, torch.Tensor]:
    content = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    return {key: value for key, value in content["state_dict"].items() if key.startswith("net.")}


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_a_step_over_several_batches_is_one_over_all_their_samples(train: Train, parts: int):
    whole = train(*PLAIN, "data.batch_size=8", folder="whole")
    run = train(*PLAIN, f"data.batch_size={8 // parts}", f"trainer.accumulate={parts}", folder="parts")
    assert all(torch.allclose(value, weights(whole)[name], atol=1e-6) for name, value in weights(run).items())
    one, other = (read_metrics(folder / "metrics.csv") for folder in (whole, run))
    assert one["step"].tolist() == other["step"].tolist() == [1, 2, 3, 4]
    for name in ("train/loss", "train/iou", "gradient_norm", "val/loss"):
        assert np.allclose(one[name], other[name], rtol=1e-4, equal_nan=True), name


def test_an_epoch_without_enough_samples_for_a_step_is_refused(command: Command, tmp_path: Path):
    outcome = command("train.py", *SMALL, "data.batch_size=4", "data.limit_samples=10", "trainer.accumulate=3")
    assert (outcome.code, len(outcome.error_lines)) == (1, 1), outcome.err
    assert "data.batch_size=4 times trainer.accumulate=3: an epoch has only 10 training samples" in outcome.err
    assert outcome.err.rstrip().endswith("set data.batch_size=3 or less")
