"""Conditioners over pretrained encoders, against transformers' own outputs with the same weights."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, CLIPModel, CLIPTextModel, T5EncoderModel, UMT5EncoderModel

import moviegen_text.encoded
from moviegen_core.batch import MediaBatch, TextEmbedding
from moviegen_core.errors import UsageError
from moviegen_core.testing import check_component_typed, check_conditioner
from moviegen_text import ByT5Conditioner, MetaClipConditioner, T5Conditioner, extend_positions

CAPTIONS = ["FPS-16 a red ball", 'a sign that says "OPEN" and “HI”', ""]
BATCH = MediaBatch(captions=CAPTIONS, keys=["0", "1", "2"])
LONG = " ".join(["red ball"] * 60)


def reference(model: torch.nn.Module, path: Path, texts: list[str], **options: object) -> tuple[torch.Tensor, torch.Tensor]:
    found = AutoTokenizer.from_pretrained(path)(texts, padding=True, return_tensors="pt", **options)
    with torch.no_grad():
        hidden = model.eval()(input_ids=found["input_ids"], attention_mask=found["attention_mask"]).last_hidden_state
    return hidden, found["attention_mask"].bool()


@pytest.fixture(params=["t5", "byt5", "clip"])
def factory(request: pytest.FixtureRequest) -> object:
    path = request.getfixturevalue(request.param)
    cls = {"t5": T5Conditioner, "byt5": ByT5Conditioner, "clip": MetaClipConditioner}[request.param]
    return lambda width=8, **options: cls(width, pretrained=str(path), **options)


class TestParity:
    @pytest.mark.parametrize(("name", "model"), [("t5", T5EncoderModel), ("umt5", UMT5EncoderModel)])
    def test_t5(self, name: str, model: type, request: pytest.FixtureRequest) -> None:
        path = request.getfixturevalue(name)
        conditioner = T5Conditioner(8, pretrained=str(path))
        hidden, mask = reference(model.from_pretrained(path), path, CAPTIONS)
        embedding = conditioner.embed(CAPTIONS)
        torch.testing.assert_close(embedding.tokens, hidden, rtol=0, atol=0)
        assert torch.equal(embedding.mask, mask) and mask.sum(1).tolist() == [7, 12, 1]
        told = conditioner(BATCH)
        torch.testing.assert_close(told.context, conditioner.projection(hidden))
        assert torch.equal(told.context_mask, mask)

    def test_byt5_sees_the_quoted_text_only(self, byt5: Path) -> None:
        conditioner = ByT5Conditioner(8, pretrained=str(byt5))
        hidden, mask = reference(T5EncoderModel.from_pretrained(byt5), byt5, ["", "OPEN\nHI", ""])
        embedding = conditioner.embed_batch(BATCH)
        torch.testing.assert_close(embedding.tokens, hidden, rtol=0, atol=0)
        assert mask.sum(1).tolist() == [1, 8, 1] and torch.equal(embedding.mask, mask)
        other = conditioner(MediaBatch(captions=['xyz "OPEN" or “HI”'], keys=["0"]))
        torch.testing.assert_close(other.context[0], conditioner(BATCH).context[1])

    def test_without_quotes_is_the_null_version(self, byt5: Path) -> None:
        conditioner, batch = (
            ByT5Conditioner(8, pretrained=str(byt5)),
            MediaBatch(captions=["it's a ball", "the dogs' 27\" screen"], keys=["0", "1"]),
        )
        given, null = conditioner(batch), conditioner.null(batch)
        assert given.context.shape == (2, 1, 8) and given.context_mask.all()
        torch.testing.assert_close(given.context, null.context)

    @pytest.mark.parametrize("name", ["clip", "whole_clip"])
    def test_clip_of_the_old_length(self, name: str, request: pytest.FixtureRequest) -> None:
        path = request.getfixturevalue(name)
        model = CLIPTextModel.from_pretrained(path) if name == "clip" else CLIPModel.from_pretrained(path).text_model
        hidden, mask = reference(model, path, CAPTIONS)
        embedding = MetaClipConditioner(8, pretrained=str(path), max_tokens=77).embed(CAPTIONS)
        torch.testing.assert_close(embedding.tokens, hidden, rtol=0, atol=0)
        assert torch.equal(embedding.mask, mask)

    def test_a_sample_does_not_depend_on_its_neighbours(self, factory: object) -> None:
        conditioner = factory()
        together = conditioner(MediaBatch(captions=['a red "ball"', 'a much longer "prompt than the other one is"'], keys=["0", "1"]))
        alone = conditioner(MediaBatch(captions=['a red "ball"'], keys=["0"]))
        torch.testing.assert_close(together.context[:1][together.context_mask[:1]], alone.context[alone.context_mask], atol=1e-5, rtol=1e-5)

    def test_fixed_shapes(self, factory: object) -> None:
        short, long = factory(), factory(pad_to_max=True, max_tokens=40)
        one, other = short.embed_batch(BATCH), long.embed_batch(BATCH)
        assert other.tokens.shape == (3, 40, 16)
        torch.testing.assert_close(one.tokens[one.mask], other.tokens[other.mask], atol=1e-5, rtol=1e-5)
        assert long.null(BATCH).context.shape == (3, 40, 8)


class TestLongPrompts:
    def test_prompts_of_the_old_length_are_kept(self, clip: Path) -> None:
        hidden, _ = reference(CLIPTextModel.from_pretrained(clip), clip, ["red ball " * 35])
        assert hidden.shape[1] == 72
        embedding = MetaClipConditioner(8, pretrained=str(clip)).embed(["red ball " * 35])
        torch.testing.assert_close(embedding.tokens, hidden, atol=1e-6, rtol=1e-6)

    def test_longer_prompts_are_encoded_whole(self, clip: Path) -> None:
        embedding = MetaClipConditioner(8, pretrained=str(clip)).embed([LONG, "red"])
        assert embedding.tokens.shape == (2, 122, 16) and embedding.mask.sum(1).tolist() == [122, 3]
        assert embedding.tokens[0].isfinite().all()

    def test_keep(self) -> None:
        table = torch.randn(77, 4)
        extended = extend_positions(table, 256)
        assert extended.shape == (256, 4)
        torch.testing.assert_close(extended[:77], table, rtol=0, atol=0)
        torch.testing.assert_close(extended[77], table[20])
        torch.testing.assert_close(extended[-1], table[-1])

    def test_stretch(self) -> None:
        line = torch.arange(77.0)[:, None]
        extended = extend_positions(line, 20 + 4 * 56 + 1, extension="stretch")
        torch.testing.assert_close(extended[:20], line[:20], rtol=0, atol=0)
        torch.testing.assert_close(extended[20:, 0], torch.linspace(20, 76, 4 * 56 + 1))

    def test_long_enough_already(self) -> None:
        table = torch.randn(77, 4)
        assert extend_positions(table, 77) is table and extend_positions(table, 30) is table

    def test_a_cut_prompt_is_told_once(self, clip: Path) -> None:
        conditioner = MetaClipConditioner(8, pretrained=str(clip), max_tokens=77)
        with pytest.warns(UserWarning, match="has 122 tokens; MetaClipConditioner keeps the first 77"):
            conditioner.embed([LONG])
        assert conditioner.embed([LONG]).tokens.shape[1] == 77


class TestTraining:
    def test_the_frozen_encoder_is_nowhere(self, factory: object) -> None:
        conditioner = factory()
        conditioner(BATCH).context.sum().backward()
        names = {"projection.linear.weight", "projection.linear.bias", "projection.norm.weight", "projection.norm.bias"}
        assert set(conditioner.state_dict()) == names == {name for name, _ in conditioner.named_parameters()}
        assert not conditioner.train().network.training
        assert not any(parameter.requires_grad for parameter in conditioner.network.parameters())
        assert copy.deepcopy(conditioner).network is conditioner.network
        assert not pickle.loads(pickle.dumps(conditioner))._frozen.is_loaded

    def test_loads_late(self, factory: object) -> None:
        conditioner = factory()
        assert not conditioner._frozen.is_loaded
        conditioner(BATCH)
        assert conditioner._frozen.is_loaded

    def test_what_positions_and_biases_are(self, clip: Path) -> None:
        conditioner = MetaClipConditioner(8, pretrained=str(clip), trainable="positions_and_biases")
        trained = {name for name, parameter in conditioner.encoder.named_parameters() if parameter.requires_grad}
        everything = {name for name, _ in conditioner.encoder.named_parameters()}
        assert trained == {name for name in everything if name.endswith("bias") or name.endswith("position_embedding.weight")}
        conditioner(MediaBatch(captions=[LONG], keys=["0"])).context.square().sum().backward()
        weights = dict(conditioner.encoder.network.named_parameters())
        assert weights["embeddings.position_embedding.weight"].grad[100].any() and weights["final_layer_norm.bias"].grad.any()
        assert weights["embeddings.token_embedding.weight"].grad is None

    def test_trained_and_frozen_start_equal(self, clip: Path) -> None:
        frozen = MetaClipConditioner(8, pretrained=str(clip))
        trained = MetaClipConditioner(8, pretrained=str(clip), trainable="all")
        torch.testing.assert_close(trained.embed(CAPTIONS).tokens, frozen.embed(CAPTIONS).tokens, rtol=0, atol=0)
        assert all(parameter.requires_grad for parameter in trained.parameters())

    def test_trained_on_the_meta_device(self, clip: Path) -> None:
        real = MetaClipConditioner(8, pretrained=str(clip), trainable="positions_and_biases")
        with torch.device("meta"):
            late = MetaClipConditioner(8, pretrained=str(clip), trainable="positions_and_biases")
        assert all(parameter.is_meta for parameter in late.parameters())
        late.to_empty(device="cpu")
        for module in late.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        torch.testing.assert_close(late.embed([LONG]).tokens, real.embed([LONG]).tokens, rtol=0, atol=0)
        assert [p.requires_grad for p in late.parameters()] == [p.requires_grad for p in real.parameters()]

    def test_first_used_in_inference_mode(self, factory: object) -> None:
        conditioner = factory()
        with torch.inference_mode():
            conditioner(BATCH), conditioner.null(BATCH)
        (conditioner(BATCH).context.sum() + conditioner.null(BATCH).context.sum()).backward()
        assert conditioner.projection.linear.weight.grad.any()

    def test_half_precision(self, t5: Path) -> None:
        conditioner = T5Conditioner(8, pretrained=str(t5), dtype="bfloat16")
        assert conditioner.embed(CAPTIONS).tokens.dtype is torch.bfloat16
        assert conditioner(BATCH).context.dtype is torch.float32

    def test_author_checks(self, factory: object, clip: Path) -> None:
        check_conditioner(lambda width: factory(width), meta=True)
        check_conditioner(lambda width: MetaClipConditioner(width, pretrained=str(clip), trainable="positions_and_biases"))

    @pytest.mark.parametrize("cls", [T5Conditioner, ByT5Conditioner, MetaClipConditioner])
    def test_typed(self, cls: type) -> None:
        check_component_typed(cls)


class TestNull:
    def test_is_the_empty_prompt(self, factory: object) -> None:
        conditioner = factory()
        null = conditioner.null(BATCH)
        empty = conditioner(MediaBatch(captions=[""], keys=["0"]))
        torch.testing.assert_close(null.context, empty.context.expand(3, -1, -1))
        assert null.context_mask.shape == null.context.shape[:2] and null.context_mask.any(1).all()

    def test_is_computed_once(self, factory: object, monkeypatch: pytest.MonkeyPatch) -> None:
        conditioner = factory()
        conditioner.null(BATCH)
        monkeypatch.setattr(conditioner, "_encode", lambda texts: pytest.fail("the frozen encoder ran again"))
        conditioner.null(BATCH)

    def test_follows_a_trained_encoder(self, clip: Path) -> None:
        conditioner = MetaClipConditioner(8, pretrained=str(clip), trainable="all")
        before = conditioner.null(BATCH).context
        with torch.no_grad():
            conditioner.encoder.network.final_layer_norm.bias += torch.linspace(0, 1, 16)
        assert not torch.allclose(before, conditioner.null(BATCH).context)

    def test_drops_samples(self, factory: object) -> None:
        conditioner = factory()
        null = conditioner.null(BATCH)
        dropped = conditioner(BATCH).drop(torch.tensor([False, True, False]), null)
        torch.testing.assert_close(dropped.context[1][dropped.context_mask[1]], null.context[1][null.context_mask[1]])


class TestPrecomputed:
    def test_equals_computed(self, factory: object, monkeypatch: pytest.MonkeyPatch) -> None:
        conditioner = factory()
        embedding = conditioner.embed_batch(BATCH)
        wanted = conditioner(BATCH)
        stored = TextEmbedding(embedding.tokens.half(), embedding.mask)
        batch = MediaBatch(captions=["other"] * 3, keys=["0", "1", "2"], text={conditioner.cache_name: stored})
        monkeypatch.setattr(conditioner, "_encode", lambda texts: pytest.fail("the encoder ran"))
        given = conditioner(batch)
        torch.testing.assert_close(given.context, wanted.context, atol=1e-2, rtol=1e-2)
        assert torch.equal(given.context_mask, wanted.context_mask) and given.context.dtype is torch.float32

    def test_without_any_encoder(self, t5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with_encoder = T5Conditioner(8, pretrained=str(t5), cache_name="ul2")
        with_encoder.save_null(tmp_path / "null.safetensors")
        monkeypatch.setattr(moviegen_text.encoded, "load_pretrained", lambda *a, **k: pytest.fail("something was loaded"))
        monkeypatch.setattr("moviegen_text.t5.load_pretrained", lambda *a, **k: pytest.fail("something was loaded"))
        options = {"pretrained": "google/ul2", "cache_name": "ul2", "precomputed_only": True, "width_text": 16}
        conditioner = T5Conditioner(8, null_path=str(tmp_path / "null.safetensors"), **options)
        conditioner.load_state_dict(with_encoder.state_dict())
        batch = MediaBatch(captions=CAPTIONS, keys=["0", "1", "2"], text={"ul2": with_encoder.embed_batch(BATCH)})
        torch.testing.assert_close(conditioner(batch).context, with_encoder(BATCH).context)
        torch.testing.assert_close(conditioner.null(batch).context, with_encoder.null(BATCH).context)
        with pytest.raises(UsageError, match="without text embeddings 'ul2' was given.*none at all.*precompute them"):
            conditioner(BATCH)
        with pytest.raises(UsageError, match="no null_path"):
            T5Conditioner(8, **options).null(BATCH)
        with pytest.raises(UsageError, match="no file that `save_null` wrote"):
            T5Conditioner(8, null_path=str(tmp_path / "absent"), **options).null(BATCH)

    def test_of_another_model(self, t5: Path) -> None:
        wrong = TextEmbedding(torch.zeros(3, 4, 12), torch.ones(3, 4, dtype=torch.bool))
        with pytest.raises(UsageError, match="of width 12 were given to T5Conditioner.*16 wide"):
            T5Conditioner(8, pretrained=str(t5))(MediaBatch(captions=CAPTIONS, keys=["0", "1", "2"], text={"t5": wrong}))

    def test_never_with_a_trained_encoder(self, clip: Path) -> None:
        with pytest.raises(UsageError, match="stale"):
            MetaClipConditioner(8, pretrained=str(clip), trainable="all", precomputed_only=True)
        trained = MetaClipConditioner(8, pretrained=str(clip), trainable="all")
        stale = TextEmbedding(torch.zeros(3, 4, 16), torch.ones(3, 4, dtype=torch.bool))
        batch = MediaBatch(captions=CAPTIONS, keys=["0", "1", "2"], text={"metaclip": stale})
        torch.testing.assert_close(trained(batch).context, trained(BATCH).context)


class TestBadModels:
    def test_absent_folder(self, t5: Path) -> None:
        with pytest.raises(
            UsageError, match=rf"{t5}x was given for T5Conditioner; there is no such folder.*nearest model is '{t5.name}'.*hf download"
        ):
            T5Conditioner(8, pretrained=f"{t5}x")

    def test_folder_of_something_else(self, tmp_path: Path, t5: Path) -> None:
        (tmp_path / "readme.txt").write_text("nothing here")
        with pytest.raises(UsageError, match=r"the folder holds readme\.txt.*save_pretrained"):
            T5Conditioner(8, pretrained=str(tmp_path))
        with pytest.raises(UsageError, match="lack .* weights of CLIPTextModel|the folder holds"):
            MetaClipConditioner(8, pretrained=str(t5)).embed(["a"])

    def test_cut_weights(self, t5: Path, tmp_path: Path) -> None:
        for file in t5.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / "model.safetensors").write_bytes((t5 / "model.safetensors").read_bytes()[:-50])
        with pytest.raises(UsageError, match=r"the folder holds .*model\.safetensors"):
            T5Conditioner(8, pretrained=str(tmp_path)).embed(["a"])

    def test_missing_weights_never_start_at_random(self, t5: Path, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        for file in t5.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        state = load_file(t5 / "model.safetensors")
        state.pop("encoder.block.1.layer.0.SelfAttention.q.weight")
        save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(UsageError, match="lack 1 weights of T5EncoderModel, e.g. 'encoder.block.1.layer.0.SelfAttention.q.weight'"):
            T5Conditioner(8, pretrained=str(tmp_path)).embed(["a"])

    def test_hub_out_of_reach(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import transformers

        def unreachable(path: str, *, local_files_only: bool) -> None:
            assert not local_files_only
            raise OSError("We couldn't connect to 'https://huggingface.co'")

        monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", unreachable)
        with pytest.raises(UsageError, match="google/ul2 was given.*no local folder, and the hub did not give it .*couldn't connect"):
            T5Conditioner(8, pretrained="google/ul2")

    def test_local_folders_never_reach_for_the_network(self, t5: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import socket

        monkeypatch.setattr(socket.socket, "connect", lambda *args: pytest.fail("the network was asked"))
        T5Conditioner(8, pretrained=str(t5))(BATCH)

    def test_missing_package(self, t5: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def needs_sentencepiece(path: str, **options: object) -> None:
            raise ImportError("T5Tokenizer requires the SentencePiece library but it was not found in your environment.")

        monkeypatch.setattr(AutoTokenizer, "from_pretrained", needs_sentencepiece)
        with pytest.raises(UsageError, match="T5Conditioner's tokenizer; .*SentencePiece.*pip install sentencepiece"):
            T5Conditioner(8, pretrained=str(t5)).embed(["a"])

    def test_wrong_width(self, t5: Path) -> None:
        with pytest.raises(UsageError, match="width_text=12 was given.*is 16 wide"):
            T5Conditioner(8, pretrained=str(t5), width_text=12)
