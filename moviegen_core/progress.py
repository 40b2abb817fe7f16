"""A bar for work of many steps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar over steps, on a terminal only; yields what takes (step, num_steps)."""
    from tqdm.auto import tqdm

    with tqdm(desc=title, unit="step", leave=False, disable=None) as bar:

        def report(step: int, num_steps: int) -> None:
            bar.total = num_steps
            bar.update(step - bar.n)

        yield report
