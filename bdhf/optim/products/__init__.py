"""How block products are computed, whichever matrix they are with. One file each."""

from bdhf.optim.products.choose import METHODS, check_method, linearise
from bdhf.optim.products.product import BlockProduct
from bdhf.optim.products.request import MAX_BYTES, Settings, Workspace

__all__ = [
    "MAX_BYTES",
    "METHODS",
    "BlockProduct",
    "Settings",
    "Workspace",
    "check_method",
    "linearise",
]
