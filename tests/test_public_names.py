"""The names that users, docs and YAML rely on."""

import pytest

import bdhf


@pytest.mark.parametrize("name", bdhf.__all__)
def test_every_public_name_resolves(name):
    """Lazy names are there, and listed."""
    assert getattr(bdhf, name) is not None
    assert name in dir(bdhf)


def test_an_unknown_name_says_what_is_known():
    """A typo in an attribute names the public names."""
    with pytest.raises(AttributeError, match="no attribute 'BlockHessianfree'; known: CG, EKFAC"):
        bdhf.BlockHessianfree  # noqa: B018 - looking it up is the test
