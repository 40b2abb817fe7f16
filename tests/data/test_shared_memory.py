"""Workers read into memory that the main process sees: nothing is written over while it is in use, and the memory is used again."""

import gc
import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from loading import data_of, latent_shards

from moviegen_core.batch import MediaBatch, TextEmbedding
from moviegen_core.errors import UsageError
from moviegen_data.datamodule import ShardData
from moviegen_data.decoding import SampleDecoder
from moviegen_data.loaded import LoadedBatch
from moviegen_data.shared_memory import SharedMemory, packed, unpacked

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def test_a_block_is_free_when_neither_side_refers_to_it():
    memory = SharedMemory(smallest=1)
    made = memory.empty(4, 5)
    place = made.data_ptr()
    part = made[1:2]
    del made
    assert memory.empty(4, 5).data_ptr() != place, "a view of it is alive"
    whole = torch.as_strided(part, (4, 5), (5, 1), 0)
    whole.fill_(7.0)
    lent = memory.lend(whole)
    del part, whole
    assert memory.empty(4, 5).data_ptr() != place, "it is on its way"
    taken = lent.take()
    row = taken[2]
    del taken, lent
    gc.collect()
    assert memory.empty(4, 5).data_ptr() != place, "the other side has a view of it"
    assert row.tolist() == [7.0] * 5
    del row
    assert memory.empty(4, 5).data_ptr() == place


def test_blocks_grow_and_are_bounded():
    memory = SharedMemory(smallest=1)
    small = memory.empty(200)
    del small
    large = memory.empty(1000)
    assert len(memory._blocks) == 1, "one too small is replaced"
    assert memory.lend(large[1:]) is None and memory.lend(large.view(10, 100).t()) is None, "only what begins a block can be lent"
    held = [memory.empty(3) for _ in range(40)]
    assert len(memory._blocks) == 16 and len({tensor.data_ptr() for tensor in held}) == 40


def test_texts_leave_the_memory_of_videos_to_videos():
    memory = SharedMemory(smallest=1)
    video = memory.empty(9000, dtype=torch.uint8)
    place = video.data_ptr()
    del video
    text = memory.empty(1000, dtype=torch.uint8)
    assert text.data_ptr() != place and memory.empty(8000, dtype=torch.uint8).data_ptr() == place


@pytest.fixture
def little_memory(monkeypatch):
    """Lets the system grant a few pieces of shared memory to each process, and then none, as in a container's 64 MB."""
    share, granted = torch.UntypedStorage._share_fd_cpu_, []

    def share_few(storage, *args, **settings):
        if not storage.is_shared():
            if len(granted) >= 2:
                raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")
            granted.append(storage.nbytes())
        return share(storage, *args, **settings)

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", share_few)


def test_where_shared_memory_is_full_tensors_are_copied(little_memory, caplog):
    memory = SharedMemory(smallest=1)
    held = [memory.empty(10).fill_(float(number)) for number in range(4)]
    sent = [packed(tensor, memory) for tensor in held]
    assert [type(one).__name__ for one in sent] == ["Lent", "Lent", "Copied", "Copied"]
    assert [unpacked(one)[0].item() for one in sent] == [0.0, 1.0, 2.0, 3.0]
    del held, sent
    gc.collect()
    assert memory.lend(memory.empty(10)) is not None, "what there is goes on being used"
    assert len(caplog.messages) == 1 and "a worker asked for shared memory; the system gave none" in caplog.messages[0]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_arrive_where_shared_memory_is_full(tmp_path, little_memory, batch_size):
    latents = latent_shards(tmp_path, [(4, 2, 100, 100)] * 12)
    data = ShardData(urls=str(tmp_path), latents=True, batch_size=batch_size, shuffle=False, num_workers=2)
    assert torch.equal(torch.cat([batch.latents for batch in list(data.train_dataloader())]), torch.stack(latents))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (0, 3), (3, 2), (1000, 100)])
def test_every_kind_of_tensor_arrives(dtype, shape):
    tensor = (torch.arange(torch.Size(shape).numel()).view(shape) % 2).to(dtype)
    memory = SharedMemory(smallest=1)
    lying = memory.empty(*shape, dtype=dtype).copy_(tensor)
    for one in (tensor, lying, tensor.mT.mT if tensor.ndim > 1 else tensor):
        arrived = unpacked(packed(one, memory))
        assert arrived.dtype == dtype and arrived.shape == tensor.shape and torch.equal(arrived, tensor)


def test_small_tensors_take_no_block():
    memory = SharedMemory()
    held = [memory.empty(100, 100), memory.empty(200, 200)]
    assert len(memory._blocks) == 1 and memory.lend(held[0]) is None and memory.lend(held[1]) is not None


def test_a_batch_arrives_whole():
    text = {"t5": TextEmbedding(torch.rand(2, 3, 4), torch.tensor([[True, True, False]] * 2))}
    batch = MediaBatch(
        captions=["a", "b"], keys=["k", "l"], latents=torch.rand(2, 1, 1, 2, 2), fps=torch.tensor([8.0, 8.0]), text=text,
        extras={"size": torch.rand(2, 2)}, metadata=[{"x": 1}, {}],
    )  # fmt: skip
    arrived = pickle.loads(ForkingPickler.dumps(LoadedBatch(batch, [])))
    assert arrived.batch.keys == batch.keys and arrived.batch.metadata == batch.metadata and arrived.batch.video is None
    for one, other in (
        (batch.latents, arrived.batch.latents),
        (batch.fps, arrived.batch.fps),
        (batch.extras["size"], arrived.batch.extras["size"]),
    ):
        assert torch.equal(one, other)
    assert torch.equal(text["t5"].tokens, arrived.batch.text["t5"].tokens) and torch.equal(text["t5"].mask, arrived.batch.text["t5"].mask)


def test_few_blocks_serve_many_batches(tmp_path):
    latents = latent_shards(tmp_path, [(4, 2, 100, 100)] * 24)
    loader = ShardData(urls=str(tmp_path), latents=True, text=True, batch_size=2, num_workers=1, shuffle=False).train_dataloader()
    places = set()
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        for number, batch in enumerate(loader):
            places.add(batch.latents.data_ptr())
            assert torch.equal(batch.latents, torch.stack(latents[2 * number : 2 * number + 2]))
    assert len(places) <= 6, "36 batches"


@pytest.mark.parametrize("num_workers", [1, 2])
def test_batches_that_are_kept_keep_their_values(tmp_path, num_workers):
    latents = latent_shards(tmp_path, [(4, 2, 100, 100)] * 40)
    kept = list(ShardData(urls=str(tmp_path), latents=True, batch_size=1, shuffle=False, num_workers=num_workers).train_dataloader())
    assert torch.equal(torch.cat([batch.latents for batch in kept]), torch.stack(latents))


def test_pixels_that_are_kept_keep_their_values(make_shards):
    folder = make_shards(num_samples=40, num_frames=5)
    alone = list(data_of(folder, batch_size=1, scale_on_device=True).train_dataloader())
    kept = list(data_of(folder, batch_size=1, scale_on_device=True, num_workers=1).train_dataloader())
    assert all(torch.equal(one.video, other.video) for one, other in zip(alone, kept, strict=True))


class Refusing(SampleDecoder):
    """Finds a setting that cannot be when it is too late."""

    def caption(self, sample, metadata, fps):
        raise UsageError("a setting was given", "it cannot be", "give another")


class RefusingData(ShardData):
    """Data of it."""

    def decoder(self, *, clip_position):
        return Refusing(clip_position=clip_position, **self.decoding)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_errors_in_workers_keep_their_three_parts(make_shards, num_workers):
    data = RefusingData(urls=str(make_shards()), num_frames=2, height=8, width=8, num_workers=num_workers)
    with pytest.raises(UsageError) as caught:
        list(data.train_dataloader())
    assert (caught.value.given, caught.value.exists, caught.value.advice) == ("a setting was given", "it cannot be", "give another")
    assert str(caught.value) == "a setting was given; it cannot be; give another"
