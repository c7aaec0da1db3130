"""The ids of twelve specs: finished runs are found again by every later version."""

from __future__ import annotations

import pytest

from tests.experiments.specs import changed, planned

#: Changes of the small spec, one feature each.
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
    "small": ["5c00785b66bc29d9", "49b526da91f88891", "72aff471dd5acfa4"],
    "float64": ["b7e611b51671173c", "346bbef746488cf8", "72b496a787c085ff"],
    "at target": ["0cca9286f84f0c84", "d055f6f608f378d4", "cf8386eada5f89cf"],
    "threads": ["9c21c365fb116a5e", "4c07579a6439d01b", "0033af1c0b2fe6b2"],
    "seconds": ["ad52144c7de45956", "7b01c2455259a300", "19d00be8f56b8a65"],
    "probes": ["5c00785b66bc29d9", "ef9c7c6d0b2b650b", "54dc7864cf8e6684"],
    "classifier": ["ef405941fedf3aa7", "dde4a0cb2188592a", "581f4b8933d8e809"],
    "recurrent": ["ccb8ac79295348f4", "7857071d6577c38f", "725cdd4e116b1c0e"],
    "parts in parts": ["5c00785b66bc29d9", "70c09651336dd937", "f1077dc9851b7a21"],
    "fisher": ["5c00785b66bc29d9", "c739d3f1e7419f97", "ab0b084dd1574a81"],
    "Martens": ["5c00785b66bc29d9", "729bff4489db736f", "1955131a0b9abe56"],
    "grid": [
        "5c00785b66bc29d9",
        "c595138735b7b6f3",
        "562e8852913bd322",
        "49b526da91f88891",
        "72aff471dd5acfa4",
        "637028b63f826ae7",
    ],
}


def first_ids(name):
    """The id of every arm with its first seed."""
    return [cell.run_id for cell in planned(*SPECS[name]).cells if cell.seed == 0]


@pytest.mark.parametrize("name", SPECS)
def test_ids_are_golden(name):
    """An id changes only with the version of the algorithm."""
    assert first_ids(name) == GOLDEN[name]


def test_no_two_of_the_specs_share_what_they_change():
    """Each spec makes at least one run that none of the others makes."""
    ids = {name: set(first_ids(name)) for name in SPECS}

    for name, own in ids.items():
        others = set().union(*(run_ids for other, run_ids in ids.items() if other != name))
        assert own - others or name == "small"


def test_every_spec_can_be_spelt_in_another_way():
    """Order of keys, 1.0 for 1 and defaults written out leave every id as it is."""
    for name, changes in SPECS.items():
        again = (*changes, ("schema: 1\nname: small", "name: other\nschema: 1.0"))
        ids = [cell.run_id for cell in planned(*again).cells if cell.seed == 0]
        assert ids == first_ids(name)
        assert changed(*again) != changed(*changes)
