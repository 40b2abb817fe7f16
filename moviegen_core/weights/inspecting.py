"""What a checkpoint holds, without loading it."""

import json as json_format
from pathlib import Path
from typing import Any

from moviegen_core.weights.reading import WeightsFile, open_weights
from moviegen_core.weights.versions import lasting_metadata


def describe(path: str | Path) -> dict[str, Any]:
    """Describe a checkpoint: its tensors, counts by component, and the metadata that can be told in JSON."""
    file = open_weights(path)
    return {
        "path": str(path),
        "kind": type(file).__name__.removesuffix("Weights").lower(),
        "num_tensors": len(file),
        "num_parameters": sum(info.num_elements for info in file.infos.values()),
        "num_bytes": sum(info.num_bytes for info in file.infos.values()),
        "components": components(file),
        "metadata": _tellable(lasting_metadata(file)),
        "tensors": {
            name: {"shape": list(info.shape), "dtype": str(info.dtype).removeprefix("torch.")} for name, info in file.infos.items()
        },
    }


def inspect(path: str, *, json: bool = False) -> None:
    """Print what a checkpoint holds: names, shapes, types, counts by component, metadata.

    Args:
        path: a checkpoint file or folder, safetensors included.
        json: print it as JSON.
    """
    told = describe(path)
    if json:
        print(json_format.dumps(told, indent=2))
        return
    print(
        f"{told['path']} ({told['kind']}): {told['num_tensors']} tensors, {told['num_parameters']:,} numbers, {told['num_bytes']:,} bytes"
    )
    for name, count in told["components"].items():
        print(f"  {name:<40} {count:>16,}")
    if told["metadata"]:
        print("metadata: " + json_format.dumps(told["metadata"])[:2000])
    for name, tensor in told["tensors"].items():
        print(f"  {name:<80} {tensor['dtype']:<10} {'x'.join(map(str, tensor['shape'])) or 'scalar'}")


def components(file: WeightsFile) -> dict[str, int]:
    """Numbers in each component: the first part of a name, the first two for conditioners, which have names of their own."""
    counts: dict[str, int] = {}
    for name, info in file.infos.items():
        component = component_of(name)
        counts[component] = counts.get(component, 0) + info.num_elements
    return counts


def component_of(name: str) -> str:
    """The component that a tensor belongs to."""
    parts = name.split(".")
    return ".".join(parts[: 2 if parts[0] == "conditioners" and len(parts) > 2 else 1])


def _tellable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _tellable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_tellable(item) for item in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else f"<{type(value).__name__}>"
