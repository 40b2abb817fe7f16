"""Draws depend on the place in training alone."""

from types import SimpleNamespace

import torch
from lightning.pytorch import LightningModule

from moviegen_core.randomness import seed_step


class Place(LightningModule):
    """A module that claims to be somewhere."""

    def __init__(self, rank: int, step: int) -> None:
        super().__init__()
        self.step = step
        self._trainer = SimpleNamespace(strategy=SimpleNamespace(distributed_sampler_kwargs={"rank": rank, "num_replicas": 3}))

    global_step = property(lambda self: self.step)


def draw(rank, step, batch):
    seed_step(Place(rank, step), batch)
    return torch.rand(()).item()


def test_same_place_same_draw_and_every_other_place_another():
    assert draw(0, 5, 5) == draw(0, 5, 5)
    places = [(rank, step, batch) for rank in range(3) for step in range(3) for batch in range(3)]
    assert len({draw(*place) for place in places}) == len(places)
