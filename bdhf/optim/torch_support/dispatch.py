"""A mode of torch that sees every operator, as the meter of FLOPs and the tape do."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class DispatchMode(TorchDispatchMode):
    """Sees every operator while it is entered; a subclass has `__torch_dispatch__`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it unannotated

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Refuse torch's offer to keep its compiler out: that would load it, for seconds."""
        return False
