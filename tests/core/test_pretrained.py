"""What calls a `from_pretrained`: folders, names on the hub, and weights that are absent. Loaders of the library itself: tests/text."""

import pytest
import torch
from torch import nn

from moviegen_core.errors import UsageError
from moviegen_core.pretrained import load_frozen, load_pretrained


def network(missing=()):
    def load(path, **options):
        assert options.pop("output_loading_info")
        return nn.Linear(2, 2, dtype=options["dtype"]), {"missing_keys": set(missing)}

    return load


def test_folders_are_read_without_the_network_and_names_with_it(tmp_path):
    asked = []

    def load(path, **options):
        asked.append((path, options))
        return "it"

    assert load_pretrained(load, str(tmp_path), what="It", x=1) == "it"
    assert load_pretrained(load, "owner/name", what="It") == "it"
    assert asked == [(str(tmp_path), {"local_files_only": True, "x": 1}), ("owner/name", {"local_files_only": False})]


@pytest.mark.parametrize("path", ["owner/name", "./absent", "~/absent-model"])
def test_who_takes_no_names_on_the_hub_asks_nobody(path):
    with pytest.raises(UsageError, match=f"{path} was given for It; there is no such folder.*give a model of ours"):
        load_pretrained(pytest.fail, path, what="It", wanted="a model of ours", hub=False)


@pytest.mark.parametrize("error", [OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError])
def test_what_a_loader_raises_is_told_with_what_the_folder_holds(tmp_path, error):
    (tmp_path / "notes.txt").write_text("x")

    def load(path, **options):
        raise error("\n  it is broken\nat length")

    with pytest.raises(UsageError, match=r"the folder holds notes.txt \(.*it is broken"):
        load_pretrained(load, str(tmp_path), what="It")


def test_a_network_is_frozen_and_has_all_its_weights(tmp_path):
    with torch.inference_mode(), torch.device("meta"):
        made = load_frozen(network(), str(tmp_path), what="It", dtype="bfloat16")
    assert made.weight.dtype is torch.bfloat16 and not made.weight.is_meta and not made.weight.is_inference()
    assert not made.training and not any(weight.requires_grad for weight in made.parameters())
    with pytest.raises(UsageError, match="lack 2 weights of Linear, e.g. 'a'; they would start at random"):
        load_frozen(network(missing=("b", "a")), str(tmp_path), what="It", dtype="float32")
