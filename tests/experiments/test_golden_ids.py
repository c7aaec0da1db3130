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
    "small": ["57ea1a37c6e6f5bb", "9652c83c66cb361f", "6b203be46fb1db6e"],
    "float64": ["53295b4836ce2ac7", "5dbbe2a13c741e44", "a13b6a4bd2adb261"],
    "at target": ["03e9d326062bb586", "cfa4669eb99c5f76", "df9b860319e9767a"],
    "threads": ["4edd2a3398c4ff5c", "9570d9752df6a14f", "79af8778e627f707"],
    "seconds": ["d61e3cf24755fc93", "23d9646e13978b5b", "b06956033a0de73c"],
    "probes": ["57ea1a37c6e6f5bb", "4472b5a17a5e0b49", "c928d6d48ff2b56f"],
    "classifier": ["3ea3ba8c6df856a2", "3b604cdff6be46c4", "8b9e94e74488d499"],
    "recurrent": ["5e679b2e6627a669", "e9baa9f0f924f219", "e5d9fd8c024fb1ac"],
    "parts in parts": ["57ea1a37c6e6f5bb", "b7f6432657af8174", "0169aad28aaaeb5d"],
    "fisher": ["57ea1a37c6e6f5bb", "55da1ebae24595cd", "75e777f4bbfe7e3a"],
    "Martens": ["57ea1a37c6e6f5bb", "485335fb0f52b58b", "81b2e1a8a6897047"],
    "grid": [
        "57ea1a37c6e6f5bb",
        "31a28307559fe934",
        "e41251039539c59e",
        "9652c83c66cb361f",
        "6b203be46fb1db6e",
        "ee23dc721e8b1a67",
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
