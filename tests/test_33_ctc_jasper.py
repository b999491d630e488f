"""Notebook 33: its public functions on inputs the page does not show, and its checks against broken formulas."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.book import book, wrong_variant_tests

BOOK = book("33")


@pytest.fixture(scope="module")
def nb():
    return BOOK.definitions()


def net(T, V, seed, sharp=1.0):
    g = torch.Generator().manual_seed(seed)
    return (sharp * torch.randn(T, V, generator=g, dtype=torch.float64)).log_softmax(1)


def by_enumeration(log_p, blank=0):
    """{text: [(probability, path)]} of all paths."""
    p, found = log_p.exp().numpy(), {}
    for path in itertools.product(range(p.shape[1]), repeat=len(p)):
        text = tuple(v for v, _ in itertools.groupby(path) if v != blank)
        found.setdefault(text, []).append((float(np.prod(p[range(len(p)), path])), path))
    return found


# --- paths ------------------------------------------------------------------------------------------------------------

def test_collapse_of_any_symbols(nb):
    f = nb["ctc_collapse"]
    assert f([0, 1, 1, 0, 1, 2]) == [1, 1, 2] and f([]) == [] and f([0, 0]) == [] and f("aa-a", "-") == ["a", "a"]
    assert f(torch.tensor([2, 2, 0, 2])) == [2, 2] == f(np.array([2, 0, 2])) == f((2, 0, 2)) and f([None, None, 1], None) == [1]
    assert f([1, 1, 0], blank=1) == [0] and f(iter([1, 1])) == [1] and f([("a",), ("a",), ("b",)]) == [("a",), ("b",)]
    assert all(isinstance(v, int) for v in f(torch.tensor([1, 2])))


def test_counts(nb):
    for T in range(1, 6):
        found = by_enumeration(torch.zeros(T, 3).double())
        for U in range(T + 2):
            for y in itertools.product((1, 2), repeat=U):
                assert nb["n_paths"](y, T) == len(found.get(y, []))


# --- loss -------------------------------------------------------------------------------------------------------------

def random_batch(seed, T=12, B=5, V=6, U=5, blank=0, sharp=1.0):
    g = torch.Generator().manual_seed(seed)
    logits = sharp * torch.randn(T, B, V, generator=g, dtype=torch.float64)
    targets = torch.randint(V - 1, (B, U), generator=g)
    targets = targets + (targets >= blank)
    frames = torch.randint(2 * U, T + 1, (B,), generator=g)
    letters = torch.randint(0, U + 1, (B,), generator=g)
    return logits, targets, frames, letters


@pytest.mark.parametrize("blank, sharp", [(0, 1.0), (3, 1.0), (5, 6.0), (0, 30.0)])
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradient_are_torchs(nb, seed, blank, sharp):
    logits, targets, frames, letters = random_batch(seed, blank=blank, sharp=sharp)
    got = {}
    for name, loss in (("ours", nb["ctc_loss"]), ("torch", lambda *a, blank: F.ctc_loss(*a, blank=blank, reduction="none"))):
        z = logits.clone().requires_grad_()
        values = loss(z.log_softmax(2), targets, frames, letters, blank=blank)
        weights = torch.arange(1.0, len(values) + 1).double()
        got[name] = values.detach(), torch.autograd.grad(values @ weights, z)[0]
    assert torch.allclose(got["ours"][0], got["torch"][0], rtol=1e-10) and torch.allclose(got["ours"][1], got["torch"][1], atol=1e-9)


def test_long_and_sharp_in_float32(nb):
    z = (10 * torch.randn(400, 3, 30, generator=torch.Generator().manual_seed(1))).requires_grad_()
    targets = torch.randint(1, 30, (3, 40), generator=torch.Generator().manual_seed(2))
    args = targets, torch.tensor([400, 399, 310]), torch.tensor([40, 17, 33])
    ours = nb["ctc_loss"](z.log_softmax(2), *args)
    theirs = F.ctc_loss(z.detach().double().log_softmax(2), *args, reduction="none")
    assert ours.dtype == torch.float32 and torch.isfinite(ours).all() and torch.allclose(ours.double(), theirs, rtol=1e-5)
    gradient, = torch.autograd.grad(ours.sum(), z)
    assert torch.isfinite(gradient).all() and gradient.sum(2).abs().max() < 1e-2


def test_gradcheck(nb):
    logits, targets, frames, letters = random_batch(4, T=6, B=3, V=4, U=2)
    frames = torch.tensor([6, 5, 6])

    def f(x):
        return nb["ctc_loss"](x, targets, frames, letters)

    assert torch.autograd.gradcheck(f, logits.log_softmax(2).requires_grad_())


def test_what_stands_in_the_padding_is_ignored(nb):
    logits, targets, frames, letters = random_batch(5)
    log_p = logits.log_softmax(2)
    wild, beyond = targets.clone(), log_p.clone()
    for b in range(len(targets)):
        wild[b, letters[b]:] = torch.tensor([-1, 0, 99, -100, 7])[:targets.shape[1] - int(letters[b])]
        beyond[frames[b]:, b] = torch.nan
    reference = nb["ctc_loss"](log_p, targets, frames, letters)
    assert torch.equal(nb["ctc_loss"](beyond, wild, frames, letters), reference)
    beyond.requires_grad_()
    gradient, = torch.autograd.grad(nb["ctc_loss"](beyond, wild, frames, letters).sum(), beyond)
    assert torch.isfinite(gradient).all()
    assert all(not gradient[n:, b].any() for b, n in enumerate(frames.tolist()))
    gamma = nb["ctc_posterior"](beyond, wild, frames, letters)
    inside = torch.arange(len(gamma))[:, None] < frames
    assert torch.allclose(gamma.sum(2), inside.double()) and torch.equal(gamma, -gradient)


def test_texts_that_do_not_fit_and_empty_ones(nb):
    log_p = net(3, 4, 0)[:, None].expand(3, 4, 4).clone().requires_grad_()
    targets, letters = [[1, 1, 2], [1, 2, 3], [1, 1, 0], [2, 2, 2]], [3, 3, 2, 0]
    loss = nb["ctc_loss"](log_p, targets, [3, 3, 3, 3], letters)
    assert loss[0] == math.inf and torch.isfinite(loss[1:]).all() and float(loss[3]) == pytest.approx(-float(log_p[:, 3, 0].sum()))
    gradient, = torch.autograd.grad(loss.sum(), log_p)
    assert not gradient[:, 0].any() and torch.isfinite(gradient).all() and torch.equal(gradient[:, 3, 0], -torch.ones(3).double())
    nothing = nb["ctc_loss"](log_p, torch.zeros(4, 0), [3, 2, 1, 3], [0, 0, 0, 0])
    assert torch.allclose(nothing[2].detach(), -log_p[0, 2, 0].detach())
    with pytest.raises(ValueError, match="no path for text 0"):
        nb["ctc_posterior"](log_p, targets, [3, 3, 3, 3], letters)
    impossible = log_p.detach().clone()
    impossible[:, 1, 2] = -torch.inf
    assert nb["ctc_loss"](impossible, targets, [3] * 4, letters)[1] == math.inf


@pytest.mark.parametrize("seed", range(3))
def test_posterior_by_enumeration(nb, seed):
    log_p = net(5, 4, seed)
    found = by_enumeration(log_p, blank=2)
    for y in ((), (1,), (3, 3), (0, 1, 3)):
        gamma = np.zeros((5, 4))
        for p, path in found[y]:
            gamma[range(5), path] += p
        ours = nb["ctc_posterior"](log_p[:, None], np.array([y], dtype=int), [5], [len(y)], blank=2)
        assert np.allclose(ours[:, 0], gamma / gamma.sum(1, keepdims=True))


def test_types_and_containers(nb):
    logits, targets, frames, letters = random_batch(6)
    log_p = logits.log_softmax(2)
    reference = nb["ctc_loss"](log_p, targets, frames, letters)
    assert torch.equal(nb["ctc_loss"](log_p.numpy(), targets.tolist(), frames.numpy(), tuple(letters.tolist())), reference)
    assert torch.equal(nb["ctc_loss"](log_p.transpose(0, 1).contiguous().transpose(0, 1), targets.int(), frames.int(), letters.to(torch.uint8)), reference)
    for dtype, close in ((torch.float32, 1e-4), (torch.float16, 0.2), (torch.bfloat16, 0.5)):
        x = log_p.to(dtype).requires_grad_()
        loss = nb["ctc_loss"](x, targets, frames, letters)
        loss.sum().backward()
        assert loss.dtype == x.grad.dtype == dtype and torch.allclose(loss.double(), reference, atol=close)
        assert nb["ctc_posterior"](x, targets, frames, letters).dtype == dtype
    for axis in (0, 1):                            # the riddle of a training that goes nowhere
        with pytest.raises(ValueError, match=f"along axis {axis}, .* take .log_softmax.2"):
            nb["ctc_loss"](logits.log_softmax(axis), targets, frames, letters)
    with pytest.raises(ValueError, match="take .log_softmax.1"):
        nb["ctc_align"](logits[:, 0].log_softmax(0), [1])
    broken = log_p.clone()
    broken[1, 2] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        nb["ctc_loss"](broken, targets, frames, letters)


BATCH = dict(zip(("log_probs", "targets", "input_lengths", "target_lengths"), (net(4, 3, 0)[:, None], [[1, 2]], [4], [2])))


@pytest.mark.parametrize("change, says", [
    ({"targets": [[1, 0]]}, "not the blank 0"), ({"targets": [[1, 3]]}, "not the blank"), ({"targets": [[-1, 1]]}, "not the blank"),
    ({"input_lengths": [5]}, "from 1 to T = 4"), ({"input_lengths": [0]}, "empty utterances"), ({"target_lengths": [3]}, "from 0 to U = 2"),
    ({"target_lengths": [-1]}, "from 0 to U"), ({"blank": 3}, "blank must be"), ({"blank": -1}, "blank must be"), ({"blank": 0.5}, "blank must be"),
    ({"log_probs": torch.zeros(4, 3)}, "T, B, V"), ({"log_probs": torch.zeros(4, 1, 3, dtype=torch.int64)}, "T, B, V"), ({"log_probs": torch.zeros(0, 1, 3)}, "T, B, V"),
    ({"log_probs": torch.ones(4, 1, 3)}, "log_softmax"), ({"targets": [[1.0, 2.0]]}, "integers"), ({"targets": [1, 2]}, "integers"),
    ({"input_lengths": [4, 4]}, "integers"), ({"target_lengths": [1.5]}, "integers"), ({"input_lengths": 4}, "integers"), ({"targets": [[1, 2], [1, 2]]}, "integers")])
def test_loss_and_posterior_refuse(nb, change, says):
    for f in (nb["ctc_loss"], nb["ctc_posterior"]):
        with pytest.raises(ValueError, match=says):
            f(**(BATCH | change))


# --- alignment and decoding -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("seed", range(3))
def test_best_alignment_by_enumeration(nb, seed, blank):
    log_p = net(5, 3, seed, 2.0)
    for y, paths in by_enumeration(log_p, blank).items():
        path = nb["ctc_align"](log_p, y, blank)
        assert tuple(path) == max(paths)[1] and all(type(v) is int for v in path)


def test_alignment_takes_and_refuses(nb):
    log_p = net(4, 3, 1)
    path = nb["ctc_align"](log_p, [1, 2])
    assert path == nb["ctc_align"](log_p.numpy(), np.array([1, 2])) == nb["ctc_align"](log_p.float(), torch.tensor([1, 2])) == nb["ctc_align"](log_p.tolist(), (1, 2))
    assert nb["ctc_align"](log_p, []) == [0] * 4
    for y, says in (([0], "not the blank"), ([3], "not the blank"), ([-1], "not the blank"), ([1, 1, 1], "no path"), ([1, 2, 1, 2, 1], "no path")):
        with pytest.raises(ValueError, match=says):
            nb["ctc_align"](log_p, y)
    never = log_p.clone()
    never[:, 2] = -torch.inf
    with pytest.raises(ValueError, match="no path"):
        nb["ctc_align"](never, [2])
    for bad in (torch.zeros(3), torch.zeros(0, 3), torch.full((2, 3), torch.nan), torch.ones(2, 3)):
        with pytest.raises(ValueError, match="log-probabilities"):
            nb["ctc_align"](bad, [1])


def test_greedy(nb):
    x = torch.full((4, 2, 3), -5.0)
    for t, (a, b) in enumerate(zip((1, 1, 0, 1), (2, 0, 2, 1))):
        x[t, 0, a] = x[t, 1, b] = 0
    assert nb["ctc_greedy"](x) == [[1, 1], [2, 2, 1]] and nb["ctc_greedy"](x, [3, 1]) == [[1], [2]] and nb["ctc_greedy"](x, torch.tensor([1, 4]), blank=2) == [[1], [0, 1]]
    assert nb["ctc_greedy"](x.numpy(), np.array([4, 4])) == nb["ctc_greedy"](x)
    for bad, says in (((x[:, 0],), "T, B, V"), ((x * torch.nan,), "NaN"), ((x, [5, 1]), "from 1 to T"), ((x, [0, 1]), "from 1 to T"), ((x, [4]), "lengths"), ((x, None, 3), "blank")):
        with pytest.raises(ValueError, match=says):
            nb["ctc_greedy"](*bad)


@pytest.mark.parametrize("seed, blank", [(0, 0), (1, 1), (2, 2)])
def test_a_wide_beam_is_exact(nb, seed, blank):
    log_p = net(5, 3, seed, 1.5)
    exact = {y: math.log(sum(p for p, _ in paths)) for y, paths in by_enumeration(log_p, blank).items()}
    wide = nb["ctc_prefix_beam"](log_p, 10_000, blank)
    assert [s for _, s in wide] == sorted((s for _, s in wide), reverse=True) and dict(wide) == pytest.approx(exact) and all(type(y) is tuple for y, _ in wide)

    def lm(prefix, label):
        return -0.3 * len(prefix) - 0.1 * label + (0.5 if prefix and prefix[-1] == label else 0)

    scored = {y: p + 0.8 * sum(lm(y[:u], v) for u, v in enumerate(y)) for y, p in exact.items()}
    assert dict(nb["ctc_prefix_beam"](log_p, 10_000, blank, lm, 0.8)) == pytest.approx(scored)
    assert nb["ctc_prefix_beam"](log_p, 10_000, blank, lm, 0.0) == wide
    for beam in (1, 2, 5):
        some = nb["ctc_prefix_beam"](log_p, beam, blank)
        assert 1 <= len(some) <= beam and all(s <= exact[y] + 1e-12 for y, s in some)


def test_a_beam_of_one_adds_paths_that_greedy_does_not(nb):
    log_p = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()
    assert nb["ctc_greedy"](log_p[:, None]) == [[]]
    assert nb["ctc_prefix_beam"](log_p, 2) == [((1,), pytest.approx(math.log(0.64))), ((), pytest.approx(math.log(0.36)))]


def test_beam_refuses(nb):
    log_p = net(3, 3, 0)
    for options, says in (({"beam": 0}, "beam >= 1"), ({"beam": 1.5}, "beam >= 1"), ({"beam": 2, "lam": -1.0}, "lam >= 0"), ({"beam": 2, "lam": 1.0}, "lam >= 0"), ({"beam": 2, "lam": math.nan}, "lam >= 0"),
                          ({"beam": 2, "blank": 3}, "blank")):
        with pytest.raises(ValueError, match=says):
            nb["ctc_prefix_beam"](log_p, **options)
    with pytest.raises(ValueError, match="log_softmax"):
        nb["ctc_prefix_beam"](log_p.exp(), 3)
    banned = nb["ctc_prefix_beam"](log_p, 100, lm=lambda prefix, label: -math.inf if label == 2 else 0.0, lam=1.0)
    assert banned and all(2 not in y for y, _ in banned), "what the model forbids never appears"
    sure = torch.tensor([[0.0, -math.inf], [-math.inf, 0.0]])
    assert nb["ctc_prefix_beam"](sure, 5) == [((1,), 0.0)]


# --- Jasper -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("repeat, c_dense", [(1, ()), (2, (3,)), (3, (2, 5))])
def test_a_block_never_sees_padding(nb, training, repeat, c_dense):
    torch.manual_seed(repeat)
    block = nb["JasperBlock"](4, 3, 5, repeat, c_dense=c_dense).double().train(training)
    lengths = torch.tensor([7, 11, 1])
    x, *dense = (torch.randn(3, c, 11, dtype=torch.float64) for c in (4, *c_dense))
    beyond = ~nb["valid_frames"](lengths, 11)[:, None]
    out = block(x, lengths, dense)
    assert out.shape == (3, 3, 11) and (out >= 0).all() and not out[beyond.expand_as(out)].any()
    noisy = block(torch.where(beyond, torch.nan, x), lengths, [torch.where(beyond, torch.nan, d) for d in dense])
    assert torch.allclose(noisy, out, atol=1e-12)
    if not training:
        for b, n in enumerate(lengths.tolist()):
            alone = block(x[b:b + 1, :, :n], lengths[b:b + 1], [d[b:b + 1, :, :n] for d in dense])
            assert torch.allclose(alone[0], out[b, :, :n], atol=1e-10)


def test_block_arguments(nb):
    block = nb["JasperBlock"](4, 3, 3, dropout=0.5).eval()
    x = torch.randn(2, 4, 6)
    assert torch.equal(block(x.numpy(), [6, 2]), block(x, torch.tensor([6, 2]))) and torch.equal(block(x.double(), np.array([6, 2])), block(x, [6, 2]))
    for bad in ((3, 4), (4, 6, 0), (4, 3, 2)):
        with pytest.raises(ValueError, match="odd kernel_size"):
            nb["JasperBlock"](4, 3, *([bad[1], 2] if len(bad) == 2 else [bad[1], bad[2]] if bad[2] == 0 else [bad[2]]))
    for lengths in ([7, 2], [0, 2], [6]):
        with pytest.raises(ValueError, match="lengths"):
            block(x, lengths)
    for wrong in (torch.zeros(2, 3, 6), torch.zeros(4, 6)):
        with pytest.raises(ValueError, match=r"x \(B, 4, T\)"):
            block(wrong, [6, 2])
    with pytest.raises(ValueError, match="dense inputs"):
        block(x, [6, 2], [x])
    with pytest.raises(ValueError, match="dense inputs"):
        nb["JasperBlock"](4, 3, 3, c_dense=(2,))(x, [6, 2], [x])
    assert sum(p.numel() for p in block.parameters()) == 3 * 3 * (4 + 3) + 4 * 3 + 3 * 6


def test_lengths_and_fields(nb):
    assert nb["conv_length"](200, 11, 2, 1, 5) == 100 and nb["conv_length"](201, 11, 2, 1, 5) == 101
    assert nb["receptive_field"]([]) == 1 and nb["receptive_field"]([(11, 2, 1), (7, 1, 1)]) == 23
    jasper = nb["Jasper"](8, (3, 5))
    assert nb["receptive_field"](jasper.layers) == 11 + 2 * 2 * 2 + 2 * 2 * 4
    log_p, lengths = jasper.eval()(torch.randn(2, 9, 40), [9, 4])
    assert log_p.shape == (5, 2, 17) and lengths.tolist() == [5, 2] and torch.allclose(log_p.exp().sum(2), torch.ones(5, 2), atol=1e-5)
    sizes = [sum(p.numel() for p in nb["Jasper"](8, (3, 5), shortcut=kind).parameters()) for kind in ("plain", "residual", "dense")]
    assert sizes[0] < sizes[1] < sizes[2]


# Wrong variants of each formula: where, what it becomes, and the equation whose check must notice.
MUTANTS = [
    ("if v != before and v != blank]", "if v != before]", "33.1"),
    ("if v != before and v != blank]", "if v != blank]", "33.1"),
    ("return [v for v, before in zip(path, [object(), *path]) if v != before and v != blank]",
     "path = [v for v in path if v != blank]\n    return [v for v, before in zip(path, [object(), *path]) if v != before]", "33.1"),
    ("[[len(y) + n_repeats(y) <= T for y in texts_ab]", "[[len(y) <= T for y in texts_ab]", "33.2"),
    ("return sum(a == b for a, b in zip(target, target[1:]))", "return sum(a != b for a, b in zip(target, target[1:]))", "33.2"),
    ("return math.comb(T + len(target) - n_repeats(target), 2 * len(target))", "return math.comb(T + len(target), 2 * len(target))", "33.3"),
    ("return math.comb(T + len(target) - n_repeats(target), 2 * len(target))", "return math.comb(T + len(target) - n_repeats(target), len(target))", "33.3"),
    ("total = total + math.exp(sum(log_probs[t, v] for t, v in enumerate(path)))", "total = max(total, math.exp(sum(log_probs[t, v] for t, v in enumerate(path))))", "33.4"),
    ("torch.tensor([[1, 2], [3, 4]]), [2, 2], [2, 2], reduction=\"sum\")", "torch.tensor([[1, 2], [1, 4]]), [2, 2], [2, 2], reduction=\"sum\")", "33.5"),
    ("return s > 2 and states[s] != states[s - 2]", "return s > 1", "33.6"),
    ("return s > 2 and states[s] != states[s - 2]", "return s > 2 and states[s] != 0", "33.6"),
    ("before = alpha[t - 1, s] + (alpha[t - 1, s - 1] if s else 0)", "before = alpha[t - 1, s - 1] if s else 0", "33.6"),
    ("alpha[0, :2] = p[0, states[:2]]", "alpha[0, :1] = p[0, states[:1]]", "33.6"),
    ("states[:, 2:] == states[:, :-2], -torch.inf)", "states[:, 2:] == 0, -torch.inf)", "33.6"),
    ("before[0, :, :2] = 0", "before[0, :, :1] = 0", "33.6"),
    ("ends = torch.stack([2 * letters, (2 * letters - 1).clamp(min=0)], 1)", "ends = torch.stack([2 * letters, 2 * letters], 1)", "33.6"),
    ("last = alpha[frames - 1, torch.arange(B, device=alpha.device)]", "last = alpha[T - 1, torch.arange(B, device=alpha.device)]", "33.6"),
    ("beta[-1, -2:] = 1", "beta[-1, -1:] = 1", "33.7"),
    ("beta[t, s] += beta[t + 1, to] * p[t + 1, states[to]]", "beta[t, s] += beta[t + 1, to] * p[t, states[to]]", "33.7"),
    ("for to in (s, s + 1, s + 2):", "for to in (s, s + 1):", "33.7"),
    ("return both[:, :B] + emitted, both[:, B:][at]", "return both[:, :B] + emitted, both[:, B:][at] + emitted", "33.8"),
    ("return both[:, :B] + emitted, both[:, B:][at]", "return both[:, :B] + emitted, both[:, B:]", "33.8"),
    ("share = torch.where(own, alpha + beta, -torch.inf).softmax(2)", "share = torch.where(own, alpha + beta, -torch.inf).exp()", "33.8"),
    ("own = valid_frames(2 * letters + 1, S)", "own = valid_frames(letters + 1, S)", "33.8"),
    ("return -gamma * gradient[:, None], None, None, None", "return gamma * gradient[:, None], None, None, None", "33.9"),
    ("return -gamma * gradient[:, None], None, None, None", "return -gamma, None, None, None", "33.9"),
    ("inside = valid_frames(frames, T).T & (log_p != -torch.inf)", "inside = valid_frames(frames, T).T", "33.9"),
    ("jump = [may_skip(states, s) for s in range(len(states))]", "jump = [s > 1 for s in range(len(states))]", "33.10"),
    ("delta = come.max(0) + log_p[t, states]", "delta = come.max(0) + log_p[t - 1, states]", "33.10"),
    ("arrows[t] = come.argmax(0)", "arrows[t] = np.minimum(come.argmax(0), 1)", "33.10"),
    ("s = max(range(max(len(states) - 2, 0), len(states)), key=lambda s: delta[s])", "s = len(states) - 1", "33.10"),
    ("paths = log_probs.argmax(2).T.tolist()", "paths = log_probs[:, :, 1:].argmax(2).add(1).T.tolist()", "33.11"),
    ("return [ctc_collapse(path[:n], blank) for path, n in zip(paths, lengths.tolist())]", "return [[v for v in path[:n] if v != blank] for path, n in zip(paths, lengths.tolist())]", "33.11"),
    ("add((*prefix, v), 1, (ends_blank if v == last else total) + p)", "add((*prefix, v), 1, total + p)", "33.12"),
    ("add((*prefix, v), 1, (ends_blank if v == last else total) + p)", "add((*prefix, v), 1, (ends_letter if v == last else total) + p)", "33.12"),
    ("add(prefix, 1, ends_letter + p)", "add(prefix, 1, total + p)", "33.12"),
    ("add(prefix, 0, total + row[blank])", "add(prefix, 0, ends_blank + row[blank])", "33.12"),
    ("pair[kind] = log_add(pair[kind], log_p)", "pair[kind] = max(pair[kind], log_p)", "33.12"),
    ("language[prefix] = language[prefix[:-1]] + lam * float(lm(prefix[:-1], prefix[-1]))", "language[prefix] = lam * float(lm(prefix[:-1], prefix[-1]))", "33.13"),
    ("language[prefix] = language[prefix[:-1]] + lam * float(lm(prefix[:-1], prefix[-1]))", "language[prefix] = language[prefix[:-1]] + float(lm(prefix[:-1], prefix[-1]))", "33.13"),
    ("key=lambda s: -s[0])[:int(beam)]", "key=lambda s: -log_add(*s[1][1]))[:int(beam)]", "33.13"),
    ("return (T + 2 * q - d * (k - 1) - 1) // m + 1", "return (T + 2 * q - d * (k - 1)) // m + 1", "33.14"),
    ("return (T + 2 * q - d * (k - 1) - 1) // m + 1", "return (T + q - d * (k - 1) - 1) // m + 1", "33.14"),
    ("return 1 + sum(d * (k - 1) * math.prod(strides[:j])", "return 1 + sum(d * (k - 1) * math.prod(strides[:j + 1])", "33.15"),
    ("return 1 + sum(d * (k - 1) * math.prod(strides[:j])", "return 1 + sum(d * k * math.prod(strides[:j])", "33.15"),
    ("h = h + norm(skip(other), valid)", "h = h + skip(other)", "33.16"),
    ("h = h + norm(skip(other), valid)", "h = norm(skip(other), valid)", "33.16"),
    ("inputs = [torch.where(valid[:, None], torch.as_tensor(h).to(x), 0.0) for h in (x, *dense)]", "inputs = [x, *dense]", "33.16"),
    ("super().forward(rows[valid])).mT", "super().forward(rows.flatten(0, 1)).reshape(rows.shape)[valid]).mT", "33.16"),
    ("h = norm(conv(self.dropout(F.relu(h))), valid)", "h = norm(conv(self.dropout(h)), valid)", "33.16"),
]


(test_a_wrong_formula_fails_its_own_check, test_the_right_formulas_pass_the_same_slices,
 test_every_equation_has_a_wrong_variant) = wrong_variant_tests(BOOK, MUTANTS)
