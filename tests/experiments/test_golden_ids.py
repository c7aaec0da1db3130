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
    "small": ["a48ff8927b268dce", "5bf00d96e732bf92", "9db02bd5e2e6beb4"],
    "float64": ["bab10fdae2218e92", "a797a6fd9dc33e10", "47dab85d483bb948"],
    "at target": ["1707c4274a030300", "5ea9d49f07ea5ec3", "83afa99e2a954caa"],
    "threads": ["e5a328c17c1794d2", "24b4d8339efd17d4", "eaf23064b68b6d5b"],
    "seconds": ["03a9685a8e241e25", "45d63d3ec7fbe64e", "2244cacefb11a861"],
    "probes": ["a48ff8927b268dce", "bab005edb0e372aa", "8ef7d73926e0b197"],
    "classifier": ["15360f5abc8ea46a", "5f29d80c10f6ffee", "de89c3bfa354aa3b"],
    "recurrent": ["eafcbcf4e96381b8", "716353d517b1d40a", "20ebab9eb40e649d"],
    "parts in parts": ["a48ff8927b268dce", "7f58bb1a16e3cde7", "1cdc8e3526838fb2"],
    "fisher": ["a48ff8927b268dce", "962452bb1e3cb06d", "2fcbeefe628fe34b"],
    "Martens": ["a48ff8927b268dce", "23bfb788415bee64", "93b21a944e96e559"],
    "grid": [
        "a48ff8927b268dce",
        "12ca40fff1b0483b",
        "f37a3a4e14e66f96",
        "5bf00d96e732bf92",
        "9db02bd5e2e6beb4",
        "4f01db9f0ca2973d",
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
