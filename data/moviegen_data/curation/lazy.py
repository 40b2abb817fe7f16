"""What is loaded on first use, and stays behind where its owner is sent to a worker."""

from functools import cached_property
from typing import Any


class Lazy:
    """Keeps what `functools.cached_property` loaded out of its pickle: models are loaded anew by each worker, and never sent."""

    def __getstate__(self) -> dict[str, Any]:
        loaded = {name for kind in type(self).__mro__ for name, value in vars(kind).items() if isinstance(value, cached_property)}
        return {name: value for name, value in vars(self).items() if name not in loaded}
