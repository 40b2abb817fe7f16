"""Averages of checkpoints."""

from pathlib import Path

import pytest
import torch
from small_checkpoints import make_checkpoint, make_state

from moviegen_core.errors import UsageError
from moviegen_core.weights import (
    average,
    averaging,
    load_checkpoint,
    load_state_dict,
    open_weights,
)


def private_mib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) // 1024


class TestAverage:
    @pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
    def test_uniform(self, tmp_path: Path, suffix: str) -> None:
        paths = [str(make_checkpoint(tmp_path / f"sft-{seed}.ckpt", seed)) for seed in range(3)]
        average(paths, str(tmp_path / f"mean{suffix}"))
        mean, states = load_state_dict(tmp_path / f"mean{suffix}"), [make_state(seed) for seed in range(3)]
        for name in ("backbone.weight", "backbone.half", "conditioners.text.projection.weight"):
            wanted = torch.stack([state[name].double() for state in states]).mean(0).to(states[0][name].dtype)
            torch.testing.assert_close(mean[name], wanted, rtol=0, atol=0 if wanted.dtype != torch.float64 else 1e-15)
        assert mean["backbone.steps"] == 0 and mean["autoencoder.flag"].tolist() == [True, False, True]

    def test_weighted_and_globbed(self, tmp_path: Path) -> None:
        for seed in range(2):
            make_checkpoint(tmp_path / f"sft-{seed}.ckpt", seed)
        average([str(tmp_path / "sft-*.ckpt")], str(tmp_path / "mean.safetensors"), weights=[3.0, 1.0])
        wanted = 0.75 * make_state(0)["backbone.weight"].double() + 0.25 * make_state(1)["backbone.weight"].double()
        torch.testing.assert_close(load_state_dict(tmp_path / "mean.safetensors")["backbone.weight"], wanted.float(), rtol=0, atol=0)

    def test_keeps_hyper_parameters_but_no_training_state(self, tmp_path: Path) -> None:
        for seed in range(2):
            make_checkpoint(tmp_path / f"{seed}.ckpt", seed, optimizer_states=[{}], callbacks={"x": {}}, loops={})
        average([str(tmp_path / "0.ckpt"), str(tmp_path / "1.ckpt")], str(tmp_path / "mean.ckpt"))
        content = load_checkpoint(tmp_path / "mean.ckpt")
        assert content["hyper_parameters"]["_class_path"] == "package.TinyModel"
        assert not {"optimizer_states", "callbacks", "loops"} & content.keys()

    @pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]])
    def test_bad_weights(self, tmp_path: Path, weights: list[float]) -> None:
        paths = [str(make_checkpoint(tmp_path / f"{seed}.ckpt", seed)) for seed in range(2)]
        with pytest.raises(UsageError, match="there are 2 checkpoints"):
            average(paths, str(tmp_path / "mean.ckpt"), weights=weights)

    def test_other_models_and_bad_outputs(self, tmp_path: Path) -> None:
        one, two = make_checkpoint(tmp_path / "1.ckpt"), tmp_path / "2.ckpt"
        torch.save(make_state() | {"backbone.weight": torch.zeros(9, 9)}, two)
        with pytest.raises(UsageError, match="1 differ in shape, e.g. 'backbone.weight'"):
            average([str(one), str(two)], str(tmp_path / "mean.ckpt"))
        torch.save({"other": torch.zeros(1)}, two)
        with pytest.raises(UsageError, match="6 tensors are only in the first, 1 only in the second"):
            average([str(one), str(two)], str(tmp_path / "mean.ckpt"))
        with pytest.raises(UsageError, match="give two or more"):
            average([str(one)], str(tmp_path / "mean.ckpt"))
        with pytest.raises(UsageError, match="one of the inputs"):
            average([str(one), str(one)], str(one))
        with pytest.raises(UsageError, match="formats are"):
            average([str(one), str(one)], str(tmp_path / "mean.bin"))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["1.ckpt", "2.ckpt"]

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc, which only Linux has")
    def test_memory_stays_at_a_few_tensors(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two checkpoints of 96 MiB in tensors of 1 MiB are averaged within 48 MiB of private memory."""
        state = {str(index): torch.full((2**18,), float(index)) for index in range(96)}
        torch.save(state, tmp_path / "1.ckpt")
        torch.save(state, tmp_path / "2.ckpt")
        start, most, averager = private_mib(), [0], averaging._averager

        def watched(*args: object) -> object:
            mean = averager(*args)

            def read(name: str) -> torch.Tensor:
                tensor = mean(name)
                most[0] = max(most[0], private_mib())
                return tensor

            return read

        monkeypatch.setattr(averaging, "_averager", watched)
        average([str(tmp_path / "1.ckpt"), str(tmp_path / "2.ckpt")], str(tmp_path / "mean.safetensors"))
        assert most[0] - start < 48
        assert open_weights(tmp_path / "mean.safetensors")["23"][5] == 23.0
