"""Partitions: what they cut, and what they refuse."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import bdhf
from bdhf.nn import PeepholeLSTM
from bdhf.optim.partitions import Blend, PerNeuron, Random
from bdhf.optim.vectors.blocks import Blocks
from bdhf.optim.vectors.layout import layout_of
from bdhf.optim.vectors.param_groups import param_groups
from tests.cases import build
from tests.messages import naming
from tests.optim.partitions import thirds

MODEL = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def shapes(partition):
    """Shapes of the block matrices on the two-layer model: 42 and 24 parameters."""
    return [tuple(matrix.shape) for matrix in partition(layout_of(MODEL))]


def test_full_is_one_row():
    """Full HF is one matrix of one row."""
    assert shapes(bdhf.Full()) == [(1, 66)]


def test_per_layer_keeps_weight_and_bias_together():
    """Per-layer is one matrix of one row a layer."""
    assert shapes(bdhf.PerLayer()) == [(1, 42), (1, 24)]


def test_per_layer_knows_stacked_and_composed_layers():
    """A stacked LSTM is one block a layer, attention is one block with its output projection."""
    lstm = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    attention = nn.Sequential(nn.MultiheadAttention(4, 2), nn.Linear(4, 1))

    def sizes(model):
        return [rows.numel() for rows in bdhf.PerLayer()(layout_of(model))]

    first = 2 * (4 * 4 * (3 + 4) + 2 * 4 * 4)
    second = 2 * (4 * 4 * (8 + 4) + 2 * 4 * 4)
    assert sizes(lstm) == [first, second]
    assert sizes(attention) == [4 * 4 * 4 + 4 * 4, 5]


def test_per_layer_knows_peepholes_and_parametrizations():
    """A PeepholeLSTM is one block a layer; weight_norm's tensors stay with the bias."""
    stack = nn.Sequential(PeepholeLSTM(2, 3, num_layers=2), weight_norm(nn.Linear(3, 2)))
    recurrent = weight_norm(nn.LSTM(2, 3, num_layers=2), "weight_hh_l0")

    def sizes(model):
        return [rows.numel() for rows in bdhf.PerLayer()(layout_of(model))]

    first, second = 4 * 3 * (2 + 3 + 2) + 3 * 3, 4 * 3 * (3 + 3 + 2) + 3 * 3
    assert sizes(stack) == [first, second, 2 + 6 + 2]
    assert sizes(recurrent) == [4 * 3 * (2 + 1 + 3 + 2), 4 * 3 * (3 + 3 + 2)]


def test_groups_follow_the_order_of_the_user():
    """The first block is the first list of patterns, whatever its place in the model."""
    blocks = bdhf.Groups([["2.*"], ["0.weight", "0.bias"]])(layout_of(MODEL))

    assert [block.min().item() for block in blocks] == [42, 0]


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([["0.*"]], naming("'2.weight'")),
        ([["0.*"], ["*.weight"], ["2.bias"]], naming("'0.weight'", "'0.*'", "'*.weight'")),
        ([["*"], ["encoder.*"]], naming("'encoder.*'", "0.weight", "2.bias")),
    ],
)
def test_groups_that_miss_or_repeat_a_parameter_name_it(blocks, message):
    """A parameter in no block or in two, and an idle pattern, are errors that name them."""
    with pytest.raises(ValueError, match=message):
        bdhf.Groups(blocks)(layout_of(MODEL))


@pytest.mark.parametrize("blocks", [[], [[]], ["0.*", "2.*"], "0.*"])
def test_groups_that_are_no_lists_of_patterns_are_refused(blocks):
    """The nesting is checked before any model is met."""
    with pytest.raises(ValueError, match="Groups"):
        bdhf.Groups(blocks)


def test_a_pattern_for_frozen_or_tied_parameters_says_so():
    """The error for an unused pattern of an existing parameter names the reason."""
    frozen = build("frozen").model
    with pytest.raises(ValueError, match=naming("'2.weight'", "frozen")):
        bdhf.Groups([["0.weight", "2.bias", "4.*"], ["2.weight"]])(layout_of(frozen))
    with pytest.raises(ValueError, match=naming("'mirror.weight'", "tied")):
        bdhf.Groups([["encoder.*", "decoder.*"], ["mirror.*"]])(layout_of(build("tied").model))


@pytest.mark.parametrize(
    ("matrices", "message"),
    [
        ([torch.arange(60)[None]], naming("'2.weight'", 18)),
        ([torch.arange(66)[None], torch.tensor([[0]])], naming("'0.weight'", 0, 2)),
        ([torch.arange(67)[None]], naming(66, 0, 65)),
        ([torch.arange(66)], naming("LongTensors", "(66,)")),
        ([[*range(66)]], r"LongTensors .*\[\[0, 1"),
        (None, naming("LongTensors", None)),
        ([], naming("partition")),
    ],
)
def test_a_partition_that_does_not_cover_each_entry_once_is_refused(matrices, message):
    """The coverage check names the first entry that is wrong."""
    with pytest.raises(ValueError, match=message):
        Blocks.of(layout_of(MODEL), matrices)


#: Layers whose neurons are a view of the tensors, and layers whose neurons are none.
STRIDED = {
    "linear": (MODEL, PerNeuron(), True),
    "convolution": (nn.Conv2d(3, 4, 3), PerNeuron(), True),
    "scale": (nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)), PerNeuron(), True),
    "embedding": (nn.Embedding(5, 3), PerNeuron(), True),
    "gates": (nn.LSTM(2, 3), PerNeuron(), False),
    "any": (MODEL, thirds, False),
}


@pytest.mark.parametrize("name", STRIDED)
def test_block_order_is_the_order_of_the_partition(name):
    """`gather` takes the positions that the partition lists, `scatter` undoes it; many at once."""
    model, partition, strided = STRIDED[name]
    layout = layout_of(model)
    matrices = partition(layout)
    order = torch.cat([matrix.reshape(-1) for matrix in matrices])
    blocks = Blocks.of(layout, matrices)
    flat = torch.randn(layout.size, 2, 3).permute(1, 2, 0)  # the last stride is not 1

    assert all(view.positions is None for view in blocks.views) is strided
    for vector in (flat, flat[0, 0], flat[0, 0].contiguous()):
        assert torch.equal(blocks.gather(vector), vector[..., order])
        assert torch.equal(blocks.scatter(blocks.gather(vector)), vector)
    assert torch.equal(torch.cat(blocks.positions()), order)


def test_row_arithmetic_is_arithmetic_within_each_row():
    """dot, add_scaled_, scale_add_ and zero_ act on every block with its own coefficient."""
    blocks = Blocks.of(layout_of(MODEL), [torch.arange(60).view(6, 10), torch.arange(60, 66)[None]])
    x, y, a = torch.randn(66), torch.randn(66), torch.randn(7)
    spread = torch.cat([a[:6].repeat_interleave(10), a[6:].repeat_interleave(6)])
    owner = torch.cat([torch.arange(6).repeat_interleave(10), torch.full((6,), 6)])

    torch.testing.assert_close(blocks.dot(x, y), torch.zeros(7).index_add(0, owner, x * y))
    torch.testing.assert_close(blocks.add_scaled_(y.clone(), a, x), y + spread * x)
    torch.testing.assert_close(blocks.scale_add_(y.clone(), a, x), x + spread * y)
    blocks.zero_(a > 0, x)
    assert torch.equal(x != 0, spread <= 0)


def test_blocks_of_whole_tensors_are_param_groups_of_their_own():
    """Per-layer blocks have one group each, named by their parameters."""
    layout = layout_of(MODEL)
    groups, owner = param_groups(
        Blocks.of(layout, bdhf.PerLayer()(layout)), list(MODEL.parameters())
    )

    assert [g["names"] for g in groups] == [("0.weight", "0.bias"), ("2.weight", "2.bias")]
    assert owner == [0, 1]


def test_blocks_that_cut_through_the_same_tensors_share_a_group():
    """Rows of one layer share its group; a block that bridges layers joins their groups."""
    layout = layout_of(MODEL)
    rows = Blocks.of(layout, [torch.arange(42).view(6, 7), torch.arange(42, 66).view(4, 6)])
    bridged = Blocks.of(layout, [torch.tensor([[0, 65]]), torch.arange(1, 65)[None]])

    # five rows cut the first weight, the sixth is its bias whole, four cut the second layer
    assert param_groups(rows, list(MODEL.parameters()))[1] == [0] * 5 + [1] + [2] * 4
    assert param_groups(bridged, list(MODEL.parameters()))[1] == [0, 0]


def test_a_model_without_trainable_parameters_is_an_error():
    """The error names the model and what to set."""
    with pytest.raises(ValueError, match=naming("Tanh", "requires_grad")):
        layout_of(nn.Tanh())


class Custom(nn.Module):
    """A module without a rule: two tensors of two rows, one of three, and a scalar."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 2, 2))
        self.scale = nn.Parameter(torch.zeros(2, 1))
        self.other = nn.Parameter(torch.zeros(3))
        self.gain = nn.Parameter(torch.zeros(()))


class Tied(nn.Module):
    """An embedding whose weight is the read-out's too."""

    def __init__(self):
        super().__init__()
        self.read = nn.Embedding(5, 3)
        self.write = nn.Linear(3, 5)
        self.write.weight = self.read.weight


def frozen(model, *names):
    """The model with some tensors that are not trained."""
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    return model


def rows_of(*names, units):
    """Unit u is row u of these tensors."""
    return lambda t: [[t[name][u] for name in names] for u in units]


def hidden(*suffixes, size):
    """Unit u is row u of every gate of the four tensors of a recurrent layer."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return lambda t: [
        [t[name + suffix][u::size] for name in names] for suffix in suffixes for u in range(size)
    ]


def both(*parts):
    """The units of all of these."""
    return lambda t: [unit for part in parts for unit in part(t)]


DIRECTIONS = ("_l0", "_l0_reverse", "_l1", "_l1_reverse")
OUT_PROJ = rows_of("out_proj.weight", "out_proj.bias", units=range(4))

# model -> shapes of the block matrices, and from every tensor's positions those of every unit
UNITS = {
    "linear": (
        lambda: nn.Linear(3, 2),
        [(2, 4)],
        rows_of("weight", "bias", units=range(2)),
    ),
    "no bias": (
        lambda: nn.Linear(3, 2, bias=False),
        [(2, 3)],
        rows_of("weight", units=range(2)),
    ),
    "frozen bias": (
        lambda: frozen(nn.Linear(3, 2), "bias"),
        [(2, 3)],
        rows_of("weight", units=range(2)),
    ),
    "bilinear": (
        lambda: nn.Bilinear(2, 3, 4),
        [(4, 7)],
        rows_of("weight", "bias", units=range(4)),
    ),
    "conv of groups": (
        lambda: nn.Conv2d(4, 6, 3, groups=2),
        [(6, 2 * 9 + 1)],
        rows_of("weight", "bias", units=range(6)),
    ),
    "transposed conv of groups": (
        lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
        [(6, 2 * 9 + 1)],
        lambda t: [
            [t["weight"][2 * group : 2 * group + 2, o], t["bias"][3 * group + o]]
            for group in range(2)
            for o in range(3)
        ],
    ),
    "embedding": (
        lambda: nn.Embedding(5, 3),
        [(3, 5)],
        lambda t: [[t["weight"][:, d]] for d in range(3)],
    ),
    "embedding bag": (
        lambda: nn.EmbeddingBag(5, 3),
        [(3, 5)],
        lambda t: [[t["weight"][:, d]] for d in range(3)],
    ),
    "lstm": (
        lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True),
        [(8, 4 * (3 + 4 + 2)), (8, 4 * (8 + 4 + 2))],
        hidden(*DIRECTIONS, size=4),
    ),
    "lstm with projection": (
        lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2),
        [(8, 4 * (3 + 2 + 2)), (4, 4), (8, 4 * (4 + 2 + 2)), (4, 4)],
        both(
            hidden(*DIRECTIONS, size=4),
            *(rows_of(f"weight_hr{direction}", units=range(2)) for direction in DIRECTIONS),
        ),
    ),
    "gru": (
        lambda: nn.GRU(3, 4),
        [(4, 3 * (3 + 4 + 2))],
        hidden("_l0", size=4),
    ),
    "rnn": (lambda: nn.RNN(3, 4), [(4, 3 + 4 + 2)], hidden("_l0", size=4)),
    "lstm cell": (lambda: nn.LSTMCell(3, 4), [(4, 4 * 9)], hidden("", size=4)),
    "gru cell": (lambda: nn.GRUCell(3, 4), [(4, 3 * 9)], hidden("", size=4)),
    "rnn cell": (lambda: nn.RNNCell(3, 4), [(4, 9)], hidden("", size=4)),
    "peephole lstm": (
        lambda: PeepholeLSTM(3, 4, num_layers=2),
        [(4, 4 * 9 + 3), (4, 4 * 10 + 3)],
        lambda t: [
            [*unit, t[f"peephole_l{layer}"][u::4]]
            for layer in range(2)
            for u, unit in enumerate(hidden(f"_l{layer}", size=4)(t))
        ],
    ),
    "layer norm": (
        lambda: nn.LayerNorm((2, 3)),
        [(6, 2)],
        lambda t: [[t["weight"][i, j], t["bias"][i, j]] for i in range(2) for j in range(3)],
    ),
    "group norm": (
        lambda: nn.GroupNorm(2, 4),
        [(4, 2)],
        rows_of("weight", "bias", units=range(4)),
    ),
    "batch norm": (
        lambda: nn.BatchNorm1d(3),
        [(3, 2)],
        rows_of("weight", "bias", units=range(3)),
    ),
    "instance norm": (
        lambda: nn.InstanceNorm2d(3, affine=True),
        [(3, 2)],
        rows_of("weight", "bias", units=range(3)),
    ),
    "rms norm": (lambda: nn.RMSNorm(3), [(3, 1)], rows_of("weight", units=range(3))),
    "prelu": (lambda: nn.PReLU(3), [(3, 1)], rows_of("weight", units=range(3))),
    "attention": (
        lambda: nn.MultiheadAttention(4, 2),
        [(12 + 4, 4 + 1)],
        both(rows_of("in_proj_weight", "in_proj_bias", units=range(12)), OUT_PROJ),
    ),
    "attention over other keys and values": (
        lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=2, add_bias_kv=True),
        [(4 + 4, 4 + 1), (4, 3 + 1), (4, 2 + 1), (8, 1)],
        both(
            lambda t: [
                [t[f"{name}_proj_weight"][u], t["in_proj_bias"][4 * i + u]]
                for i, name in enumerate("qkv")
                for u in range(4)
            ],
            lambda t: [[entry] for name in ("bias_k", "bias_v") for entry in t[name].flatten()],
            OUT_PROJ,
        ),
    ),
    "weight norm": (
        lambda: weight_norm(nn.Linear(3, 2)),
        [(2, 1 + 1 + 3)],
        rows_of(
            "bias",
            "parametrizations.weight.original0",
            "parametrizations.weight.original1",
            units=range(2),
        ),
    ),
    "weight norm of a transposed conv": (  # its lengths are those of input channels
        lambda: weight_norm(nn.ConvTranspose1d(2, 2, 3)),
        [(2, 1 + 6), (2, 1)],
        both(
            lambda t: [
                [t["bias"][o], t["parametrizations.weight.original1"][:, o]] for o in range(2)
            ],
            rows_of("parametrizations.weight.original0", units=range(2)),
        ),
    ),
    "spectral norm of a transposed conv": (
        lambda: spectral_norm(nn.ConvTranspose1d(2, 2, 3)),
        [(2, 7)],
        lambda t: [[t["bias"][o], t["parametrizations.weight.original"][:, o]] for o in range(2)],
    ),
    "weight norm of a recurrent weight": (
        lambda: weight_norm(nn.RNN(3, 4, bias=False), "weight_hh_l0"),
        [(4, 3 + 1 + 4)],
        rows_of(
            "weight_ih_l0",
            "parametrizations.weight_hh_l0.original0",
            "parametrizations.weight_hh_l0.original1",
            units=range(4),
        ),
    ),
    "tied": (
        Tied,
        [(3, 5), (5, 1)],
        both(
            lambda t: [[t["read.weight"][:, d]] for d in range(3)],
            rows_of("write.bias", units=range(5)),
        ),
    ),
    "unknown": (
        Custom,
        [(2, 5), (4, 1)],
        both(
            rows_of("weight", "scale", units=range(2)),
            rows_of("other", units=range(3)),
            lambda t: [[t["gain"]]],
        ),
    ),
}


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_is_its_incoming_weights_and_its_bias(name):
    """Per-neuron has the entries of every output unit in one row, equal rows in one matrix."""
    model, expected_shapes, units = UNITS[name]
    layout = layout_of(model())
    positions = {slot.name: slot.positions().view(slot.shape) for slot in layout.slots}

    matrices = PerNeuron()(layout)

    Blocks.of(layout, matrices)
    assert [tuple(matrix.shape) for matrix in matrices] == expected_shapes
    assert sorted(row for matrix in matrices for row in matrix.tolist()) == sorted(
        sorted(torch.cat([part.reshape(-1) for part in unit]).tolist()) for unit in units(positions)
    )


STATE = torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(0))
IMAGE = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(1))
STEP = torch.randn(1, 2, 3, generator=torch.Generator().manual_seed(2))

# module, and its outputs with the output units last; recurrent modules take one step
OUTPUTS = {
    "linear": (nn.Linear(3, 4), lambda m: m(STEP)),
    "bilinear": (nn.Bilinear(3, 4, 5), lambda m: m(STEP, STATE)),
    "conv": (nn.Conv2d(4, 6, 3, groups=2), lambda m: m(IMAGE).movedim(1, -1)),
    "depthwise conv": (nn.Conv2d(4, 8, 3, groups=4), lambda m: m(IMAGE).movedim(1, -1)),
    "transposed conv": (
        nn.ConvTranspose2d(4, 6, 3, groups=2),
        lambda m: m(IMAGE).movedim(1, -1),
    ),
    "embedding": (nn.Embedding(5, 3), lambda m: m(torch.arange(5))),
    "layer norm": (nn.LayerNorm((5, 5)), lambda m: m(IMAGE).flatten(2)),
    "batch norm": (nn.BatchNorm2d(4).eval(), lambda m: m(IMAGE).movedim(1, -1)),
    "lstm": (nn.LSTM(3, 4), lambda m: torch.stack(m(STEP, (STATE, STATE))[1])),
    "gru": (nn.GRU(3, 4), lambda m: m(STEP, STATE)[0]),
    "rnn": (nn.RNN(3, 4), lambda m: m(STEP, STATE)[0]),
    "lstm cell": (
        nn.LSTMCell(3, 4),
        lambda m: torch.stack(m(STEP[0], (STATE[0], STATE[0]))),
    ),
    "gru cell": (nn.GRUCell(3, 4), lambda m: m(STEP[0], STATE[0])),
    "peephole lstm": (PeepholeLSTM(3, 4), lambda m: m(STEP.movedim(0, 1))[0]),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_block_moves_its_own_output_unit_only(name):
    """Parameters of the b-th block change output unit b, and every other stays to the bit."""
    model, outputs = OUTPUTS[name]
    layout = layout_of(model)
    flat = parameters_to_vector(model.parameters()).detach()
    with torch.no_grad():
        before = outputs(model)
        for unit, positions in enumerate(Blocks.of(layout, PerNeuron()(layout)).positions()):
            vector_to_parameters(
                flat.index_add(0, positions, flat.new_ones(len(positions))), model.parameters()
            )
            moved = (outputs(model) != before).flatten(0, -2).any(0)
            assert moved.nonzero().flatten().tolist() == [unit]
        vector_to_parameters(flat, model.parameters())


def test_recurrent_weights_and_peepholes_move_their_own_hidden_unit():
    """On the second step row u of the recurrent weight and the peepholes of i and f move unit u."""
    model = PeepholeLSTM(3, 4)
    layout = layout_of(model)
    steps = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(3))
    slots = {slot.name: slot for slot in layout.slots}
    late = torch.zeros(layout.size, dtype=torch.bool)  # what the first step does not see
    late[slots["weight_hh_l0"].positions()] = True
    late[slots["peephole_l0"].positions()[:8]] = True
    flat = parameters_to_vector(model.parameters()).detach()
    with torch.no_grad():
        before = model(steps)[0][:, 1]
        for unit, row in enumerate(PerNeuron()(layout)[0]):
            own = row[late[row]]
            assert len(own) == 4 * 4 + 2
            vector_to_parameters(
                flat.index_add(0, own, flat.new_ones(len(own))), model.parameters()
            )
            moved = (model(steps)[0][:, 1] != before).any(0)
            assert moved.nonzero().flatten().tolist() == [unit]


@pytest.mark.parametrize("blocks", [1, 2, 4, 66])
def test_random_cuts_into_equal_blocks(blocks):
    """The sizes differ by one at most, the larger first, and positions ascend in every block."""
    layout = layout_of(MODEL)
    rows = Blocks.of(layout, Random(blocks=blocks)(layout)).positions()
    sizes = [len(row) for row in rows]

    assert len(rows) == blocks
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] == (66 % blocks != 0)
    assert all(torch.equal(row, row.sort().values) for row in rows)


@pytest.mark.parametrize(
    "like", [bdhf.Full(), bdhf.PerLayer(), PerNeuron(), bdhf.Groups([["2.*"], ["0.*"]])]
)
def test_random_takes_the_sizes_of_another_partition(like):
    """Its blocks have the sizes of the other partition's blocks, in their order."""
    layout = layout_of(MODEL)

    def sizes(partition):
        return [block.size for block in Blocks.of(layout, partition(layout)).rows]

    assert sizes(Random(like=like)) == sizes(like)


def test_random_in_one_block_is_full():
    """Nothing is left of the shuffle in one block."""
    assert torch.equal(Random(blocks=1)(layout_of(MODEL))[0], torch.arange(66)[None])


def test_random_is_determined_by_its_seed_alone():
    """Same seed, same blocks; another seed, others; torch's own generator stays where it was."""
    layout = layout_of(MODEL)
    before = torch.get_rng_state()
    first, again, other = (Random(blocks=2, seed=seed)(layout)[0] for seed in (0, 0, 1))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert Random() == Random(blocks=2, seed=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": 0}, naming("Random", "blocks", 1, 0)),
        ({"blocks": 2, "like": bdhf.PerLayer()}, naming("Random", "blocks", "like")),
        ({"seed": -1}, naming("Random", "seed", "[0, 2^64)", -1)),
    ],
)
def test_random_refuses_what_it_cannot_cut(arguments, message):
    """Arguments are checked before any model is met."""
    with pytest.raises(ValueError, match=message):
        Random(**arguments)


def test_random_refuses_more_blocks_than_parameters():
    """A block holds one parameter at least."""
    with pytest.raises(ValueError, match=naming("Random", "blocks", 67, 66)):
        Random(blocks=67)(layout_of(MODEL))


@pytest.mark.parametrize("alpha", [0, 0.5, 1])
def test_a_blend_is_one_system(alpha):
    """Whatever alpha, one block holds every parameter, in order."""
    (matrix,) = Blend(bdhf.PerLayer(), alpha)(layout_of(MODEL))

    assert torch.equal(matrix, torch.arange(66)[None])


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_a_blend_outside_its_ends_is_refused(alpha):
    """The share alpha is between nothing and all."""
    with pytest.raises(ValueError, match=naming("Blend", "alpha", "[0, 1]")):
        Blend(bdhf.PerLayer(), alpha)


def test_a_blend_of_a_blend_is_refused():
    """The cross-block part has one share."""
    with pytest.raises(ValueError, match=naming("Blend", "partition", "alpha")):
        Blend(Blend(bdhf.PerLayer(), 0.5), 0.5)
