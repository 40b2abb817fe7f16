"""A plan as YAML for the trainer, to be given as a later `--config`. Imports no torch."""

from typing import Any

import yaml

from moviegen_core.parallel.planner.devices import Device
from moviegen_core.parallel.planner.layout import Layout


def configuration(layout: Layout, device: Device) -> dict[str, Any]:
    """The settings of a plan, in the sections of a preset."""
    strategy: dict[str, Any] = {
        "data_parallel_size": layout.data,
        "context_parallel_size": layout.context,
        "tensor_parallel_size": layout.tensor,
        "reshard_after_forward": True,
    }
    if layout.precision == "bf16":
        strategy |= {"param_dtype": "bfloat16", "reduce_dtype": "float32"}
    backbone: dict[str, Any] = {"activation_checkpointing": layout.checkpointing}
    if layout.checkpointing == "selective":
        backbone["kept_activations"] = layout.kept_activations
    devices = min(layout.num_gpus, device.gpus_per_node)
    return {
        "model": {"init_args": {"backbone": {"init_args": backbone}}},
        "data": {"init_args": {"batch_size": layout.micro_batch}},
        "trainer": {
            "accelerator": "gpu",
            "devices": devices,
            "num_nodes": layout.num_gpus // devices,
            "accumulate_grad_batches": layout.accumulate,
            "precision": "32-true",  # FSDP casts to param_dtype; autocast on top would keep norms in fp32 and cast twice
            "strategy": {"class_path": "MeshStrategy", "init_args": strategy},
        },
    }


def to_yaml(layout: Layout, device: Device, *, title: str) -> str:
    """The settings as a file whose first line says what it is."""
    return f"# {title}\n" + yaml.safe_dump(configuration(layout, device), sort_keys=False)
