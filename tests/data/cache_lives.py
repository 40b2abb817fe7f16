"""Caches in processes that are killed: `python cache_lives.py latents|texts SHARDS OUTPUT RANKS KILL_AFTER...` (batches; 0 lets it live).

Everything is imported once and forked. The exit codes of every life are printed as JSON.
"""

import json
import os
import signal
import socket
import sys
import time
import warnings
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer

from moviegen_core.autoencoder import Autoencoder
from moviegen_core.batch import TextEmbedding
from moviegen_data.caption_data import CaptionData
from moviegen_data.datamodule import ShardData
from moviegen_data.latents import LatentShardWriter
from moviegen_data.texts import TextShardWriter

TIME_LIMIT_S = 300


class Pooling(Autoencoder):
    """Averages cells, and writes a byte for every batch that it has begun."""

    def __init__(self, record: Path | None = None):
        super().__init__(latent_channels=3, temporal_factor=2, spatial_factor=4)
        self.gain = torch.nn.Parameter(torch.tensor(1.0))
        self.record = record

    def encode_raw(self, video, *, sample=False):
        return self.gain * torch.nn.functional.avg_pool3d(video, (2, 4, 4))

    def predict_step(self, batch, batch_idx):
        begin(self.record)
        return {"keys": batch.keys, "captions": batch.captions, "latents": self.encode(batch.video), "metadata": batch.metadata}


class Spelling(LightningModule):
    """Embeds captions letter by letter, padded to the longest of the batch, and writes a byte for every batch that it has begun."""

    def __init__(self, record: Path | None = None):
        super().__init__()
        self.letters = torch.nn.Embedding.from_pretrained(torch.arange(256 * 5, dtype=torch.float32).view(256, 5).sin())
        self.record = record

    def checksums(self):
        return {"letters": "abc"}

    def predict_step(self, batch, batch_idx):
        begin(self.record)
        rows = [torch.tensor(list(caption.encode())) for caption in batch.captions]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).bool()
        text = {"letters": TextEmbedding(self.letters(ids), mask)}
        return {"keys": batch.keys, "captions": batch.captions, "text": text, "metadata": batch.metadata}


def begin(record):
    """Tell that a batch is begun."""
    if record is not None:
        with open(record, "ab") as file:
            file.write(b".")
        time.sleep(0.02)  # so that a life ends at many different places


def cache_texts(shards, output, *, record=None, ranks=1):
    """Embed all captions of some shards in batches of three into shards of two."""
    predict(Spelling(record), CaptionData(urls=shards, batch_size=3), TextShardWriter(output=output, max_samples=2), ranks=ranks)


def cache(shards, output, *, record=None, ranks=1, precision="32-true", batch_size=3, **settings):
    """Encode all of some shards in batches of three into shards of two."""
    data = ShardData(urls=shards, num_frames=4, height=16, width=16, fps=8.0, batch_size=batch_size)
    writer = LatentShardWriter(output=output, **{"max_samples": 2, **settings})
    predict(Pooling(record), data, writer, ranks=ranks, precision=precision)


def predict(model, data, writer, *, ranks, precision="32-true"):
    """Run a writer of caches."""
    warnings.simplefilter("ignore")
    parallel = {"strategy": "ddp", "devices": ranks} if ranks > 1 else {}
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    Trainer(accelerator="cpu", precision=precision, callbacks=[writer], **quiet, **parallel).predict(model, data, return_predictions=False)


def live(make, shards, output, ranks, kill_after):
    record = Path(output).parent / "record"
    record.unlink(missing_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [_born(make, shards, output, rank, ranks, record, port) for rank in range(ranks)]
    codes, start = [None] * ranks, time.monotonic()
    while None in codes:
        for rank, process in enumerate(processes):
            if codes[rank] is None:
                found, status = os.waitpid(process, os.WNOHANG)
                codes[rank] = os.waitstatus_to_exitcode(status) if found else None
        begun = record.stat().st_size if record.exists() else 0
        if (kill_after and begun >= kill_after) or time.monotonic() - start > TIME_LIMIT_S:
            for rank, process in enumerate(processes):
                if codes[rank] is None:
                    os.kill(process, signal.SIGKILL)
        time.sleep(0.002)
    return codes


def _born(make, shards, output, rank, ranks, record, port):
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        if ranks > 1:
            place = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in place.items()})
        make(shards, output, record=record, ranks=ranks)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    torch.set_num_threads(1)
    make, shards, output, ranks = {"latents": cache, "texts": cache_texts}[sys.argv[1]], sys.argv[2], sys.argv[3], int(sys.argv[4])
    print(json.dumps([live(make, shards, output, ranks, int(after)) for after in sys.argv[5:]]))
