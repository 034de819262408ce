"""Curves and feature maps of a trained run."""

import dataclasses

import numpy as np
import pytest
import torch

from segsweep import load_run, plots
from segsweep.errors import UserError
from segsweep.nets import UNet


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


@pytest.mark.quick
def test_curves_are_the_history_of_training_and_validation(train):
    run = load_run(train("objective=val/accuracy"))
    figure = run.curves()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "accuracy"]
    for axes, metric in zip(figure.axes, ("loss", "accuracy"), strict=True):
        for split, line in lines(axes).items():
            logged = run.history[["step", f"{split}/{metric}"]].dropna()
            assert len(logged)
            np.testing.assert_array_equal(line.get_xydata(), logged)
        assert set(lines(axes)) == {"train", "val"}
    assert f"step {run.step}" in figure.get_suptitle()


def test_a_run_whose_objective_is_the_loss_has_one_panel(train):
    assert len(load_run(train("objective=val/loss")).curves().axes) == 1


def test_curves_of_a_run_that_logged_nothing_to_draw_are_refused(train):
    run = load_run(train())
    (run.directory / "metrics.csv").write_text("step,epoch,lr\n1,0,0.1\n")
    with pytest.raises(UserError, match="neither loss nor val/iou was logged"):
        run.curves()


def test_activations_are_the_output_of_a_layer(train):
    run = load_run(train())
    image = np.random.default_rng(0).random((1, 20, 28), dtype=np.float32)
    maps = run.activations(image, "conv1")
    with torch.inference_mode():
        expected = run.net.get_submodule("conv1")(torch.from_numpy(image)[None])[0]
    assert maps.dtype == np.float32
    np.testing.assert_array_equal(maps, expected.numpy())
    np.testing.assert_array_equal(
        run.task.probabilities(torch.from_numpy(run.activations(image, "out"))[None])[0], run.probabilities(image)
    )
    assert "16 channels, 20×28" in plots.feature_maps(maps).get_suptitle()
    assert not run.net.get_submodule("conv1")._forward_hooks


def test_an_unknown_layer_or_one_without_maps_is_refused(train):
    run = load_run(train())
    image = np.zeros((1, 16, 16), dtype=np.float32)
    with pytest.raises(ValueError, match=r"'conv9'.*conv1\.0, conv2\.0, conv3\.0, out"):
        run.activations(image, "conv9")
    flat = dataclasses.replace(run, net=torch.nn.Sequential(run.net, torch.nn.Flatten()))
    with pytest.raises(ValueError, match="'1'"):
        flat.activations(image, "1")


def test_the_plain_form_of_a_unet_gives_the_maps_of_layers_that_the_exact_one_composes(train):
    run = dataclasses.replace(load_run(train()), net=UNet(in_channels=1, out_channels=1, widths=[4, 6, 8]))
    image = np.zeros((1, 16, 16), dtype=np.float32)
    with pytest.raises(ValueError, match=r"'conv4'.*head = 'plain'"):
        run.activations(image, "conv4")
    run.net.head = "plain"
    assert run.activations(image, "conv4").shape == (6, 8, 8)
    with pytest.raises(ValueError, match=r"image has shape \[3, 16, 16\]"):
        run.activations(np.zeros((3, 16, 16), dtype=np.float32), "conv1")
