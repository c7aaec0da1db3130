"""Random streams, which pair the arms."""

from itertools import islice

import pytest
import torch

from bdhf.experiments.run.random_streams import BatchSampler, Subsets, derive, generator
from tests.messages import naming


def test_a_stream_depends_on_seed_and_purpose_alone():
    """The same pair gives the same bits; another seed or purpose gives others."""
    draws = {
        key: torch.rand(3, generator=generator(*key))
        for key in [(0, "order"), (0, "initialisation"), (1, "order")]
    }

    assert torch.equal(draws[0, "order"], torch.rand(3, generator=generator(0, "order")))
    assert len({tuple(draw.tolist()) for draw in draws.values()}) == 3


def test_derived_seeds_are_golden():
    """Seeds of streams do not change between versions or machines."""
    assert derive(0, "order") == 7503497437784981253


@pytest.mark.parametrize(("samples", "size"), [(10, 4), (7, 3), (5, 5), (9, 8), (6, 1)])
def test_batches_are_full_without_repeats_and_every_epoch_is_complete(samples, size):
    """Every batch has `size` distinct samples; every run of `samples` draws holds each once."""
    stream = BatchSampler(samples, size, generator(3, "order"))
    drawn = list(islice(stream, samples * 3))

    assert all(len(batch.unique()) == len(batch) == size for batch in drawn)
    epochs = torch.cat(drawn).view(-1, samples)
    assert torch.equal(epochs.sort(dim=1).values, torch.arange(samples).expand(len(epochs), -1))


def test_epochs_are_shuffled_again():
    """No epoch repeats the order of the one before."""
    epochs = torch.cat(list(islice(BatchSampler(50, 10, generator(0, "order")), 10))).view(2, 50)

    assert not torch.equal(epochs[0], epochs[1])


def test_a_batch_larger_than_the_data_is_refused():
    """No batch can hold more distinct samples than there are."""
    with pytest.raises(ValueError, match=naming(6, 5)):
        next(BatchSampler(5, 6, generator(0, "order")))


def test_a_smaller_subset_is_part_of_a_larger_one():
    """Arms with different curvature batches read nested samples, update by update."""
    small = list(islice(Subsets(20, 5, generator(0, "subset")), 4))
    large = list(islice(Subsets(20, 12, generator(0, "subset")), 4))

    assert all(torch.equal(a, b[:5]) for a, b in zip(small, large, strict=True))


@pytest.mark.parametrize(
    "stream",
    [
        lambda: BatchSampler(10, 4, generator(0, "order")),
        lambda: Subsets(10, 4, generator(0, "subset")),
    ],
    ids=["batches", "subsets"],
)
@pytest.mark.parametrize("drawn", [0, 1, 2, 3, 7])
def test_a_stream_continues_from_its_state(stream, drawn):
    """From any position, in the middle of an epoch or across its end."""
    first, second = stream(), stream()
    list(islice(first, drawn))
    state = first.state()
    expected = list(islice(first, 9))

    second.restore(state)

    assert all(torch.equal(a, b) for a, b in zip(expected, islice(second, 9), strict=True))
