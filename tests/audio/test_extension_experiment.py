"""Extension where the truth is known: a Gaussian process over time, by the laws that the samplers' samples have exactly."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from moviegen_core.conditioner import Conditioning

SPEC = importlib.util.spec_from_file_location("extension_benchmark", Path(__file__).parents[2] / "benchmarks" / "extension.py")
experiment = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(experiment)

LENGTH, WINDOW, OVERLAP, STEPS = 100, 40, 10, 24


@pytest.fixture(scope="module")
def found():
    methods = experiment.samplers(WINDOW, OVERLAP, STEPS)
    seams = {name: experiment.seams(sampler, LENGTH) or experiment.seams(methods["stitch"], LENGTH) for name, sampler in methods.items()}
    return {name: experiment.measure(experiment.law(sampler, LENGTH), seams[name], lag=10) for name, sampler in methods.items()}


@pytest.mark.parametrize("known", [0, 3])
def test_velocity_is_the_regression_of_the_target(known):
    # E[x_1 − x_0 | x_t, x_1[:known]] by the joint covariance of (x_1, x_0), without the closed form.
    size, t = 7, 0.3
    prior = experiment.covariance(size)
    joint = torch.block_diag(prior, torch.eye(size).double())
    seen = torch.cat([torch.cat([t * torch.eye(size), (1 - t) * torch.eye(size)], 1), torch.eye(2 * size)[:known]]).double()
    target = torch.cat([torch.eye(size), -torch.eye(size)], 1).double()
    gain = target @ joint @ seen.T @ torch.linalg.inv(seen @ joint @ seen.T)
    generator = torch.Generator().manual_seed(0)
    x_1 = torch.linalg.cholesky(prior) @ torch.randn(size, generator=generator, dtype=torch.float64)
    x_t = t * x_1 + (1 - t) * torch.randn(size, generator=generator, dtype=torch.float64)
    context = torch.cat([x_1[:known], torch.zeros(size - known)]).view(1, 1, -1)
    velocity = experiment.velocity(x_t.view(1, 1, -1), torch.tensor([t], dtype=torch.float64), Conditioning(channels=context))
    torch.testing.assert_close(velocity.flatten(), gain @ torch.cat([x_t, x_1[:known]]), rtol=1e-6, atol=1e-6)


def test_one_shot_has_the_true_law(found):
    assert found["one shot"]["distance"] < 1e-3
    assert found["one shot"]["jump"] == pytest.approx(1.0, abs=1e-3)


def test_seams_are_heard_in_the_order_of_theory(found):
    # Independent segments jump by two variances; states pulled together at each step by less; averages less yet, and least where they fade.
    jumps = [found[name]["jump"] for name in ("stitch", "AR, trajectory", "MD, uniform", "MD, triangular", "AR, context")]
    assert all(rough > 1.2 * smooth for rough, smooth in zip(jumps[:-2], jumps[1:-1], strict=True)), jumps
    truth = experiment.steps(experiment.covariance(2))[0]
    assert jumps[0] == pytest.approx(float(2.0 / truth), rel=0.02)
    # The context of a window says all that a window can know of the past: the seam is no seam.
    assert jumps[-2] > 1.05 and jumps[-1] == pytest.approx(1.0, abs=0.01)


def test_every_method_is_nearer_to_the_truth_than_stitching(found):
    stitched = found["stitch"]
    for name in ("AR, context", "AR, trajectory", "AR, both", "MD, uniform", "MD, triangular"):
        assert found[name]["distance"] < 0.6 * stitched["distance"], name
        assert found[name]["correlation"] > stitched["correlation"] + 0.05, name
    assert stitched["correlation"] == pytest.approx(0.0, abs=1e-3)
    assert found["AR, context"]["distance"] < 0.1 * found["MD, triangular"]["distance"]


def test_averages_lose_variance_and_context_does_not(found):
    assert found["AR, context"]["variance_min"] > 0.99
    assert found["MD, uniform"]["variance_min"] < found["MD, triangular"]["variance_min"] < 0.95


def test_the_script_runs(tmp_path, capsys):
    output = tmp_path / "extension.json"
    experiment.main(["--length", "16", "--window", "8", "--overlaps", "2", "--steps", "2", "--output", str(output)])
    assert json.loads(output.read_text())["overlap 2"].keys() == experiment.samplers(8, 2, 2).keys()
    assert "MD, triangular" in capsys.readouterr().out
