"""`moviegen plan`: the paper's own plan, what is refused, and that what it prints can be run."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from moviegen_hello import HelloBackbone

from moviegen_core.cli import main
from moviegen_core.errors import UsageError
from moviegen_core.parallel.planner.checking import check_memory, check_run
from moviegen_core.parallel.planner.configuration import configuration, to_yaml
from moviegen_core.parallel.planner.devices import DEVICES, find_device
from moviegen_core.parallel.planner.layout import Layout
from moviegen_core.parallel.planner.memory import GIB, estimate_memory
from moviegen_core.parallel.planner.parameters import Unit, read_parameters
from moviegen_core.parallel.planner.search import search
from moviegen_core.parallel.planner.step_time import estimate_time, utilisation
from moviegen_core.parallel.planner.workload import read_workload
from moviegen_core.presets import compose
from moviegen_core.sizes import build_model
from moviegen_data.toyworld.dataset import ToyWorldData
from moviegen_t2v.model import VideoTransformer

PAPER = "t2v/paper_t2iv_768_3"  # TP 4, CP 2, 6144 GPUs, 768 samples
H100 = find_device("h100-80gb")


@pytest.fixture(scope="module")
def paper():
    return read_workload(PAPER)


@pytest.fixture(scope="module")
def found(paper):
    return search(paper, H100, num_gpus=6144, global_batch=768)


def memory(workload, layout):
    return estimate_memory(workload.parameters(layout.tensor), workload.footprint(layout), layout, frozen=workload.frozen)


def time(workload, layout, device=H100):
    return estimate_time(workload.num_flops, workload.parameters(layout.tensor), workload.footprint(layout), layout, device)


def test_the_workload_is_the_papers(paper):
    assert paper.num_tokens == 73_728
    assert paper.latent_shape == (16, 32, 96, 96)
    assert paper.global_batch == 768
    assert paper.context_length == 768


def test_the_papers_plan_fits_and_the_unsharded_one_does_not(paper, found):
    fitting = {(plan.layout.data, plan.layout.context, plan.layout.tensor) for plan in found.fitting}
    assert (768, 2, 4) in fitting
    assert memory(paper, Layout(1, 1, 1, "block")).total > 5 * 80 * GIB, "29 B parameters with gradients and two moments in fp32"
    assert memory(paper, Layout(6144, 1, 1, "none")).total > 10 * 80 * GIB, "FSDP alone does not cut activations"
    assert (768, 2, 4, "none") in {
        (plan.layout.data, plan.layout.context, plan.layout.tensor, plan.layout.checkpointing) for plan in found.too_large
    }


def test_every_plan_uses_all_gpus_and_the_whole_batch(found):
    assert len(found.fitting) > 10
    for plan in (*found.fitting, *found.too_large):
        assert plan.layout.num_gpus == 6144 and plan.layout.global_batch == 768
    assert all(plan.memory.total <= found.room for plan in found.fitting)
    assert all(plan.memory.total > found.room for plan in found.too_large)
    times = [plan.time.total for plan in found.fitting]
    assert times[0] <= min(times) * 1.01


@pytest.mark.parametrize("row", ["paper_t2i_256", "paper_t2iv_256", "paper_t2iv_768", "paper_t2iv_768_3", "paper_sft"])
def test_rows_of_table_3_fit_as_they_are_shipped(row):
    workload, config = read_workload(f"t2v/{row}"), compose([f"t2v/{row}"])
    mesh, trainer = config["trainer"]["strategy"]["init_args"], config["trainer"]
    backbone = config["model"]["init_args"]["backbone"]["init_args"]
    layout = Layout(
        mesh["data_parallel_size"],
        mesh["context_parallel_size"],
        mesh["tensor_parallel_size"],
        backbone["activation_checkpointing"],
        backbone.get("kept_activations", 0.5),
        micro_batch=config["data"]["init_args"]["batch_size"],
    )
    assert layout.num_gpus == trainer["devices"] * trainer["num_nodes"]
    assert memory(workload, layout).total < 0.9 * 80 * GIB, "8 GiB are left for text encoders"


# Table 3, top to bottom: TP, CP, GPUs, global batch, learning rate, iterations.
TABLE_3 = {
    "paper_t2i_256": (1, 1, 1536, 9216, 1e-4, 210_000),
    "paper_t2iv_256": (4, 1, 3072, 1536, 6e-5, 123_000),
    "paper_t2iv_256_2": (4, 1, 6144, 3072, 6e-5, 72_000),
    "paper_t2iv_768": (4, 1, 6144, 1536, 6e-5, 19_600),
    "paper_t2iv_768_2": (4, 1, 6144, 1536, 3e-5, 11_000),
    "paper_t2iv_768_3": (4, 2, 6144, 768, 2e-5, 15_900),
    "paper_t2iv_768_4": (4, 2, 4096, 512, 1e-5, 28_000),
}


@pytest.mark.parametrize("row", TABLE_3)
def test_presets_say_what_table_3_says(row):
    config = compose([f"t2v/{row}"])
    trainer, mesh = config["trainer"], config["trainer"]["strategy"]["init_args"]
    gpus = trainer["devices"] * trainer["num_nodes"]
    batch = mesh["data_parallel_size"] * config["data"]["init_args"]["batch_size"]
    rate = config["model"]["init_args"]["optimizer"]["init_args"]["lr"]
    found = (mesh["tensor_parallel_size"], mesh["context_parallel_size"], gpus, batch, rate, trainer["max_steps"])
    assert found == TABLE_3[row]
    assert mesh["data_parallel_size"] * found[0] * found[1] == gpus


def test_memory_and_time_move_as_they_should(paper):
    base = Layout(768, 2, 4, "selective", 0.5)
    more, less = Layout(768, 2, 4, "selective", 1.0), Layout(768, 2, 4, "block")
    assert memory(paper, less).total < memory(paper, base).total < memory(paper, more).total
    assert time(paper, less).again > time(paper, base).again > time(paper, more).again == pytest.approx(0, abs=1e-9)
    assert memory(paper, Layout(8, 2, 4, "block")).parameters == pytest.approx((29.0e9 / 4 + 0.35e9) * 4 / 16, rel=0.01)
    assert time(paper, base, find_device("a100-80gb")).total > 2 * time(paper, base).total
    twice = Layout(768, 2, 4, "selective", 0.5, accumulate=2)
    assert time(paper, twice).products == pytest.approx(2 * time(paper, base).products)
    assert 0.3 < utilisation(paper.num_flops, base, H100, time(paper, base).total) < 0.65, "public trainings reach 45 to 52 %"
    within, across = Layout(8, 2, 4, "block"), Layout(4, 4, 4, "block")
    assert time(paper, across).context > 2 * time(paper, within).context, "the network between nodes is slower than links within"


def test_uneven_shards_are_padded():
    unit = Unit(((6, 4), (5,), ()))
    assert unit.kept(4) == 2 * 4 + 2 + 1
    assert unit.gathered(4) == 4 * unit.kept(4)


def test_table_of_devices_is_plausible():
    for name, device in DEVICES.items():
        assert device.source and device.network_gb_s < device.link_gb_s < device.memory_gb_s, name
        assert device.fp32_tflops < device.bf16_tflops, name


# -- the command ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [Layout(768, 2, 4, "selective", 0.5), Layout(2, 1, 1, "none", precision="fp32", accumulate=3)], ids=str)
def test_the_configuration_parses_as_a_later_config(layout, tmp_path, capsys):
    path = tmp_path / "plan.yaml"
    path.write_text(to_yaml(layout, H100, title="a plan"))
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", PAPER, "--config", str(path), "--print_config"])
    assert not stop.value.code
    printed = yaml.safe_load(capsys.readouterr().out)
    strategy = printed["trainer"]["strategy"]
    assert strategy["class_path"].endswith("MeshStrategy")
    assert strategy["init_args"] | configuration(layout, H100)["trainer"]["strategy"]["init_args"] == strategy["init_args"]
    assert printed["trainer"]["accumulate_grad_batches"] == layout.accumulate
    assert printed["data"]["init_args"]["batch_size"] == layout.micro_batch
    assert printed["model"]["init_args"]["backbone"]["init_args"]["activation_checkpointing"] == layout.checkpointing


def test_prints_a_table_reasons_and_yaml(capsys):
    main(["plan", "t2v/1b", "--gpus", "8", "--global-batch", "64", "--top", "3"])
    out = capsys.readouterr().out
    text, _, config = out.partition("\n# t2v/1b on 8 h100-80gb, 64 samples per step\n")
    for word in ("why:", "runner-up", "dropped:", "4,096 tokens", "14 attention heads", "note:"):
        assert word in text
    trainer = yaml.safe_load(config)["trainer"]
    assert trainer["devices"] == 8 and trainer["num_nodes"] == 1


def test_writes_yaml(tmp_path, capsys):
    path = tmp_path / "plan.yaml"
    main(["plan", "t2v/1b", "--gpus", "4", "--global-batch", "4", "-o", str(path)])
    assert f"--config {path}" in capsys.readouterr().out
    assert yaml.safe_load(path.read_text())["trainer"]["devices"] == 4


def test_prints_json(capsys):
    main(["plan", "t2v/1b", "--gpus", "16", "--json"])
    found = json.loads(capsys.readouterr().out)
    best = found["plans"][0]
    assert best["memory_bytes"]["total"] == sum(size for name, size in best["memory_bytes"].items() if name != "total")
    assert best["layout"]["data"] * best["layout"]["context"] * best["layout"]["tensor"] == 16


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--gpus", "8", "--gpu", "h100"], "h100-80gb"),
        (["--gpus", "12"], "multiple"),
        (["--gpus", "0"], "--gpus 0"),
        (["--gpus", "8", "--headroom", "1"], "--headroom"),
        (["--gpus", "8", "--global-batch", "0"], "--global_batch 0"),
        (["--gpus", "1", "--gpu", "rtx4090-24gb", "--global-batch", "1"], "nothing fits"),
    ],
)
def test_bad_input_is_told(args, told, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["plan", "t2v/paper_t2iv_256", *args])
    assert stop.value.code == 2
    assert told in capsys.readouterr().err


def test_a_preset_without_a_backbone_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["plan", "tae/paper", "--gpus", "8"])
    assert "no backbone" in capsys.readouterr().err


def test_a_backbone_that_does_not_say_what_it_keeps_is_refused(hello, tmp_path, capsys):
    config = compose(["t2v/debug"])
    config["model"]["init_args"]["backbone"] = {"class_path": "HelloBackbone"}
    path = tmp_path / "hello.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit):
        main(["plan", str(path), "--gpus", "8", "--global-batch", "8"])
    assert "HelloBackbone" in (err := capsys.readouterr().err) and "footprint" in err


def test_help_imports_no_torch():
    code = """
import sys
from moviegen_core.cli import main
try:
    main(["plan", "--help"])
except SystemExit:
    assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)


# -- before a run -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    with torch.device("meta"):
        return VideoTransformer(num_layers=4, width=256, ffn_width=512, num_heads=4, max_frames=8, max_height=32, max_width=32)


def check(backbone, memory_bytes, **options):
    check_memory(backbone, Layout(), latent_shape=(16, 8, 64, 64), context_length=32, memory_bytes=memory_bytes, on_gpu=False, **options)


def test_a_run_that_fits_passes_in_silence(small, recwarn):
    check(small, 64 * GIB)
    assert not recwarn.list


def test_a_run_that_cannot_fit_is_refused(small):
    with pytest.raises(UsageError, match="needs about") as refused:
        check(small, GIB // 4)
    assert "activation_checkpointing" in refused.value.advice
    with pytest.raises(UsageError, match="precompute"):
        check(small, 8 * GIB, frozen_bytes=20 * GIB)


def test_a_close_run_is_warned_of(small):
    layout = Layout()
    footprint = small.footprint((16, 8, 64, 64), 32)
    needed = estimate_memory(read_parameters(small), footprint, layout).tensors
    with pytest.warns(UserWarning, match="may run out of memory"):
        check(small, int(needed / 1.02))


def test_a_backbone_that_says_nothing_is_let_pass():
    check_memory(HelloBackbone(), Layout(), latent_shape=(4, 2, 4, 4), context_length=0, memory_bytes=1)


def data_of(size):
    """Clips of one size."""
    return SimpleNamespace(num_frames=16, height=size, width=size)


def debug_run(**changes):
    """The smallest text-to-video model with its backbone on the meta device, and what its trainer would say of the run."""
    model = build_model(compose(["t2v/debug"]))
    with torch.device("meta"):
        model.backbone = model.factories[0]()
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.state.fn = TrainerFn.FITTING
    told = {"strategy": trainer.strategy, "state": trainer.state, "precision": trainer.precision, "num_devices": 1}
    data = SimpleNamespace(batch_size=4, num_frames=16, height=16, width=16)
    return model, SimpleNamespace(**told | {"accumulate_grad_batches": 1, "datamodule": data} | changes)


def test_a_trainers_run_is_checked_before_its_weights_exist(monkeypatch):
    check_run(*debug_run())
    monkeypatch.setattr("moviegen_core.parallel.planner.checking._memory_of", lambda device: 1000)
    with pytest.raises(UsageError, match="micro-batch 4"):
        check_run(*debug_run())
    with pytest.warns(UserWarning, match="may run out"):
        check_run(*debug_run(datamodule=SimpleNamespace(batch_size=4)))  # of unknown size
    with pytest.warns(UserWarning, match="may run out"):
        check_run(*debug_run(datamodule=SimpleNamespace(batch_size=4, latents=True, buckets=[data_of(256)])))
    with pytest.raises(UsageError, match="micro-batch 4"):
        check_run(*debug_run(datamodule=SimpleNamespace(batch_size=4, buckets=[data_of(16), data_of(32)])))
    check_run(*debug_run(strategy=SimpleNamespace(root_device=torch.device("cpu"), cpu_offload=True)))
    check_run(*debug_run(precision="64-true"))  # not known to the planner
    check_run(*debug_run(state=SimpleNamespace(fn="predict")))


def test_a_refusal_reaches_the_user_from_a_real_training(monkeypatch):
    model = build_model(compose(["t2v/debug"]))
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, max_steps=1)
    monkeypatch.setattr("moviegen_core.parallel.planner.checking._memory_of", lambda device: 1000)
    data = ToyWorldData(num_frames=16, height=16, width=16, fps=8.0, batch_size=2, num_train=4)
    with pytest.raises(UsageError, match="micro-batch 2 was given"):
        trainer.fit(model, data)
    assert model.backbone is None  # nothing half-built is left
