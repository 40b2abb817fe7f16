"""Draws depend on the place in training alone."""

import torch
from lightning.pytorch import LightningModule

from moviegen_core.randomness import seed_step


class Place(LightningModule):
    """A module that claims to be somewhere."""

    def __init__(self, rank: int, step: int) -> None:
        super().__init__()
        self.place = (rank, step)

    global_rank = property(lambda self: self.place[0])
    global_step = property(lambda self: self.place[1])


def draw(rank, step, batch):
    seed_step(Place(rank, step), batch)
    return torch.rand(()).item()


def test_same_place_same_draw_and_every_other_place_another():
    assert draw(0, 5, 5) == draw(0, 5, 5)
    places = [(rank, step, batch) for rank in range(3) for step in range(3) for batch in range(3)]
    assert len({draw(*place) for place in places}) == len(places)
