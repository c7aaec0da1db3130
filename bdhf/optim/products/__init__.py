"""How a block product is computed, apart from which matrix it is. One file each."""

from bdhf.optim.products.choose import METHODS, BlockProduct, linearise

__all__ = ["METHODS", "BlockProduct", "linearise"]
