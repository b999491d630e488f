"""Notebook 22: its public functions on inputs the page does not show, and its checks against broken formulas."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.book import book, wrong_variant_tests

BOOK = book("22")
NAN = math.nan


@pytest.fixture(scope="module")
def nb():
    names = BOOK.definitions()
    names["device"] = torch.device("cpu")         # the setup cell's
    return names


@pytest.fixture
def model(nb):
    torch.manual_seed(1)
    return nb["Seq2Seq"](7, 6, d_emb=4, d_hidden=5).double()


# ---- attention --------------------------------------------------------------------------------------------------------------

def test_attention_never_reads_what_is_masked(nb):
    layer = nb["AdditiveAttention"](3, 2, 4).double()
    assert {n: tuple(p.shape) for n, p in layer.named_parameters()} == {"W.weight": (4, 3), "U.weight": (4, 2), "v.weight": (1, 4)}
    query, keys = torch.randn(3, 3).double(), torch.randn(3, 5, 2).double()
    mask = torch.tensor([[True, False, True, True, False]] * 3)
    context, weights = layer(query, keys, mask)
    spoiled = torch.where(mask[..., None], keys, NAN)
    assert torch.equal(layer(query, spoiled, mask)[0], context) and (weights[:, [1, 4]] == 0).all()
    assert torch.allclose(layer(query, keys[:, [0, 2, 3]])[0], context) and torch.allclose(weights.sum(1), torch.ones(3).double())
    assert torch.allclose(layer(query.numpy(), keys.numpy(), mask.numpy())[0], context)
    torch.autograd.gradcheck(lambda q, k: layer(q, k, mask)[0], (query.requires_grad_(), keys.requires_grad_()))


@pytest.mark.parametrize("query, keys, mask", [
    ((2, 3), (2, 4, 2), torch.tensor([[True] * 4, [False] * 4])), ((2, 3), (2, 0, 2), None), ((2, 2), (2, 4, 2), None), ((3, 3), (2, 4, 2), None),
    ((3,), (2, 4, 2), None), ((2, 3), (2, 4, 2), torch.ones(2, 3, dtype=torch.bool)), ((2, 3), (2, 4, 2), torch.ones(2, 4))])
def test_attention_refuses(nb, query, keys, mask):
    with pytest.raises(ValueError, match="mask|features|queries"):
        nb["AdditiveAttention"](3, 2, 4)(torch.zeros(query), torch.zeros(keys), mask)


def test_dot_attention_needs_equal_sizes(nb):
    with pytest.raises(ValueError, match="equal sizes"):
        nb["dot_attention"](torch.zeros(2, 3), torch.zeros(2, 4, 2))


# ---- the model --------------------------------------------------------------------------------------------------------------

def test_padding_changes_nothing_and_never_is_said(model):
    source, target = torch.tensor([[3, 4, 5], [6, 0, 0]]), torch.tensor([[1, 3, 4, 2], [1, 5, 2, 0]])
    logits, weights = model(source, target)
    assert logits.shape == (2, 3, 6) and weights.shape == (2, 3, 3) and (logits.softmax(-1)[..., :2] == 0).all()
    wider = model(F.pad(source, (0, 3)), target)
    assert torch.allclose(wider[0][..., 2:], logits[..., 2:]) and (wider[1][..., 3:] == 0).all()
    alone = model(source[1:, :1], target[1:, :3])
    assert torch.allclose(alone[0][..., 2:], logits[1:, :2, 2:])
    assert torch.allclose(model.log_prob(source, target)[1], model.log_prob(source[1:, :1], target[1:, :3])[0])
    loss = F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=0, reduction="sum")
    assert torch.allclose(-model.log_prob(source, target).sum(), loss)


def test_the_encoder_is_torchs_gru(model):
    source = torch.tensor([[3, 4, 5]])
    keys = model.encode(source)[0][0]
    assert torch.allclose(keys, model.encoder(model.embed_source(source))[0])


@pytest.mark.parametrize("attention", [True, False])
def test_wide_beams_are_exhaustive_and_narrow_ones_greedy(nb, attention):
    for start in range(4):
        torch.manual_seed(start)
        model = nb["Seq2Seq"](6, 5, d_emb=3, d_hidden=6, attention=attention).double()
        for p in model.parameters():
            p.data *= 3
        source = torch.tensor([3, 5, 4])
        every = [(*y, 2) for n in range(3) for y in itertools.product((3, 4), repeat=n)] + list(itertools.product((3, 4), repeat=3))
        log_p = [float(model.log_prob(source[None], torch.tensor([[1, *y]]))) for y in every]
        assert sum(map(math.exp, log_p)) == pytest.approx(1)
        for penalty in (0.0, 0.7, -0.5):
            best = sorted(zip(every, log_p), key=lambda f: -f[1] / len(f[0]) ** penalty)
            found = model.beam_search(source, 40, 3, penalty)
            assert [tuple(y) for y, _ in found] == [y for y, _ in best] and np.allclose([lp for _, lp in found], [lp for _, lp in best])
        (ids, _), = model.beam_search(source, 1, 3)
        assert ids == [w for w in model.greedy(source[None], 3)[0].tolist() if w]
        assert len(model.beam_search(source, 3, 5)) <= 3
        assert model(source[None], torch.tensor([[1, 3]]))[1] is None or attention


def test_greedy_pads_after_the_end(model):
    out = model.greedy(torch.randint(3, 7, (40, 4)), 9)
    ended = (out == 2).cumsum(1) - (out == 2).int() > 0
    assert out.shape[1] <= 9 and (out[ended] == 0).all() and not ((out == 0) & ~ended).any() and not (out == 1).any()


@pytest.mark.parametrize("call", [
    lambda m: m(torch.zeros(2, 3).long(), torch.ones(2, 3).long()), lambda m: m(torch.tensor([[3, 0, 4]]), torch.ones(1, 3).long()),
    lambda m: m(torch.tensor([[9]]), torch.ones(1, 3).long()), lambda m: m(torch.tensor([[3]]), torch.ones(2, 3).long()),
    lambda m: m(torch.tensor([[3]]), torch.ones(1, 1).long()), lambda m: m(torch.zeros(1, 0).long(), torch.ones(1, 2).long()),
    lambda m: m.greedy(torch.tensor([[3]]), 0), lambda m: m.beam_search(torch.tensor([3]), 0, 3), lambda m: m.beam_search(torch.tensor([3]), 2, 0),
    lambda m: m.beam_search(torch.tensor([[3]]), 2, 2), lambda m: m.beam_search(torch.tensor([3]), 2, 2, NAN), lambda m: m.log_prob([[3]], [[1, 7]])])
def test_the_model_refuses(model, call):
    with pytest.raises(ValueError, match=r".{25}"):
        call(model)


# ---- convolutions -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kernel, dilation", [(1, 1), (2, 1), (3, 2), (4, 3)])
def test_glu_block(nb, kernel, dilation):
    x = torch.randn(2, 3, 9).double()
    for causal in (True, False):
        block = nb["GLUBlock"](3, 5, kernel, dilation, causal).double()
        total = (kernel - 1) * dilation
        left = total if causal else total // 2
        expected = F.glu(F.conv1d(F.pad(x, (left, total - left)), block.conv.weight, block.conv.bias, dilation=dilation), 1)
        assert torch.allclose(block(x), expected) and block(x).shape == (2, 5, 9)


def test_glu_block_refuses(nb):
    for bad in ((0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            nb["GLUBlock"](*bad)
    for shape in ((3, 9), (1, 2, 9), (1, 3, 0)):
        with pytest.raises(ValueError, match="must be"):
            nb["GLUBlock"](3, 2, 3)(torch.zeros(shape))


def test_receptive_field(nb):
    f = nb["receptive_field"]
    assert f([5] * 6) == 25 and f([1]) == 1 and f([3, 3], strides=[2, 1]) == 7 and f([3, 3], [1, 4]) == 11 and isinstance(f(np.array([3, 3])), int)
    for bad in (([],), ([3], [1, 1]), ([3, 3], None, [1]), ([0],), ([3], [0]), ([3], None, [0]), ([2.5],), ([NAN],), (5,)):
        with pytest.raises(ValueError, match="kernels"):
            f(*bad)


# ---- data -------------------------------------------------------------------------------------------------------------------

def test_numerals(nb):
    assert " ".join(nb["spell"](2341, "g")) == "двух тысяч трёхсот сорока одного"
    with pytest.raises(ValueError, match="accusative"):
        nb["spell"](5, "a")
    train, test = nb["split_numbers"](nb["draw_numbers"](300, 4, 1), 40, 2)
    assert len(test) == 40 and not set(train) & set(test) and min(test) > 99


WRONG = [
    ("torch.tanh(self.W(query)[:, None] + projected)", "torch.tanh(self.W(query)[:, None] - projected)", "22.1"),
    ("self.scores(query, projected).masked_fill(~mask, -torch.inf).softmax(-1)", "self.scores(query, projected).softmax(-1)", "22.2"),
    ("return d_attn * (d_query + d_key + 1)", "return d_attn * (d_query + d_key + 2)", "22.3"),
    ("picked.masked_fill(words == 0, 0).sum(-1)", "picked.masked_fill(words <= 2, 0).sum(-1)", "22.4"),
    ("best.masked_fill(y[:, 1:] == 0, 0)", "best.masked_fill(y[:, :-1] == 0, 0)", "22.5"),
    ("return weights[:, None] * (keys - weights @ keys)", "return weights[:, None] * keys", "22.6"),
    ("/ math.sqrt(query.shape[1])", "/ query.shape[1]", "22.7"),
    ("-f[1] / len(f[0]) ** gamma)[:beam]", "-f[1] * len(f[0]) ** gamma)[:beam]", "22.8"),
    ("return linear * gate.sigmoid()", "return linear.sigmoid() * gate", "22.9"),
    ("return torch.sigmoid(g), a * torch.sigmoid(g)", "return torch.sigmoid(a), a * torch.sigmoid(g)", "22.10"),
    ("padding = (kernel - 1) * dilation", "padding = kernel * dilation - 1", "22.11"),
    ("(k - 1) * d * jump", "k * d * jump", "22.12"),
    ("S * d_attn + S * d_key)", "S * d_attn + d_key)", "22.13"),
]
test_wrong, test_right, test_every = wrong_variant_tests(BOOK, WRONG)
