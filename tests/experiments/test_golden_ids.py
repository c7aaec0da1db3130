"""The ids of twelve specs: finished runs are found again by every later version."""

from __future__ import annotations

import pytest

from tests.experiments.specs import changed, planned

#: What is changed in the small spec, one feature each.
SPECS = {
    "small": (),
    "float64": (("stop: at_budget", "stop: at_budget\ndtype: float64"),),
    "at target": (("at_budget", "at_target"),),
    "threads": (("stop: at_budget", "stop: at_budget\nthreads: 2"),),
    "seconds": (("updates: 6", "seconds: 2.5"),),
    "probes": (("every_updates: 2", "every_updates: 2, off_block_energy: 3"),),
    "classifier": (
        ("{type: autoencoder, encoder: [784, 12, 4]}", "{type: mlp, hidden: [12]}"),
        ('{type: groups, blocks: [["encoder.*"], ["decoder.*"]]}', "per_neuron"),
    ),
    "recurrent": (
        ("{type: autoencoder, encoder: [784, 12, 4]}", "{type: sequence_lstm, hidden: 5}"),
        ('{type: groups, blocks: [["encoder.*"], ["decoder.*"]]}', "groups"),
    ),
    "parts in parts": (
        ("partition: full", "partition: {type: blend, partition: per_layer, alpha: 0.5}"),
        ("max_iters: 5", "max_iters: 5, preconditioner: martens"),
    ),
    "fisher": (("partition: full", "partition: full, curvature: {type: fisher, samples: 2}"),),
    "Martens": (
        ("damping: 1.0e-2", "damping: levenberg_marquardt, acceptance: backtracking"),
        ("lr: 0.5", "lr: 1.0, regularization: 2.0e-5"),
    ),
    "grid": (("seeds:", "grid: [{batch.curvature: [25, 50]}, {arms.adam.lr: [0.1]}]\nseeds:"),),
}

GOLDEN = {
    "small": ["6ff4371f55f36af1", "202834c9da8995ac", "a0ea201eb2a104e6"],
    "float64": ["1fb57a5c7c2d91ed", "593c82aee7fb3831", "a58b1f365e0c8172"],
    "at target": ["9bc9a39472d8f90b", "8ee2dcd61625fd0e", "cd54057dd2776315"],
    "threads": ["a16946110e22ef5a", "b4bd0445632c51c4", "2cd127927b831571"],
    "seconds": ["ad126dee666089e5", "41e61a085a30507c", "09be676dcad03d4b"],
    "probes": ["6ff4371f55f36af1", "4ea6b3b4713c129a", "0b8fd8a6dc38b845"],
    "classifier": ["ff5727166c46baae", "7999480084249707", "05d1ec7e76e9e7d3"],
    "recurrent": ["0d07021c5e4fbcb2", "8083be17f082b4ca", "d0d810691a23486a"],
    "parts in parts": ["6ff4371f55f36af1", "7f08abb676ad405a", "f0d210d6236452c6"],
    "fisher": ["6ff4371f55f36af1", "56aee8b5d15fd116", "37f9e0d6fe01eeb1"],
    "Martens": ["6ff4371f55f36af1", "01a7946cd7b1d166", "284dc005e6df7ff8"],
    "grid": [
        "6ff4371f55f36af1",
        "f8369d08a9edec42",
        "2915291807d5f330",
        "202834c9da8995ac",
        "a0ea201eb2a104e6",
        "a2d80fd31ac65636",
    ],
}


def first_ids(name):
    """The id of every arm with its first seed."""
    return [cell.run_id for cell in planned(*SPECS[name]).cells if cell.seed == 0]


@pytest.mark.parametrize("name", SPECS)
def test_ids_are_golden(name):
    """An id changes with the version of the algorithm, and by nothing that happens by accident."""
    assert first_ids(name) == GOLDEN[name]


def test_no_two_of_the_specs_share_what_they_change():
    """Each spec makes at least one run that none of the others makes."""
    ids = {name: set(first_ids(name)) for name in SPECS}

    for name, own in ids.items():
        others = set().union(*(found for other, found in ids.items() if other != name))
        assert own - others or name == "small"


def test_every_spec_can_be_spelt_in_another_way():
    """Order of keys, 1.0 for 1 and defaults written out leave every id as it is."""
    for name, changes in SPECS.items():
        again = (*changes, ("schema: 1\nname: small", "name: other\nschema: 1.0"))
        ids = [cell.run_id for cell in planned(*again).cells if cell.seed == 0]
        assert ids == first_ids(name)
        assert changed(*again) != changed(*changes)
