"""The small encoders that are trained along, and the words they see."""

import copy
import subprocess
import sys
import zlib
from collections.abc import Callable

import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch import LightningModule
from torch import nn

from moviegen_core.batch import MediaBatch
from moviegen_core.conditioner import Conditioner
from moviegen_core.errors import UsageError
from moviegen_core.plugins import plugin_host
from moviegen_core.testing import check_component_typed, check_conditioner
from moviegen_text import ByteConditioner, HashedWordConditioner
from moviegen_text.words import hash_word, split_words

SMALL = {"width_text": 16, "num_heads": 2}


def batch_of(*captions: str) -> MediaBatch:
    return MediaBatch(captions=list(captions), keys=[str(index) for index in range(len(captions))])


@pytest.fixture(params=[HashedWordConditioner, ByteConditioner])
def cls(request: pytest.FixtureRequest) -> type[Conditioner]:
    return request.param


def test_pooled_text_enters_the_modulation_whatever_the_padding(cls) -> None:
    torch.manual_seed(0)
    plain, pooled = cls(8, **SMALL), cls(8, **SMALL, pooled=True)
    assert plain(batch_of("a")).modulation is None
    assert not pooled(batch_of("a")).modulation.any(), "it starts as if it were not there"
    nn.init.normal_(pooled.pooled_projection.weight)
    alone, padded = pooled(batch_of("a red ball")), pooled(batch_of("a red ball", "a much longer caption about two blue rings"))
    torch.testing.assert_close(alone.modulation[0], padded.modulation[0])
    assert not torch.allclose(padded.modulation[0], padded.modulation[1])
    absent = pooled.null(batch_of("a red ball", "b"))
    torch.testing.assert_close(padded.drop(torch.tensor([True, False]), absent).modulation[0], pooled(batch_of("")).modulation[0])
    check_conditioner(lambda width: cls(width, **SMALL, pooled=True))


class TestWords:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", []),
            ("   ", []),
            ("A red ball.", ["A", "red", "ball", "."]),
            ('FPS-16 says "HI"', ["FPS", "-", "16", "says", '"', "HI", '"']),
            ("la pelotá niño", ["la", "pelotá", "niño"]),
            ("красный шар", ["красный", "шар"]),
            ("红色的球 ball2", ["红", "色", "的", "球", "ball2"]),
            ("🎈 up", ["🎈", "up"]),
        ],
    )
    def test_split(self, text: str, words: list[str]) -> None:
        assert split_words(text) == words

    def test_hash_is_the_same_in_every_process(self) -> None:
        code = "from moviegen_text.words import hash_word; print(hash_word('circle', 8192))"
        printed = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": "7"}
        ).stdout
        assert printed.strip() == str(hash_word("circle", 8192))
        assert hash_word("a", 8192) == tuple(zlib.crc32(feature) % 8192 for feature in (b"=a", b"<a>"))

    def test_case_differs_by_one_feature(self) -> None:
        lower, upper = set(hash_word("circle", 2**30)), set(hash_word("CIRCLE", 2**30))
        assert len(lower - upper) == 1 and len(upper - lower) == 1

    def test_stems_are_shared_and_words_are_not(self) -> None:
        assert len(set(hash_word("circles", 2**30)) & set(hash_word("circle", 2**30))) > 5
        assert not set(hash_word("red", 2**30)) & set(hash_word("blue", 2**30))


class TestConditioners:
    def test_author_checks(self, cls: type[Conditioner]) -> None:
        check_conditioner(lambda width: cls(width, **SMALL))
        check_component_typed(cls)

    def test_shapes_and_masks(self, cls: type[Conditioner]) -> None:
        told = cls(8, **SMALL)(batch_of("a red ball", "", "ball"))
        longest = 4 if cls is HashedWordConditioner else 11
        assert told.context.shape == (3, longest, 8)
        assert told.context_mask.sum(1).tolist() == ([4, 1, 2] if cls is HashedWordConditioner else [11, 1, 5])

    def test_a_sample_does_not_depend_on_its_neighbours(self, cls: type[Conditioner]) -> None:
        conditioner = cls(8, **SMALL)
        together, alone = conditioner(batch_of("a red ball", "one that is a good deal longer")), conditioner(batch_of("a red ball"))
        torch.testing.assert_close(together.context[0][together.context_mask[0]], alone.context[0])

    def test_order_matters(self, cls: type[Conditioner]) -> None:
        told = cls(8, **SMALL)(batch_of("red ball blue box", "blue ball red box"))
        assert not torch.allclose(told.context[0].sum(0), told.context[1].sum(0), atol=1e-3)

    def test_null_is_the_empty_prompt(self, cls: type[Conditioner]) -> None:
        conditioner = cls(8, **SMALL)
        null = conditioner.null(batch_of("a", "b"))
        torch.testing.assert_close(null.context, conditioner(batch_of("", "")).context)
        assert null.context_mask.shape == (2, 1) and null.context_mask.all()
        dropped = conditioner(batch_of("a red ball", "b")).drop(torch.tensor([True, False]), null)
        assert dropped.context_mask[0].sum() == 1

    def test_cut_prompts_are_told_once(self, cls: type[Conditioner]) -> None:
        limit = {HashedWordConditioner: "max_words", ByteConditioner: "max_bytes"}[cls]
        conditioner = cls(8, **SMALL, **{limit: 5})
        with pytest.warns(UserWarning, match="keeps the first 5"):
            assert conditioner(batch_of("one two three four five six")).context.shape[1] == 5
        conditioner(batch_of("one two three four five six"))
        with pytest.raises(UsageError, match="marks the start"):
            cls(8, **SMALL, **{limit: 1})

    @pytest.mark.parametrize("text", ["\x00", "\ud800", "a" * 200, "\n\t", "﷽" * 20])
    def test_odd_texts(self, cls: type[Conditioner], text: str) -> None:
        assert cls(8, **SMALL)(batch_of(text, "ball")).context.isfinite().all()

    def test_bfloat16_autocast(self, cls: type[Conditioner]) -> None:
        conditioner = cls(8, **SMALL)
        with torch.autocast("cpu", torch.bfloat16):
            told = conditioner(batch_of("a red ball", "a blue ball"))
        told.context.float().square().sum().backward()
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in conditioner.parameters())

    def test_state_round_trip(self, cls: type[Conditioner]) -> None:
        one, other = cls(8, **SMALL), cls(8, **SMALL)
        other.load_state_dict(copy.deepcopy(one.state_dict()))
        torch.testing.assert_close(one(batch_of("a red ball")).context, other(batch_of("a red ball")).context)


def test_learns_unseen_combinations() -> None:
    """Colour, shape and motion are read back from captions whose combination was never trained, after 60 small steps."""
    torch.manual_seed(0)
    factors = {
        "colour": ["red", "green", "blue", "yellow", "purple", "orange"],
        "shape": ["circle", "square", "triangle", "star", "cross"],
        "motion": ["moves left", "moves right", "moves up", "moves down", "bounces", "grows", "stays still"],
    }
    phrasings = [
        "a {colour} {shape} that {motion}",
        "{colour} {shape} {motion} on a plain ground",
        "the {shape} is {colour} and it {motion}",
    ]
    combinations = [(c, s, m) for c in range(6) for s in range(5) for m in range(7)]
    held_out = [one for one in combinations if sum(one) % 5 == 0]
    trained = [one for one in combinations if sum(one) % 5]
    conditioner = HashedWordConditioner(64, width_text=32, num_buckets=2048, num_layers=1)
    head = nn.Linear(64, 18)
    optimizer = torch.optim.AdamW([*conditioner.parameters(), *head.parameters()], lr=5e-3)

    def logits(chosen: list[tuple[int, int, int]], phrasing: str) -> list[torch.Tensor]:
        captions = [
            phrasing.format(**{name: words[index] for (name, words), index in zip(factors.items(), one, strict=True)}) for one in chosen
        ]
        told = conditioner(batch_of(*captions))
        mean = (told.context * told.context_mask[..., None]).sum(1) / told.context_mask.sum(1, keepdim=True)
        return list(head(mean).split([6, 5, 7], dim=1))

    for step in range(60):
        chosen = [trained[index] for index in torch.randint(len(trained), (32,)).tolist()]
        found = logits(chosen, phrasings[step % 3])
        loss = sum(nn.functional.cross_entropy(part, torch.tensor([one[i] for one in chosen])) for i, part in enumerate(found))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for phrasing in phrasings:
            for index, part in enumerate(logits(held_out, phrasing)):
                right = part.argmax(1) == torch.tensor([one[index] for one in held_out])
                assert right.float().mean() > 0.97, (phrasing, index)


class TestPlugin:
    def test_components_resolve_by_name(self) -> None:
        import moviegen_text

        plugin_host()
        offered = list(moviegen_text.moviegen_components())
        assert {component.class_path.rpartition(".")[2] for component in offered} >= {"T5Conditioner", "HashedWordConditioner"}
        for component in offered:
            offers = getattr(moviegen_text, component.class_path.rpartition(".")[2])
            assert issubclass(offers, Conditioner if component.kind == "conditioner" else LightningModule)
        with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
            moviegen_text.Nothing  # noqa: B018

    def test_importing_the_plugin_imports_no_torch(self) -> None:
        code = "import sys, moviegen_text, moviegen_core.prompts; print('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "False"

    def test_factories_from_yaml(self) -> None:
        """The way a model takes its conditioners: by class, with the width left open."""
        plugin_host()
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--conditioners", type=dict[str, Callable[[int], Conditioner]])
        words = {"class_path": "moviegen_text.HashedWordConditioner", "init_args": {"width_text": 16, "num_heads": 2}}
        ul2 = {
            "class_path": "moviegen_text.T5Conditioner",
            "init_args": {"pretrained": "google/ul2", "max_tokens": 64, "dtype": "bfloat16"},
        }
        config = parser.parse_object({"conditioners": {"prompt": words, "ul2": ul2}})
        factory = parser.instantiate(config).conditioners["prompt"]
        assert factory(24)(batch_of("a red ball")).context.shape[-1] == 24
        wrong = {"class_path": "moviegen_text.T5Conditioner", "init_args": {"pretrained": "x", "dtype": "float12"}}
        with pytest.raises(ArgumentError, match="float12"):
            parser.parse_object({"conditioners": {"ul2": wrong}})
