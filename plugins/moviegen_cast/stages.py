"""A run made of stages: each is done once, and an interrupted run goes on with the stage it stopped in."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moviegen_core.files import write_bytes


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Args:
        name: its name, also that of its folder.
        summary: what the user reads while it runs.
        work: does it, given the stage's folder; called again after an interruption, so it picks up what it finds there.
    """

    name: str
    summary: str
    work: Callable[[Path], None]


class StagedRun:
    """Runs stages in order inside a folder and remembers what is done.

    Args:
        folder: where everything goes; a second run on the same folder skips what is done.
        settings: what the stages were asked to do; a folder made with other settings is refused.
    """

    def __init__(self, folder: Path, *, settings: dict[str, object]) -> None:
        self.folder = folder
        self._state_file = folder / "run.json"
        self._state = {"settings": settings, "seconds": {}, "done": []}
        if self._state_file.is_file():
            found = json.loads(self._state_file.read_text())
            if found["settings"] != settings:
                changed = sorted(key for key in settings if found["settings"].get(key) != settings[key])
                raise ValueError(
                    f"{folder} holds a run with other settings ({', '.join(changed)} differ); its settings were {found['settings']}; "
                    "give the same settings to go on, or another --folder to start anew"
                )
            self._state = found

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent in each stage, over all its attempts."""
        return dict(self._state["seconds"])

    def run(self, stages: Sequence[Stage]) -> None:
        """Do what is not done yet."""
        for number, stage in enumerate(stages, start=1):
            if stage.name in self._state["done"]:
                print(f"[{number}/{len(stages)}] {stage.summary}: done before", flush=True)
                continue
            print(f"[{number}/{len(stages)}] {stage.summary} ...", flush=True)
            folder = self.folder / stage.name
            folder.mkdir(parents=True, exist_ok=True)
            start = time.monotonic()
            try:
                stage.work(folder)
            finally:
                elapsed = time.monotonic() - start
                self._state["seconds"][stage.name] = round(self._state["seconds"].get(stage.name, 0.0) + elapsed, 1)
                self._save()
            self._state["done"].append(stage.name)
            self._save()
            print(f"[{number}/{len(stages)}] {stage.summary}: {elapsed:.0f} s", flush=True)

    def _save(self) -> None:
        write_bytes(self._state_file, json.dumps(self._state, indent=2).encode())
