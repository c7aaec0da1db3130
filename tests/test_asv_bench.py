"""The benchmark harness: memory, ratios, and the same matrix in all libraries."""

import json
import re
from functools import partial

import pytest
import torch
from torch.testing import assert_close

import bdhf
from asv_bench import compare_libraries, overhead, profile
from asv_bench.adapter import NotApplicable, ours
from asv_bench.baselines import BASELINES, conjugate_gradients
from asv_bench.benchmarks.memory import peak_bytes
from asv_bench.timing import Spread, interleaved
from asv_bench.workloads import WORKLOADS
from tests.experiments.specs import planned
from tests.messages import naming

#: torch.func.jvp, which curvlinops uses, compiles its rules by torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.")

MIB = 2**20

workloads = pytest.mark.parametrize("name", WORKLOADS)


def made(mebibytes):
    """A tensor of this number of MiB."""
    return torch.zeros(mebibytes, MIB // 4)


def test_peak_is_of_what_lives_at_once():
    """Released tensors do not count, and the largest sum does."""

    def workload():
        first, second = made(2), made(3)
        del first
        return second, made(1)

    assert peak_bytes(workload) == 5 * MIB


def test_what_was_there_before_does_not_count():
    """Views and in-place changes of an earlier tensor use no new memory."""
    before = made(4)

    assert peak_bytes(lambda: before.t().add_(1)[0]) == 0
    assert peak_bytes(lambda: before.t() + 1) == 4 * MIB


def test_saved_tensors_count():
    """Tensors that only autograd holds, for a reverse sweep, count until the graph is released."""
    x = made(1).requires_grad_()

    def chain():
        y = x
        for _ in range(5):
            y = y.sin().cos()  # both save their input; the first input is x itself
        return y

    assert peak_bytes(chain) == 10 * MIB
    with torch.no_grad():
        assert peak_bytes(chain) == 3 * MIB  # the last one, and the input and output of an operator


def test_ratio_of_the_unit_to_itself_is_one():
    """In interleaved rounds, a piece that runs the unit four times costs about four units."""
    x = torch.rand(200, 200)

    def unit():
        return [x @ x for _ in range(20)]

    spreads = interleaved({"four": lambda: [unit() for _ in range(4)]}, unit, most=9, budget=5.0)

    assert 2 < spreads["four"].median < 8
    assert spreads["four"].rounds == 9


def test_a_piece_gets_rounds_by_its_length():
    """A piece without time for a round has only its warm-up."""
    x = torch.rand(100, 100)

    spreads = interleaved({"piece": lambda: x @ x}, lambda: x + x, most=9, budget=0.0)

    assert spreads["piece"].rounds == 1


def test_quartiles():
    """A spread has the quartiles; for one round they are equal."""
    assert Spread.of([3.0, 1.0, 2.0, 5.0, 4.0]) == Spread(2.0, 3.0, 4.0, 5)
    assert str(Spread.of([1.234])) == "1.23"
    assert str(Spread(1.0, 1.5, 2.0, 5)) == "1.5 (1, 2)"


@workloads
def test_quick_works_are_small(name):
    """With `quick` a workload has few parameters and samples, and a gradient of all parameters."""
    workload = WORKLOADS[name](True)

    assert sum(parameter.numel() for parameter in workload.parameters) < 10_000
    assert len(workload.batch[0]) < 10
    assert [g.shape for g in workload.gradient()] == [p.shape for p in workload.parameters]


def test_the_real_works_are_those_of_the_tables():
    """The numbers of parameters of the five workloads."""
    sizes = {name: sum(p.numel() for p in WORKLOADS[name](False).parameters) for name in WORKLOADS}

    assert sizes["autoencoder"] == 2_837_314
    assert sizes["classifier"] == 1_436_860
    assert [name for name, size in sizes.items() if size < 1_000_000] == [
        "resnet", "lstm", "transformer",
    ]  # fmt: skip


@workloads
@pytest.mark.parametrize("baseline", BASELINES)
def test_all_multiply_by_the_same_matrix(name, baseline):
    """The product of a baseline equals that of bdhf, for every partition that it supports."""
    workload = WORKLOADS[name](True)
    partitions, torn = list(workload.partitions), []
    draws = torch.Generator().manual_seed(0)
    v = torch.randn(sum(p.numel() for p in workload.parameters), generator=draws)
    for partition in partitions:
        try:
            product = BASELINES[baseline](workload, partition).set_up()(v)
        except NotApplicable:
            torn.append(partition)
            continue
        G = bdhf.block_curvature(
            workload.model, workload.loss, workload.batch, partition=workload.partitions[partition]
        )
        expected = G @ v
        close = partial(assert_close, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
        close(product, expected)
        close(ours(workload, partition, {}).set_up()(v), expected)

    only_tensors = baseline == "BackPACK GGNMP"
    sequential = name in ("autoencoder", "classifier")
    whole = [p for p in partitions if p != "neurons"]
    served = (["tensors"] if sequential else []) if only_tensors else whole
    assert [p for p in partitions if p not in torn] == served


def test_the_cg_of_the_rivals_solves():
    """Textbook CG solves the damped system in about as many iterations as unknowns."""
    draws = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=draws, dtype=torch.float64)
    matrix, rhs = root @ root.t(), torch.randn(6, generator=draws, dtype=torch.float64)

    x = conjugate_gradients(lambda v: matrix @ v, rhs, 8)

    assert_close(matrix @ x + 1e-3 * x, rhs, rtol=0, atol=1e-6)


def test_a_row_says_why_it_is_empty():
    """A table has a line for every row; one that does not apply has the reason."""
    rows = [
        compare_libraries.Row(
            "w", "bdhf", "full", "propagate", 1, times={"update": Spread.of([30.0])}
        ),
        compare_libraries.Row("w", "other", "full", reason="no graph"),
    ]

    lines = compare_libraries.table(rows, markdown=True).splitlines()

    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[2].split("|")][1:5] == ["bdhf", "full", "1", "propagate"]
    assert "no graph" in lines[3]


def test_an_option_is_a_row_for_every_partition():
    """Rows are bdhf, its options and the baselines; GGNMP only for single tensors."""
    rows = [
        row for row, _ in compare_libraries.adapters(WORKLOADS["autoencoder"](True), ["layer_io"])
    ]

    pairs = {(row.library, row.partition) for row in rows}
    assert len(pairs) == len(rows) == 15
    assert {p for library, p in pairs if library == "bdhf layer_io"} == {
        "full", "halves", "layers", "tensors",
    }  # fmt: skip
    assert {p for library, p in pairs if library == "BackPACK GGNMP"} == {"tensors"}


def test_peers_run(tmp_path, capsys):
    """The command prints the table of a workload and writes it to a file."""
    path, threads = tmp_path / "rows.json", str(torch.get_num_threads())

    compare_libraries.main(
        [
            "--workloads",
            "resnet",
            "--quick",
            "--budget",
            "0",
            "--threads",
            threads,
            "--json",
            str(path),
        ]
    )

    rows = json.loads(path.read_text())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 + len(rows) == 13  # above: machine, workload, heading, lines between
    assert [row["library"] for row in rows if row["reason"]] == ["BackPACK GGNMP"]
    for row in rows[:-1]:
        assert row["memory"] > 1
        assert set(row["times"]) >= {"set_up", "product", "update"}


def test_shares_of_an_update_add_up(capsys):
    """The shares of an update add up to 1, and each is positive."""
    shares = profile.shares(WORKLOADS["autoencoder"](True), "halves", updates=1)

    parts = {part: spread.median for part, spread in shares.items() if part != "update"}
    assert sum(parts.values()) == pytest.approx(1)
    assert all(share > 0 for share in parts.values())


def test_a_watched_call_is_charged_its_own_time():
    """A watched call within another one is not charged to the outer one."""
    watch = profile.Stopwatch()
    inner = watch.watched("inner", lambda: sum(range(100_000)))
    outer = watch.watched("outer", lambda: [inner() for _ in range(3)])

    outer()

    assert watch.spent["outer"] < watch.spent["inner"]


TINY = """\
schema: 1
name: tiny
problem: {type: autoencoder, encoder: [16, 4], downsample: 7}
batch: {gradient: 100, curvature: 20}
arms:
  adam: torch.Adam
  hf: {type: block_hf, solver: {type: cg, max_iters: 3}}
seeds: {count: 1}
budget: {updates: 4}
evaluate: {every_updates: 2}
"""


@pytest.mark.parametrize("arm", ["adam", "hf"])
def test_the_parts_of_a_run_add_up(arm):
    """All time of a run is charged once, to one of four parts, and each part is positive."""
    run = next(cell.run for cell in planned(text=TINY).cells if cell.arm == arm)

    spent = overhead.spending(run)

    assert spent.updates == 4
    assert list(spent.parts) == ["updates", "evaluations", "once", "rest"]
    assert 0.9 * spent.wall_clock < sum(spent.parts.values()) <= spent.wall_clock
    assert all(seconds > 0 for seconds in spent.parts.values())


def test_overhead_runs(tmp_path, capsys):
    """The command prints a line for every arm, and the limit."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)

    overhead.main([str(path)])

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[2:4]] == ["adam", "hf"]
    assert re.search(naming("2 %"), lines[-1])
