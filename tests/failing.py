"""An optimizer of a user's own that fails after its first updates: an honest error."""

import torch


class Failing(torch.optim.SGD):
    """Fails in its fourth update."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr)
        self.steps = 0

    def step(self, closure=None):
        """Make an update, or fail."""
        self.steps += 1
        if self.steps == 4:
            raise RuntimeError("no fourth update")
        return super().step(closure)
