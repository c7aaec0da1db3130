"""Which bottleneck saves most: values on a tape through which all effects of a block pass."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torch import Tensor

from bdhf.optim.products.request import Request
from bdhf.optim.products.tape.route import Route, route
from bdhf.optim.products.tape.tape import Tape

Slots = tuple[int, ...]

#: Columns that H is applied to at a time.
BOTTLENECK_COLUMNS = 2

#: The memory limit of a Jacobian at a bottleneck, relative to the parameters or the activations: as
#: much as the vectors of CG take later.
ROOM = 2.75


@dataclass(frozen=True)
class Bottleneck:
    """A value on a tape, and the blocks that reach the outputs only through it."""

    value: int
    width: int  # w
    held: int  # columns of the Jacobian that are held at once
    blocks: frozenset[Slots]  # the tensors that each of them touches


def count_sets(request: Request) -> Counter[Slots]:
    """How many blocks touch each set of tensors."""
    return Counter(block.slots for block in request.blocks.rows)


def find_bottleneck(request: Request, tape: Tape, z: Tensor) -> Bottleneck | None:
    """The bottleneck that saves most FLOPs over the expected products; None: none does."""
    samples = z.shape[0] if z.dim() else 0
    sweeps: Counter[int] = Counter()
    blocks: dict[int, set[Slots]] = {}
    behind: dict[int, int] = {}
    for slots, count in count_sets(request).items():
        for value, flops in _cuts(request, tape, slots).items():
            sweeps[value] += count * request.products
            blocks.setdefault(value, set()).add(slots)
            behind[value] = flops
    best, most = None, 0
    own = sum(p.numel() * p.element_size() for p in request.objective.parameters)
    made = request.flops.once(("bytes", request.shapes), lambda: tape.bytes)
    room = min(request.settings.max_bytes, int(ROOM * max(own, made)))
    for value, count in sweeps.items():
        c = tape.made(value)
        width = c[0].numel() if c.dim() and c.shape[0] == samples else 0
        held = min(width, room // (z.numel() * z.element_size()) - 2 * BOTTLENECK_COLUMNS)
        if held < 1 or c.grad_fn is None or c.is_complex():
            continue
        sweeps_once = sum(width - start for start in range(0, width, held))
        saved = count * 2 * (behind[value] - samples * width**2)  # forward and back, less K
        cost = sweeps_once * behind[value] + 2 * z.numel() * width**2
        if saved - 2 * cost > most:  # twice, since CG may stop early
            most = saved - 2 * cost
            best = Bottleneck(value, width, held, frozenset(blocks[value]))
    return best


def _cuts(request: Request, tape: Tape, slots: Slots) -> dict[int, int]:
    """Values through which all effects of some parameters pass, with the FLOPs behind each."""
    assert tape.output is not None  # a tape without one is not used
    key, target = ("cuts", request.shapes, slots), tape.output
    return request.flops.once(key, lambda: _cuts_of(route(tape, slots, target), slots))


def _cuts_of(path: Route, sources: Slots) -> dict[int, int]:
    """Values through which the whole path passes, with the FLOPs behind each."""
    reached = {*sources, *(value for entry in path.entries for value in entry.makes)}
    last = {
        read: at for at, entry in enumerate(path.entries) for read in entry.reads if read in reached
    }
    live = {source for source in sources if source in last}
    behind = sum(entry.flops for entry in path.entries)
    cuts: dict[int, int] = {}
    for at, entry in enumerate(path.entries):
        behind -= entry.flops
        live = {value for value in live if last[value] > at}
        live.update(value for value in entry.makes if last.get(value, -1) > at)
        if len(live) == 1 and behind:
            (value,) = live
            if value not in sources:
                cuts.setdefault(value, behind)
    return cuts
