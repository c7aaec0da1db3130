"""The accelerators of this machine, for tests that run on each."""

import pytest
import torch

GPUS = [pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else []
