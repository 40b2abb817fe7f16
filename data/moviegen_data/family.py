"""The sets of shards that the processes of one run write into one folder, told from those of a run of another number of processes."""

import re
from contextlib import suppress
from pathlib import Path

from moviegen_core.errors import UsageError
from moviegen_core.files import remove
from moviegen_data.claim import Claim
from moviegen_data.partial import present_shards, shard_index_path
from moviegen_data.wording import counted

_RANK = "-rank"


class ShardFamily:
    """The sets of a prefix.

    Args:
        folder: where the sets are.
        prefix: first part of all names.
        num_sets: how many processes write one each; the name of each has its rank where there are several.
    """

    def __init__(self, folder: str | Path, prefix: str, num_sets: int) -> None:
        self.folder, self.prefix = Path(folder), prefix
        self.prefixes = [prefix] if num_sets == 1 else [f"{prefix}{_RANK}{rank:04d}" for rank in range(num_sets)]

    def others(self) -> list[str]:
        """Prefixes of the family's sets that a run of another number of processes has left, finished or not."""
        member = rf"{re.escape(self.prefix)}(?:{_RANK}\d{{4,}})?"
        form = re.compile(rf"\.({member})\.partial|({member})(?:-\d{{6,}}\.tar|\.index\.json)")
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        found = {match[1] or match[2] for name in names if (match := form.fullmatch(name))}
        return sorted(found - set(self.prefixes))

    def refuse_others(self) -> None:
        """Refuse to write beside shards of another number of processes: readers of the folder would find samples twice.

        Raises:
            UsageError: there are some.
        """
        present = [prefix for prefix in self.others() if present_shards(self.folder, prefix)]
        if present:
            raise UsageError(
                f"{self.folder} was given for the shards of {counted(len(self.prefixes), 'process', 'processes')}",
                f"it holds {present[0]}-*.tar of a run of another number of them",
                "choose another folder or prefix, or say overwrite=True to replace them",
            )

    def remove_others(self) -> None:
        """Take away what runs of another number of processes have left, each set's index first."""
        for prefix in self.others():
            for path in (shard_index_path(self.folder, prefix), *present_shards(self.folder, prefix)):
                remove(path)
            partial = self.folder / f".{prefix}.partial"
            if partial.is_dir():
                with suppress(UsageError):  # another process is at work on it
                    claim = Claim(partial, what=f"the shards {prefix}-*.tar")
                    claim.clear()
                    claim.release()
