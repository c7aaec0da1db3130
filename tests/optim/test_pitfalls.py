"""Mistakes of curvature libraries, each with a test of its name, where no other file has one.

The numbers are those of the list of pitfalls: 1 reduction, 2 partition, 3 determinism, 4 batch
normalisation, 6 fused attention, 7 updates in place, 8 memory, 9 precision, 11 others' bugs.
"""

import copy
import gc
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close

import bdhf
from bdhf.optim.torch_support.precision import full_precision
from bdhf.optim.vectors.layout import layout_of
from tests.cases import Attention, Case, ScaledDotProduct, build
from tests.messages import naming
from tests.optim.partitions import PARTITIONS
from tests.oracles import cut, dense_ggn, dense_hessian, flat_parameters

EXACT = bdhf.CG(max_iters=2000, tol=0, residual_tol=1e-13)
STOCHASTIC = {"curvature": bdhf.Fisher(samples=1), "damping": bdhf.LevenbergMarquardt(1.0)}


def small(seed=0):
    """A small classifier in float32, and a batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
        return model, (torch.randn(20, 4), torch.randint(0, 3, (20,)))


def same(model, twin):
    """Whether two models have the same parameters, bit for bit."""
    return all(
        torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True)
    )


LOSSES = {
    "ignored": partial(F.cross_entropy, ignore_index=1),
    "weighted": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 4.0, 0.5]).double()),
    "sum": partial(F.cross_entropy, reduction="sum"),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("partition", ["full", "per_layer", "per_neuron", "blend"])
@pytest.mark.parametrize("curvature", [bdhf.GGN(), bdhf.Hessian()], ids=["ggn", "hessian"])
def test_1_micro_batches_step_like_the_whole_batch(loss, partition, curvature):
    """Gradient and curvature lists of unequal pieces, one without a label that counts."""
    y = torch.tensor([1, 1, 0, 2, 1, 0, 0, 2])
    steps, infos = [], []
    for sizes in ([8], [2, 5, 1]):
        case = build("ignoring")
        pieces = list(zip(case.batch[0].split(sizes), y.split(sizes), strict=True))
        made = PARTITIONS[partition](layout_of(case.model))
        optimizer = bdhf.BlockHessianFree(
            case.model,
            LOSSES[loss],
            curvature=curvature,
            partition=made,
            solver=EXACT,
            damping=bdhf.Constant(1.0),
            acceptance=bdhf.Backtracking(),
        )
        before = flat_parameters(case).clone()
        infos.append(optimizer.step(pieces, curvature_batch=list(reversed(pieces))))
        steps.append(flat_parameters(case) - before)

    assert_close(steps[1], steps[0], rtol=0, atol=1e-9)
    assert steps[0].norm() > 0.01
    assert infos[1].loss == pytest.approx(infos[0].loss)
    assert infos[1].reduction_ratio == pytest.approx(infos[0].reduction_ratio, rel=1e-6)


@pytest.mark.parametrize("case", ["mlp", "sum_bce", "tied"])
def test_1_elements_are_the_terms_of_squared_and_binary_errors(case):
    """The mean divides by N times C: a last micro-batch of one sample counts its share."""
    case = build(case)
    n = len(case.batch[0])
    pieces = list(zip(*(part.split([n - 1, 1]) for part in case.batch), strict=True))

    whole = bdhf.block_curvature(case.model, case.loss_fn, case.batch)
    parts = bdhf.block_curvature(case.model, case.loss_fn, pieces)

    assert_close(parts.to_dense(), whole.to_dense())
    assert_close(whole.to_dense(), dense_ggn(case))


def test_2_a_weight_of_two_modules_is_one_parameter():
    """A tensor that two modules own is in one block, with the curvature of both uses."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh()).double()
        model[2].weight = model[0].weight
        batch = (torch.randn(5, 3).double(), torch.randn(5, 3).double())
    case = Case(model, F.mse_loss, batch)
    G = bdhf.block_curvature(model, F.mse_loss, batch, partition=bdhf.PerLayer())

    assert [len(block) for block in G.blocks] == [12, 3]
    assert_close(G.to_dense(), cut(dense_ggn(case), G.blocks))


def test_3_the_callers_generator_is_untouched_by_draws():
    """Neither products, check, solve nor line search of a Fisher draw from torch's generator."""
    model, batch = small()
    before = torch.get_rng_state()

    bdhf.block_curvature(model, F.cross_entropy, batch, curvature=bdhf.Fisher(samples=3)).check()
    optimizer = bdhf.BlockHessianFree(
        model, F.cross_entropy, acceptance=bdhf.Backtracking(), **STOCHASTIC
    )
    for _ in range(3):
        optimizer.step(batch)

    assert torch.equal(torch.get_rng_state(), before)


def test_3_draws_do_not_depend_on_the_callers_generator():
    """Two callers with different global seeds get the same update from the same seed."""
    models = []
    for seed in (1, 2):
        model, batch = small()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            bdhf.BlockHessianFree(model, F.cross_entropy, **STOCHASTIC).step(batch)
        models.append(model)

    assert same(*models)


@pytest.mark.parametrize("seed", [0, 7, 2**62])
def test_3_every_seed_is_a_seed(seed):
    """The seed 0 has its own draws, which are its own again the next time."""

    def trained(seed):
        model, batch = small()
        optimizer = bdhf.BlockHessianFree(model, F.cross_entropy, seed=seed, **STOCHASTIC)
        for _ in range(2):
            optimizer.step(batch)
        return model

    assert same(trained(seed), trained(seed))
    assert not same(trained(seed), trained(seed + 1))


def test_4_running_statistics_do_not_move():
    """Products, check, preconditioner, solve and line search leave the buffers of a model."""
    case = build("batch_norm")
    before = {name: buffer.clone() for name, buffer in case.model.named_buffers()}

    G = bdhf.block_curvature(case.model, case.loss_fn, case.batch)
    G @ torch.ones(G.shape[0], dtype=torch.float64)
    G.check()
    optimizer = bdhf.BlockHessianFree(
        case.model,
        case.loss_fn,
        solver=bdhf.CG(preconditioner=bdhf.Martens()),
        acceptance=bdhf.Backtracking(),
    )
    for _ in range(3):
        optimizer.step(case.batch)

    after = dict(case.model.named_buffers())
    assert len(before) == 3
    assert all(torch.equal(after[name], buffer) for name, buffer in before.items())
    assert not case.model.training


class Spy(nn.Module):
    """Notes something at every forward pass, and passes its input on."""

    def __init__(self, look):
        super().__init__()
        self.look, self.seen = look, []

    def forward(self, x):
        self.seen.append(self.look())
        return x


ATTENTIONS = {"function": ScaledDotProduct, "module": Attention}


@pytest.mark.parametrize("kind", ATTENTIONS)
@pytest.mark.parametrize("curvature", ["ggn", "hessian"])
def test_6_fused_attention_gives_way_to_the_plain_kernel(kind, curvature):
    """Products in single precision, where the fused kernel would run, are those of the oracle."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ATTENTIONS[kind]()
        batch = (torch.randn(4, 3, 4), torch.randn(4, 2))
    exact = Case(copy.deepcopy(model).double(), F.mse_loss, tuple(part.double() for part in batch))
    made = {"ggn": bdhf.GGN(), "hessian": bdhf.Hessian()}[curvature]
    dense = {"ggn": dense_ggn, "hessian": dense_hessian}[curvature](exact)

    G = bdhf.block_curvature(model, F.mse_loss, batch, curvature=made)

    assert_close(G.to_dense().double(), dense, rtol=1e-3, atol=1e-5)
    assert G.check().passed


def test_6_the_plain_kernel_is_asked_for_and_given_back():
    """Inside the linearisation the plain kernel alone is allowed; behind it, all that were."""

    def kernels():
        return (
            torch.backends.cuda.math_sdp_enabled(),
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
        )

    spy = Spy(kernels)
    model, batch = small()
    model.append(spy)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
        before = kernels()
        bdhf.block_curvature(model, F.cross_entropy, batch)
        after = kernels()

    assert set(spy.seen) == {(True, False, False)}
    assert before == after == (True, True, False)


@pytest.mark.parametrize("curvature", [bdhf.GGN(), bdhf.Hessian()], ids=["ggn", "hessian"])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.ELU, nn.LeakyReLU, nn.SiLU])
def test_7_activations_in_place_give_the_matrix_of_those_that_are_not(activation, curvature):
    """What an activation overwrites is not what the kept graph needs."""
    matrices, steps = [], []
    for inplace in (True, False):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = nn.Sequential(
                nn.Linear(3, 4), activation(inplace=inplace), nn.Linear(4, 4),
                activation(inplace=inplace), nn.Linear(4, 2),
            ).double()  # fmt: skip
            batch = (torch.randn(6, 3).double(), torch.randn(6, 2).double())
        case = Case(model, F.mse_loss, batch)
        matrices.append(
            bdhf.block_curvature(model, F.mse_loss, batch, curvature=curvature).to_dense()
        )
        optimizer = bdhf.BlockHessianFree(
            model, F.mse_loss, curvature=curvature, damping=bdhf.Constant(1.0)
        )
        for _ in range(3):
            optimizer.step(batch)
        steps.append(flat_parameters(case).clone())

    assert_close(matrices[0], matrices[1])
    assert_close(steps[0], steps[1])


def test_7_a_matrix_of_moved_parameters_is_no_matrix():
    """Whatever multiplies after an update in place raises, rather than mixing two points."""
    model, batch = small()
    G = bdhf.block_curvature(model, F.cross_entropy, batch)
    v = torch.ones(G.shape[0])

    with torch.no_grad():
        model[2].bias.add_(1.0)

    for multiply in (lambda: G @ v, G.to_dense, G.check, G.off_block_energy):
        with pytest.raises(RuntimeError, match=naming("'2.bias'", "block_curvature")):
            multiply()


@pytest.mark.parametrize("curvature", [bdhf.GGN(), bdhf.Fisher(), bdhf.Hessian()])
def test_8_memory_does_not_grow(curvature):
    """After 200 updates there are no more objects than after 20, but for what Python caches."""
    model, batch = small()
    optimizer = bdhf.BlockHessianFree(
        model,
        F.cross_entropy,
        curvature=curvature,
        solver=bdhf.CG(max_iters=2),
        damping=bdhf.LevenbergMarquardt(10.0),
    )

    def objects_after(updates):
        for _ in range(updates):
            optimizer.step(batch)
        gc.collect()
        return len(gc.get_objects())

    early = objects_after(20)

    assert objects_after(180) - early < 20  # fewer, where other tests left garbage behind


def precision():
    """Whether autocast, and TF32 in matrix products and in convolutions, are on."""
    return (
        torch.is_autocast_enabled("cpu"),
        torch.backends.cuda.matmul.fp32_precision == "tf32",
        torch.backends.cudnn.conv.fp32_precision == "tf32",
    )


@pytest.fixture
def _tf32():
    """TF32 on where it can be, and afterwards as it was."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = True
    yield
    matmul.allow_tf32, cudnn.allow_tf32 = before


@pytest.mark.usefixtures("_tf32")
def test_9_an_update_runs_in_full_precision():
    """Every forward pass of an update is without autocast and TF32, and both are back behind it."""
    model, batch = small()
    spy = Spy(precision)
    model.append(spy)
    optimizer = bdhf.BlockHessianFree(model, F.cross_entropy, acceptance=bdhf.Backtracking())

    with torch.autocast("cpu", dtype=torch.bfloat16):
        optimizer.step(batch)
        assert precision() == (True, True, True)

    assert set(spy.seen) == {(False, False, False)}
    assert len(spy.seen) > 3  # check, linearisation, line search
    assert precision() == (False, True, True)


@pytest.mark.usefixtures("_tf32")
@pytest.mark.parametrize("fails", [1, 3, 6])
def test_9_precision_is_given_back_after_an_exception(fails):
    """Wherever a forward pass fails, the settings are what they were."""
    model, batch = small()

    def look():
        if len(spy.seen) == fails:
            raise RuntimeError("planted")
        return precision()

    def train():
        for _ in range(5):
            bdhf.BlockHessianFree(model, F.cross_entropy).step(batch)

    spy = Spy(look)
    model.append(spy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(RuntimeError, match="planted"):
            train()
        assert precision() == (True, True, True)

    assert set(spy.seen) == {(False, False, False)}


#: Settings of a user, each for a separate process: they cannot be mixed within one.
SETTINGS = {
    "nothing": "pass",
    "legacy_high": "torch.set_float32_matmul_precision('high')",
    "legacy_medium": "torch.set_float32_matmul_precision('medium')",
    "matmul": "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "everything": "torch.backends.fp32_precision = 'tf32'",
    "convolutions": "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
}
PROGRAM = """
import torch
from torch.nn import functional as F
from bdhf.optim.torch_support.precision import full_precision

def settings():
    backends = torch.backends
    kinds = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul)
    legacy = []
    for read in (torch.get_float32_matmul_precision, lambda: backends.cudnn.allow_tf32):
        try:
            legacy.append(read())
        except RuntimeError:  # torch refuses what was set by its newer names
            legacy.append("refused")
    return [backends.fp32_precision, *(kind.fp32_precision for kind in kinds), *legacy]

{setting}
before = settings()
with full_precision(torch.device("cpu")):
    inside = settings()
print(inside[1], inside[2], inside[3], before == settings(), before, settings())
"""


@pytest.mark.parametrize("setting", SETTINGS)
def test_9_every_way_to_ask_for_tf32_is_understood_and_given_back(setting):
    """Torch has an old and a new way to set it, and refuses to read one after the other."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(setting=SETTINGS[setting])],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    *inside, back = ran.stdout.split()[:4]
    assert set(inside) <= {"ieee", "none"}, ran.stdout
    assert back == "True", ran.stdout


@pytest.mark.usefixtures("_tf32")
def test_9_full_precision_may_be_nested():
    """An inner one gives back what the outer one set."""
    device = torch.device("cpu")
    with torch.autocast("cpu", dtype=torch.bfloat16), full_precision(device):
        with full_precision(device):
            pass
        assert precision() == (False, False, False)

    assert precision() == (False, True, True)


def test_11_fishers_draws_change_between_updates():
    """At one point and batch two updates solve with other matrices: the draws are not reused."""
    model, batch = small()
    start = copy.deepcopy(model.state_dict())
    optimizer = bdhf.BlockHessianFree(
        model,
        F.cross_entropy,
        curvature=bdhf.Fisher(samples=1),
        solver=bdhf.CG(warm_start=0.0),
    )

    directions = []
    for _ in range(2):
        optimizer.step(batch)
        directions.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
        model.load_state_dict(start)

    assert not torch.allclose(directions[0], directions[1])


def test_11_fishers_draws_are_those_of_one_matrix_in_an_update():
    """The reduction ratio is of the very matrix that was solved with: the draws of update 1."""
    model, batch = small()
    model, batch = model.double(), (batch[0].double(), batch[1])
    case = Case(model, F.cross_entropy, batch)
    optimizer = bdhf.BlockHessianFree(
        model,
        F.cross_entropy,
        curvature=bdhf.Fisher(samples=1),
        partition=bdhf.Full(),
        solver=EXACT,
        damping=bdhf.Constant(0.1),
        lr=1.0,
        seed=5,
    )
    fisher = bdhf.block_curvature(
        model, F.cross_entropy, batch, curvature=bdhf.Fisher(samples=1), seed=5
    ).to_dense()
    loss = F.cross_entropy(model(batch[0]), batch[1])
    gradient = torch.cat(
        [g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))]
    )
    damped = fisher + 0.1 * torch.eye(len(fisher), dtype=torch.float64)
    before = flat_parameters(case).clone()

    optimizer.step(batch)

    assert_close(flat_parameters(case) - before, torch.linalg.solve(damped, -gradient))


def test_11_fishers_draws_resume_bit_exactly(tmp_path):
    """Saved, loaded into a new optimizer and continued, the draws continue."""
    model, batch = small()
    optimizer = bdhf.BlockHessianFree(model, F.cross_entropy, seed=3, **STOCHASTIC)
    for _ in range(3):
        optimizer.step(batch)
    twin = copy.deepcopy(model)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    resumed = bdhf.BlockHessianFree(twin, F.cross_entropy, seed=3, **STOCHASTIC)
    fresh = copy.deepcopy(model)

    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    infos = [(optimizer.step(batch), resumed.step(batch)) for _ in range(3)]
    bdhf.BlockHessianFree(fresh, F.cross_entropy, seed=3, **STOCHASTIC).step(batch)

    assert all(info == other for info, other in infos)
    assert same(model, twin)
    assert not same(model, fresh)
