"""A checkpoint of which a bit is another one is not gone on from with another state."""

import pytest
import torch

from bdhf.experiments.run.checkpoint import Checkpoint, Saver
from tests.experiments.specs import cell
from tests.experiments.synthetic import save


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of a run, and what reads it."""
    checkpoint = Checkpoint(tmp_path / "run.pt", every=1, at_least_seconds=0.0)
    saver = Saver(checkpoint, cell("adam").run, "cpu")
    save(saver, {"weights": torch.arange(12.0), "update": 3, "losses": [0.5, 0.25]})
    return checkpoint.path, saver


def test_a_flipped_bit_of_a_checkpoint_is_ignored_or_changes_nothing(saved):
    """A hundred places: no state, or the one that was saved."""
    path, saver = saved
    content = path.read_bytes()
    states = []

    for byte in range(0, len(content), len(content) // 100):
        changed = bytearray(content)
        changed[byte] ^= 1 << byte % 8
        path.write_bytes(changed)
        states.append(saver.load())

    assert states.count(None) >= 20
    unchanged = [state for state in states if state is not None]
    assert unchanged
    for state in unchanged:
        assert torch.equal(state.pop("weights"), torch.arange(12.0))
        assert state == {"update": 3, "losses": [0.5, 0.25]}
