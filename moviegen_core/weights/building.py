"""Build a model from its checkpoint alone."""

from pathlib import Path
from typing import TYPE_CHECKING

from moviegen_core.errors import UsageError
from moviegen_core.weights.loading import load_into
from moviegen_core.weights.reading import open_weights

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule


def build_from_checkpoint(path: str | Path) -> "LightningModule":
    """Build the model a checkpoint belongs to and load its weights (the averaged ones where there are any); in evaluation mode.

    Args:
        path: a checkpoint of a run started by `moviegen fit`, which holds the model's configuration.

    Raises:
        UsageError: the file holds no configuration, or is no checkpoint.
    """
    from jsonargparse import ArgumentParser
    from lightning.pytorch import LightningModule  # takes seconds, which whoever only reads weights need not wait

    file = open_weights(path)
    init_args = dict(file.metadata.get("hyper_parameters") or {})
    class_path = init_args.pop("_class_path", None)
    init_args.pop("_instantiator", None)
    if class_path is None:
        raise UsageError(
            f"{path} was given to build a model from",
            "it holds weights, but not the configuration of their model",
            "give a checkpoint that `moviegen fit` wrote, or build the model from its YAML and load the weights into it",
        )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model")
    model = parser.instantiate(parser.parse_object({"model": {"class_path": class_path, "init_args": init_args}})).model
    model.configure_model()
    load_into(model, file, source=path)
    return model.eval()
