"""Learning rates over a training, step by step."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from segsweep.tasks import SGD, Adam, Cosine, Exponential, OneCycle, Schedule
from segsweep.tasks.optimizers import OptimizerFactory


def rates(schedule: Schedule, total_steps: int, steps_per_epoch: int = 100, lr: float = 0.1) -> list[float]:
    """The rate of every optimizer step, and of the step after the last. Warnings are errors."""
    optimizer = SGD(lr=lr)([nn.Parameter(torch.zeros(1))])
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler = schedule(optimizer, total_steps, steps_per_epoch)
        for _ in range(total_steps):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return [*seen, optimizer.param_groups[0]["lr"]]


def test_exponential_is_the_notebooks_over_epochs_of_100_steps():
    # The notebook's own scheduler, stepped once an epoch.
    optimizer = SGD(lr=0.1)([nn.Parameter(torch.zeros(1))])
    notebook = LambdaLR(optimizer, lr_lambda=lambda epoch: 0.95**epoch)
    expected = []
    for _ in range(7):
        expected += [optimizer.param_groups[0]["lr"]] * 100
        optimizer.step()
        notebook.step()
    assert rates(Exponential(), 700)[:700] == expected
    assert expected[650] == 0.1 * 0.95**6


@given(st.floats(0.01, 1), st.integers(1, 40), st.integers(1, 17), st.floats(1e-4, 1))
@settings(max_examples=40, deadline=None)
def test_exponential_is_gamma_to_the_epoch_exactly(gamma: float, total: int, steps_per_epoch: int, lr: float):
    expected = [lr * gamma ** (step // steps_per_epoch) for step in range(total + 1)]
    assert rates(Exponential(gamma), total, steps_per_epoch, lr) == expected


@given(st.floats(0, 0.99), st.integers(1, 300), st.floats(1e-4, 1))
@settings(max_examples=40, deadline=None)
def test_cosine_is_half_a_cosine_from_the_rate_to_its_final_fraction(fraction: float, total: int, lr: float):
    seen = rates(Cosine(fraction), total, lr=lr)
    low = lr * fraction
    expected = [low + (lr - low) * (1 + math.cos(math.pi * step / total)) / 2 for step in range(total + 1)]
    assert seen == pytest.approx(expected, rel=1e-9, abs=1e-9 * lr)


@given(st.floats(0.02, 0.98), st.integers(1, 300), st.floats(1e-4, 1), st.floats(0.01, 0.9))
@settings(max_examples=60, deadline=None)
def test_onecycle_rises_to_the_rate_and_falls_to_nearly_0(warmup: float, total: int, lr: float, start: float):
    seen = rates(OneCycle(warmup, start), total, lr=lr)
    slack = 1 + 1e-9
    peak = max(seen)
    top = seen.index(peak)
    assert peak <= lr * slack
    assert seen[: top + 1] == sorted(seen[: top + 1])
    assert seen[top:] == sorted(seen[top:], reverse=True)
    assert seen[-1] <= 1e-3 * lr
    # The peak may lie between two steps; with many steps on either side, the nearest is close to it.
    if total * min(warmup, 1 - warmup) >= 20:
        assert peak >= 0.99 * lr
        assert abs(top - warmup * total) <= 2


@pytest.mark.parametrize(
    ("warmup", "total"), [(0.1, 9), (0.2, 4), (0.25, 3), (0.5, 1), (0.3, 1), (0.9, 9), (0.01, 50), (0.999, 50)]
)
def test_onecycle_takes_trainings_of_any_length(warmup: float, total: int):
    seen = rates(OneCycle(warmup), total)
    assert len(seen) == total + 1
    assert all(0 <= rate <= 0.1 * (1 + 1e-9) for rate in seen)


def test_onecycle_starts_at_its_start_fraction_and_peaks_at_the_rate():
    seen = rates(OneCycle(0.3, 0.04), 1000, lr=0.02)
    assert seen[0] == pytest.approx(0.04 * 0.02, rel=1e-9)
    assert max(seen) == pytest.approx(0.02, rel=1e-4)
    assert seen[-1] < 1e-5


@pytest.mark.parametrize("optimizer", [Adam(lr=0.01), Adam(lr=0.01, momentum=0.7), SGD(lr=0.01, momentum=0.7)])
@pytest.mark.parametrize("schedule", [Exponential(), Cosine(), OneCycle()], ids=repr)
def test_no_schedule_touches_the_momentum(schedule: Schedule, optimizer: OptimizerFactory):
    built = optimizer([nn.Parameter(torch.zeros(1))])
    before = {key: built.param_groups[0].get(key) for key in ("betas", "momentum")}
    scheduler = schedule(built, 20, 5)
    for _ in range(20):
        built.step()
        scheduler.step()
        assert {key: built.param_groups[0].get(key) for key in ("betas", "momentum")} == before


@pytest.mark.parametrize("schedule", [Exponential(), Cosine(0.1), OneCycle()], ids=repr)
def test_resumed_schedule_goes_on_as_the_uninterrupted_one(schedule: Schedule):
    whole = rates(schedule, 30, 4)
    states = []
    seen = []
    for steps in (range(0, 11), range(11, 30)):
        optimizer = SGD(lr=0.1)([nn.Parameter(torch.zeros(1))])
        scheduler = schedule(optimizer, 30, 4)
        if states:
            optimizer.load_state_dict(states[0])
            scheduler.load_state_dict(states[1])
        for _ in steps:
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        states = [optimizer.state_dict(), scheduler.state_dict()]
    assert seen == whole[:30]


@pytest.mark.parametrize("bad", [-0.1, 0.0, 1.1, math.nan, math.inf])
def test_value_outside_its_range_is_refused_by_name(bad: float):
    with pytest.raises(ValueError, match=r"^gamma="):
        Exponential(bad)
    with pytest.raises(ValueError, match=r"^warmup_fraction="):
        OneCycle(warmup_fraction=bad)
    with pytest.raises(ValueError, match=r"^start_fraction="):
        OneCycle(start_fraction=bad)
    if bad != 0:
        with pytest.raises(ValueError, match=r"^final_fraction="):
            Cosine(bad)
    with pytest.raises(ValueError, match=r"^final_fraction="):
        Cosine(1.0)
