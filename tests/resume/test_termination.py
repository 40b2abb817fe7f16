"""SIGTERM: all processes end after the same step with code 143, and training goes on exactly from there."""

import signal

import pytest

from moviegen_core.callbacks.termination import EXIT_CODE


def test_on_one_process(make_runs):
    runs = make_runs(max_steps=8)
    codes = runs.run(runs.life("whole"), runs.killed("ended", 5, signal=signal.SIGTERM), runs.life("ended"))
    assert codes == [[0], [EXIT_CODE], [0]], runs.output[-3000:]
    assert "SIGTERM: saved" in runs.output and "Traceback" not in runs.output
    runs.require_equal("ended", "whole", repeated=False)


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_on_two_processes_one_of_which_hears_it(make_runs, rank):
    runs = make_runs(ranks=2, mesh={"data_parallel_size": 2}, max_steps=8)
    ended = runs.killed("ended", 5, rank=rank, signal=signal.SIGTERM, whole=False)
    codes = runs.run(runs.life("whole"), ended, runs.life("ended"))
    assert codes == [[0, 0], [EXIT_CODE, EXIT_CODE], [0, 0]], runs.output[-3000:]
    assert "SIGTERM: saved" in runs.output and "Traceback" not in runs.output
    runs.require_equal("ended", "whole", repeated=False)
