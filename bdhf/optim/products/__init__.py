"""How a block product is computed, apart from which matrix it is. One file each."""

from bdhf.optim.products.choose import METHODS, linearise
from bdhf.optim.products.product import BlockProduct

__all__ = ["METHODS", "BlockProduct", "linearise"]
