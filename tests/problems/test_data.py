"""Data: real digits, split without overlap, in equal shares of every class."""

import pytest
import torch

from bdhf.problems import Autoencoder, ResNet
from bdhf.problems.data import DATASETS, stratified_split
from bdhf.problems.data.mnist5k import Mnist5k
from tests.messages import naming


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_is_as_it_says(name):
    """The sizes equal those before loading; pixels lie in [0, 1]."""
    dataset = DATASETS[name]
    data = dataset.load(seed=0)

    assert data.train[0].shape == (dataset.samples, dataset.features)
    for x, y in (data.train, data.validation, data.test):
        assert len(x) == len(y)
        assert x.min() >= 0
        assert x.max() <= 1


def test_mnist5k_has_equal_shares_of_every_digit():
    """3,500 / 500 / 1,000 digits: 350, 50 and 100 of each."""
    data = DATASETS["mnist5k"].load(seed=3)

    counts = [part[1].bincount().tolist() for part in (data.train, data.validation, data.test)]
    assert counts == [[350] * 10, [50] * 10, [100] * 10]


def test_the_parts_are_disjoint_and_complete():
    """Every sample is in exactly one part."""
    y = torch.arange(3).repeat_interleave(20)
    data = stratified_split(torch.arange(60)[:, None], y, (42, 6, 12), seed=1)

    seen = torch.cat([part[0].reshape(-1) for part in (data.train, data.validation, data.test)])
    assert torch.equal(seen.sort().values, torch.arange(60))
    assert not torch.equal(seen, torch.arange(60))


def test_the_split_depends_on_its_seed_alone():
    """The same seed gives the same split, another seed another."""
    first, again, other = (DATASETS["mnist5k"].load(seed=s).test[0] for s in (0, 0, 1))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("sizes", "names"), [((30, 6, 12), ((30, 6, 12), 60)), ((41, 7, 12), ((41, 7, 12), "class 0"))]
)
def test_a_split_that_does_not_fit_is_refused(sizes, names):
    """Sizes that leave samples out, or cannot be equal shares, are errors."""
    y = torch.arange(3).repeat_interleave(20)
    with pytest.raises(ValueError, match=naming(*names)):
        stratified_split(y[:, None], y, sizes, seed=0)


def test_downsampling_averages_squares():
    """Each pixel of a smaller image is the mean of its square, in both kinds of problems."""
    images = Mnist5k().load(0).train[0]
    squares = images.view(-1, 7, 4, 7, 4).mean((2, 4))

    auto, _ = Autoencoder(encoder=(49, 4), downsample=4).load().train
    residual, _ = ResNet(downsample=4).load().train

    torch.testing.assert_close(auto, squares.flatten(1))
    torch.testing.assert_close(residual, squares[:, None])


@pytest.mark.parametrize("side", [0, 3, 56])
def test_a_side_that_does_not_divide_the_image_is_an_error(side):
    """28 rows cannot be averaged in threes."""
    with pytest.raises(ValueError, match=naming("downsample", side, "28 × 28")):
        ResNet(downsample=side)
