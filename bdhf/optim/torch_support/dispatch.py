"""A mode of torch that intercepts every operator, for the FLOP counter and the tape."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class DispatchMode(TorchDispatchMode):
    """Intercepts every operator while it is entered; subclasses have `__torch_dispatch__`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it unannotated

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Do not let torch skip its compiler: that would load it, which takes seconds."""
        return False
