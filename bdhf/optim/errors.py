"""The errors of the method; messages name the module, the reason and what to do.

BdhfError             the base of all errors of bdhf (bdhf/errors.py)
├── ModelError        a model, a loss or a batch without a curvature product here
│   └── ModelTypeError    ... because something is of the wrong type
└── CurvatureError    products that cannot be computed, or cannot be right
"""

from __future__ import annotations

from bdhf.errors import BdhfError


class ModelError(BdhfError, ValueError):
    """A model, a loss or a batch whose curvature products would be wrong or do not exist."""


class ModelTypeError(ModelError, TypeError):
    """A model, a loss or a batch of a type that has no curvature products."""


class CurvatureError(BdhfError, RuntimeError):
    """Products that cannot be computed, or that cannot be right."""
