"""Training that is killed and resumed, again and again, is bit for bit the training that was not: losses, samples, rates, weights."""

import random

import pytest

MESH = {"data_parallel_size": 2}


def test_killed_on_one_process(make_runs):
    runs = make_runs()
    kills = random.Random(0).sample(range(3, 24), 2)
    killed = [runs.killed("killed", after) for after in sorted(kills)]
    # One more training ends by itself, at a step that is not saved otherwise, and is then given more steps.
    codes = runs.run(runs.life("whole"), *killed, runs.life("killed"), runs.life("longer", max_steps=7), runs.life("longer"))
    assert codes == [[0], [-9], [-9], [0], [0], [0]], runs.output[-3000:]
    runs.require_equal("killed", "whole")
    runs.require_equal("longer", "whole", repeated=False)


def test_killed_on_two_processes(make_runs):
    runs = make_runs(ranks=2, mesh=MESH, max_steps=8)
    codes = runs.run(runs.life("whole"), runs.killed("killed", 11, rank=1), runs.life("killed"))
    assert codes == [[0, 0], [-9, -9], [0, 0]], runs.output[-3000:]
    runs.require_equal("killed", "whole")


@pytest.mark.slow
@pytest.mark.parametrize("data", ["shards", "toy_world"])
@pytest.mark.parametrize("mesh", [None, {}, {"async_checkpoint": True}], ids=["one", "two", "two_async"])
def test_killed_20_times(make_runs, data, mesh, toy_world):
    options = {} if mesh is None else {"ranks": 2, "mesh": {**MESH, **mesh}}
    runs = make_runs(data=toy_world if data == "toy_world" else None, max_steps=40, **options)
    draw = random.Random(1)
    lives, after = [], 0
    for _ in range(20):
        after += draw.randint(2, 6)  # lines of all lives together: some lives end before the first saving
        lives.append(runs.killed("killed", after, rank=draw.randrange(runs.ranks)))
    codes = runs.run(runs.life("whole"), *lives, runs.life("killed"))
    print(codes)
    runs.require_equal("killed", "whole")
    assert codes.count([-9] * runs.ranks) == 20


@pytest.mark.slow
@pytest.mark.parametrize("data", ["shards", "toy_world"])
def test_killed_after_an_epoch_that_was_cut_short(make_runs, toy_world, data):
    # Three steps take five batches, so every checkpoint is that of an epoch's end, though not of the data's.
    runs = make_runs(data=toy_world if data == "toy_world" else None, limit=5)
    codes = runs.run(runs.life("whole"), runs.killed("killed", 9), runs.killed("killed", 17), runs.life("killed"))
    assert codes == [[0], [-9], [-9], [0]], runs.output[-3000:]
    runs.require_equal("killed", "whole")


@pytest.mark.slow
def test_an_autoencoder_and_its_discriminator(make_runs, toy_world):
    runs = make_runs(data=toy_world, autoencoder=True, max_steps=20)
    killed = [runs.killed("killed", after) for after in (5, 12, 19)]
    codes = runs.run(runs.life("whole"), *killed, runs.life("killed"))
    assert codes == [[0], [-9], [-9], [-9], [0]], runs.output[-3000:]
    runs.require_equal("killed", "whole")


@pytest.mark.parametrize(
    "mesh", [None, pytest.param({}, marks=pytest.mark.slow), pytest.param({"async_checkpoint": True}, marks=pytest.mark.slow)]
)
def test_crash_while_saving(make_runs, mesh):
    """At every point of a saving the earlier checkpoint, or the new one, is whole; what the crash left is never taken for one."""
    options = {} if mesh is None else {"ranks": 2, "mesh": {**MESH, **mesh, "timeout_s": 3.0}}
    runs = make_runs(max_steps=16 if mesh is None else 24, **options)
    points = ["shards:1:0", "rename:1:0", "removal:1:0"] if mesh is None else ["shards:1:1", "index:1:0", "rename:1:0", "removal:1:0"]
    crashes = [runs.life("crashed", env={"SABOTAGE": point}) for point in points]
    codes = runs.run(runs.life("whole"), *crashes, runs.life("crashed"))
    print(codes)
    assert all(-9 in killed for killed in codes[1:-1]) and codes[-1] == [0] * runs.ranks, runs.output[-3000:]
    runs.require_equal("crashed", "whole")
    assert [path.name for path in (runs.folder / "crashed").glob("*ckpt*")] == ["last.ckpt"]
    assert not list((runs.folder / "crashed").glob(".*"))
