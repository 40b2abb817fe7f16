"""Callbacks of the resume tests, which `moviegen fit` finds by their class paths: one writes down what happens, one crashes on purpose."""

import json
import os
import signal
from pathlib import Path

import torch
from lightning.pytorch import Callback


class Recorder(Callback):
    """Writes a line for every batch and validation.

    Args:
        folder: where; a file for each process.
    """

    def __init__(self, *, folder: str) -> None:
        self.folder = Path(folder)

    def setup(self, trainer, pl_module, stage):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = open(self.folder / f"{trainer.global_rank}.jsonl", "a")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        loss = float(trainer.callback_metrics["train_loss"] if loss is None else loss)
        rates = [group["lr"].hex() for optimizer in trainer.optimizers for group in optimizer.param_groups]
        self._write([trainer.current_epoch, batch_idx], [trainer.global_step, loss.hex(), batch.keys, rates])

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking and "val_loss" in trainer.callback_metrics:
            self._write(["validation", trainer.global_step], float(trainer.callback_metrics["val_loss"]).hex())

    def _write(self, key, value):
        self.file.write(json.dumps([key, value]) + "\n")
        self.file.flush()


class Saboteur(Callback):
    """Kills its process while a checkpoint is being saved, as the environment variable `SABOTAGE` says: `point:saving:rank`.

    Points: `shards` (a shard is half written), `index` (shards are written, the index is not), `rename` (everything is written, nothing
    renamed), `removal` (the new one has the name, the old one is still there).
    """

    def setup(self, trainer, pl_module, stage):
        plan = os.environ.get("SABOTAGE")
        if plan is None or stage != "fit":
            return
        point, saving, rank = plan.split(":")
        if int(rank) == trainer.global_rank:
            self.left = int(saving)
            getattr(self, f"_at_{point}")()

    def _due(self):
        self.left -= 1
        return self.left < 0

    def _at_shards(self):
        import torch.distributed.checkpoint.filesystem as filesystem

        save, write = torch.save, filesystem._write_item

        def crash_in_file(content, file, *args, **kwargs):
            if str(getattr(file, "name", "")).endswith((".partial", "meta.pt")) and self._due():
                file.write(b"PK\x03\x04 and no more")
                file.flush()
                die()
            return save(content, file, *args, **kwargs)

        def crash_in_shard(*args, **kwargs):
            if self._due():
                die()
            return write(*args, **kwargs)

        torch.save, filesystem._write_item = crash_in_file, crash_in_shard

    def _at_index(self):
        from torch.distributed.checkpoint.filesystem import _FileSystemWriter

        finish = _FileSystemWriter.finish
        _FileSystemWriter.finish = lambda *args, **kwargs: die() if self._due() else finish(*args, **kwargs)

    def _at_rename(self):
        import moviegen_core.files as files
        import moviegen_core.parallel.checkpointing as checkpointing

        publish = files.publish
        files.publish = checkpointing.publish = lambda *args: die() if self._due() else publish(*args)

    def _at_removal(self):
        import moviegen_core.files as files

        exchange, replace = files._exchange, os.replace

        def crash_after(swap):
            def swapped(*args):
                done = swap(*args)
                return die() if self._due() else done

            return swapped

        files._exchange, os.replace = crash_after(exchange), crash_after(replace)


def die():
    os.kill(os.getpid(), signal.SIGKILL)
