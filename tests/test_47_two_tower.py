"""Notebook 47: its public functions on inputs the page does not show, and its checks against broken formulas."""

import math

import pytest
import scipy.sparse
import scipy.stats
import torch
import torch.nn.functional as F

from tests.book import book, wrong_variant_tests

BOOK = book("47")


@pytest.fixture(scope="module")
def nb():
    return BOOK.definitions()


def random(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


POS, NEG = random(5), random(5, 3, seed=1)


# --- towers -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_pairs_are_the_diagonal_of_all_scores(nb, similarity):
    torch.manual_seed(0)
    model = nb["TwoTower"](torch.nn.Linear(4, 3).double(), torch.nn.Linear(6, 3).double(), similarity, gamma=2.5)
    x, y = random(5, 4), random(5, 6, seed=1)
    assert model(x, y).shape == (5,) and model.scores(x, random(7, 6)).shape == (5, 7)
    assert torch.allclose(model(x, y), model.scores(x, y).diagonal())
    a, b = model.user_tower(x), model.item_tower(y)
    right = 2.5 * (F.cosine_similarity(a, b) if similarity == "cosine" else (a * b).sum(1))
    assert torch.allclose(model(x, y), right)


def test_towers_keep_leading_dimensions_and_give_gradients(nb):
    tower = torch.nn.Identity()
    model = nb["TwoTower"](tower, tower, "cosine")
    x, y = random(2, 4, 3).requires_grad_(), random(2, 6, 3, seed=1)
    assert model.scores(x, y).shape == (2, 4, 6) and model.scores(x, y).abs().max() <= 1 + 1e-12
    model.scores(x, y).sum().backward()
    assert x.grad.isfinite().all()
    assert torch.equal(model.scores(torch.zeros(1, 3), torch.ones(2, 3)), torch.zeros(1, 2)), "a zero vector is similar to nothing"


def test_linear_towers_on_ids_are_embeddings(nb):
    users, tracks = torch.nn.Embedding(6, 3), torch.nn.Embedding(4, 3)
    model = nb["TwoTower"](users, tracks)
    assert torch.allclose(model.scores(torch.arange(6), torch.arange(4)), users.weight @ tracks.weight.T)


@pytest.mark.parametrize("bad", [{"similarity": "angle"}, {"gamma": 0.0}, {"gamma": -1}, {"gamma": math.nan}, {"gamma": math.inf}, {"gamma": True}, {"gamma": "1"}])
def test_towers_refuse(nb, bad):
    with pytest.raises(ValueError, match="similarity|gamma"):
        nb["TwoTower"](torch.nn.Identity(), torch.nn.Identity(), **bad)


def test_towers_refuse_what_does_not_fit(nb):
    model = nb["TwoTower"](torch.nn.Identity(), torch.nn.Identity())
    with pytest.raises(ValueError, match="length"):
        model.scores(random(2, 3), random(2, 4))
    with pytest.raises(ValueError, match="as many"):
        model(random(2, 3), random(4, 3))


# --- letters ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, expected", [
    ("", []), ("  ", []), ("a", ["#a#"]), ("Ab", ["#ab", "ab#"]), ("good good", ["#go", "goo", "ood", "od#"] * 2),
    ("É ß", ["#é#", "#ß#"]), ("tab\tnew\nline", ["#ta", "tab", "ab#", "#ne", "new", "ew#", "#li", "lin", "ine", "ne#"])])
def test_trigrams(nb, text, expected):
    assert nb["letter_trigrams"](text) == expected


@pytest.mark.parametrize("bad", [None, 3, ["a"], b"a"])
def test_trigrams_refuse(nb, bad):
    with pytest.raises(ValueError, match="text"):
        nb["letter_trigrams"](bad)


# --- losses -------------------------------------------------------------------------------------------------------------

def losses(nb):
    log_q = random(5, seed=2), random(5, 3, seed=3)
    ids = torch.tensor([3, 1, 3, 0, 1])
    return {"bce": (nb["bce_loss"], (POS, NEG)), "bpr": (nb["bpr_loss"], (POS, NEG)),
            "ssm": (nb["sampled_softmax_loss"], (POS, NEG)),
            "ssm_q": (lambda p, n: nb["sampled_softmax_loss"](p, n, *log_q, temperature=0.4), (POS, NEG)),
            "batch": (lambda s: nb["in_batch_softmax_loss"](s, log_q[0], ids), (random(5, 5, seed=4),)),
            "triplet": (nb["triplet_loss"], tuple(random(5, 3, seed=k) for k in (5, 6, 7))),
            "dssm": (lambda R: nb["dssm_loss"](R, 3.0), (random(5, 4, seed=8, scale=0.3),))}


@pytest.mark.parametrize("name", ["bce", "bpr", "ssm", "ssm_q", "batch", "triplet", "dssm"])
def test_losses_are_scalars_with_right_gradients(nb, name):
    loss, args = losses(nb)[name]
    value = loss(*args)
    assert value.shape == () and value.isfinite() and value.dtype == torch.float64
    assert torch.autograd.gradcheck(loss, tuple(x.clone().requires_grad_() for x in args))


def test_losses_are_torchs(nb):
    logits, target = torch.cat([POS[:, None], NEG], 1), torch.zeros(5, dtype=torch.int64)
    assert torch.allclose(nb["bce_loss"](POS, NEG), F.binary_cross_entropy_with_logits(logits, torch.eye(4).double()[:1].expand(5, 4)))
    assert torch.allclose(nb["bpr_loss"](POS, NEG), -F.logsigmoid(POS[:, None] - NEG).mean())
    assert torch.allclose(nb["sampled_softmax_loss"](POS, NEG), F.cross_entropy(logits, target))
    assert torch.allclose(nb["sampled_softmax_loss"](POS, NEG, temperature=0.2), F.cross_entropy(logits / 0.2, target))
    assert torch.allclose(nb["dssm_loss"](logits, 2.0), F.cross_entropy(2 * logits, target))
    a, p, q = (random(5, 3, seed=k) for k in (5, 6, 7))
    for margin in (0.2, 1.0, 3):
        assert torch.allclose(nb["triplet_loss"](a, p, q, margin), F.triplet_margin_loss(a, p, q, margin, eps=0))


def test_temperature_comes_before_log_q(nb):
    q = random(5, seed=2), random(5, 3, seed=3)
    right = F.cross_entropy(torch.cat([(POS / 0.5 - q[0])[:, None], NEG / 0.5 - q[1]], 1), torch.zeros(5, dtype=torch.int64))
    assert torch.allclose(nb["sampled_softmax_loss"](POS, NEG, *q, temperature=0.5), right)
    same = nb["sampled_softmax_loss"](POS, NEG, torch.full((5,), -7.0), torch.full((5, 3), -7.0))
    assert torch.allclose(same, nb["sampled_softmax_loss"](POS, NEG)), "a constant log Q changes nothing"


def test_in_batch_by_hand(nb):
    s, q, ids = random(4, 4), random(4, seed=1), [7, 2, 7, 5]
    total = 0
    for b in range(4):
        columns = [c for c in range(4) if c == b or ids[c] != ids[b]]
        total -= float((s - q)[b, b] - torch.logsumexp((s - q)[b, columns], 0))
    assert float(nb["in_batch_softmax_loss"](s, q, ids)) == pytest.approx(total / 4)
    assert torch.allclose(nb["in_batch_softmax_loss"](s), F.cross_entropy(s, torch.arange(4)))
    assert torch.allclose(nb["in_batch_softmax_loss"](s, torch.full((4,), 3.0)), F.cross_entropy(s, torch.arange(4)))
    copies = torch.stack([s, 2 * s])
    assert torch.allclose(nb["in_batch_softmax_loss"](copies), (F.cross_entropy(s, torch.arange(4)) + F.cross_entropy(2 * s, torch.arange(4))) / 2)


def test_all_items_the_same_leave_no_negatives(nb):
    s = random(3, 3).requires_grad_()
    loss = nb["in_batch_softmax_loss"](s, item=[1, 1, 1])
    loss.backward()
    assert loss == 0 and not s.grad.any()


@pytest.mark.parametrize("level", [900.0, -900.0])
def test_losses_are_finite_far_out(nb, level):
    pos, neg = torch.full((2,), level, dtype=torch.float64, requires_grad=True), torch.full((2, 3), -level, dtype=torch.float64, requires_grad=True)
    square = torch.tensor([[level, -level], [-level, level]], dtype=torch.float64, requires_grad=True)
    values = [nb[name](pos, neg) for name in ("bce_loss", "bpr_loss", "sampled_softmax_loss")]
    values += [nb["in_batch_softmax_loss"](square), nb["dssm_loss"](square, 1.0)]
    for value in values:
        assert value.isfinite()
    sum(values).backward()
    assert all(x.grad.isfinite().all() for x in (pos, neg, square))


@pytest.mark.parametrize("name", ["bce_loss", "bpr_loss", "sampled_softmax_loss"])
@pytest.mark.parametrize("pos, neg", [(POS, NEG[:4]), (POS, NEG[:, 0]), (NEG, NEG), (POS[:0], NEG[:0]), (POS, NEG[:, :0])])
def test_losses_refuse_shapes(nb, name, pos, neg):
    with pytest.raises(ValueError, match="need pos"):
        nb[name](pos, neg)


@pytest.mark.parametrize("bad, message", [
    (lambda nb: nb["sampled_softmax_loss"](POS, NEG, log_q_pos=POS), "neither"), (lambda nb: nb["sampled_softmax_loss"](POS, NEG, log_q_neg=NEG), "neither"),
    (lambda nb: nb["sampled_softmax_loss"](POS, NEG, POS, NEG[:, :2]), "log Q"), (lambda nb: nb["sampled_softmax_loss"](POS, NEG, POS[:4], NEG), "need pos"),
    (lambda nb: nb["sampled_softmax_loss"](POS, NEG, temperature=0), "temperature"), (lambda nb: nb["sampled_softmax_loss"](POS, NEG, temperature=-1.0), "temperature"),
    (lambda nb: nb["in_batch_softmax_loss"](random(1, 1)), "B >= 2"), (lambda nb: nb["in_batch_softmax_loss"](random(3, 2)), "B >= 2"),
    (lambda nb: nb["in_batch_softmax_loss"](random(3)), "B >= 2"), (lambda nb: nb["in_batch_softmax_loss"](random(3, 3), random(2)), "log_q"),
    (lambda nb: nb["in_batch_softmax_loss"](random(3, 3), [0.0, -math.inf, 0.0]), "finite"),
    (lambda nb: nb["sampled_softmax_loss"](POS, NEG, POS, NEG.abs().log() - math.inf), "finite"),
    (lambda nb: nb["in_batch_softmax_loss"](random(3, 3), random(3, 3)), "log_q"), (lambda nb: nb["in_batch_softmax_loss"](random(3, 3), item=[1, 2]), "item"),
    (lambda nb: nb["triplet_loss"](random(2, 3), random(2, 3), random(3, 3)), "three tensors"), (lambda nb: nb["triplet_loss"](POS, POS, POS), "three tensors"),
    (lambda nb: nb["triplet_loss"](random(2, 3), random(2, 3), random(2, 3), 0), "margin"), (lambda nb: nb["triplet_loss"](random(2, 3), random(2, 3), random(2, 3), math.inf), "margin"),
    (lambda nb: nb["dssm_loss"](random(3, 1), 1.0), "positive first"), (lambda nb: nb["dssm_loss"](random(3), 1.0), "positive first"),
    (lambda nb: nb["dssm_loss"](random(3, 2), 0.0), "gamma"), (lambda nb: nb["bpr_loss"](POS.to(torch.complex128), NEG), "complex")])
def test_losses_refuse_in_words(nb, bad, message):
    with pytest.raises(ValueError, match=message):
        bad(nb)


# --- negatives ----------------------------------------------------------------------------------------------------------

SEEN = torch.zeros(3, 8, dtype=torch.bool)
SEEN[0, :3] = SEEN[1, 1:] = True
N_J = torch.tensor([5, 0, 2, 9, 1, 4, 0, 16])


@pytest.mark.parametrize("options", [{}, {"kind": "popularity", "counts": N_J}, {"kind": "popularity", "counts": N_J.numpy(), "beta": 0.5},
                                     {"kind": "popularity", "counts": N_J.float(), "beta": 0.0}])
@pytest.mark.parametrize("layout", [lambda x: x, lambda x: x.numpy(), lambda x: scipy.sparse.csr_matrix(x.numpy()), lambda x: scipy.sparse.coo_matrix(x.numpy().astype(float))])
def test_negatives_are_never_seen(nb, options, layout):
    user = torch.tensor([0, 1, 2, 0])
    drawn = nb["sample_negatives"](user, 300, layout(SEEN), generator=torch.Generator().manual_seed(0), **options)
    assert drawn.shape == (4, 300) and drawn.dtype == torch.int64 and not SEEN[user[:, None], drawn].any()
    assert set(drawn[1].tolist()) == {0}
    weight = torch.where(N_J > 0, N_J.double() ** options.get("beta", 1.0), 0.0) if options else torch.ones(8).double()
    for row, u in ((0, 0), (2, 2)):
        free = weight.masked_fill(SEEN[u], 0)
        found = torch.bincount(drawn[row], minlength=8)
        assert (found[free == 0] == 0).all()
        assert scipy.stats.chisquare(found[free > 0], 300 * (free / free.sum())[free > 0]).pvalue > 1e-3


def test_the_generator_decides(nb):
    def draw(seed):
        return nb["sample_negatives"]([0, 2], 20, SEEN, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))


def test_hard_negatives_are_the_best_unseen(nb):
    scores = torch.arange(24).reshape(3, 8).float()
    assert nb["sample_negatives"]([0, 2, 0], 2, SEEN, "hard", scores=scores).tolist() == [[7, 6]] * 3
    before = scores.clone()
    nb["sample_negatives"]([0, 1, 2], 1, SEEN, "hard", scores=scores)
    assert torch.equal(scores, before)


@pytest.mark.parametrize("args, options, message", [
    (([0], 0, SEEN), {}, "k must"), (([0], 1.5, SEEN), {}, "k must"), (([0], True, SEEN), {}, "k must"), (([3], 1, SEEN), {}, "from 0 to 2"), (([-1], 1, SEEN), {}, "from 0 to 2"),
    (([], 1, SEEN), {}, "user"), (([0.0], 1, SEEN), {}, "user"), (([[0]], 1, SEEN), {}, "user"), (([0], 1, SEEN), {"kind": "easy"}, "kind"),
    (([0], 1, SEEN), {"kind": "popularity"}, "counts"), (([0], 1, SEEN), {"kind": "popularity", "counts": N_J[:7]}, "counts"),
    (([0], 1, SEEN), {"kind": "popularity", "counts": -N_J}, "counts"), (([0], 1, SEEN), {"kind": "hard"}, "scores"),
    (([0], 1, SEEN), {"kind": "hard", "scores": random(2, 8)}, "scores"), (([0], 1, SEEN), {"kind": "hard", "scores": random(1, 8) * math.nan}, "scores"),
    (([1], 2, SEEN), {"kind": "hard", "scores": random(1, 8)}, "fewer than 2"), (([0], 1, SEEN.float()), {}, "True and False"), (([0], 1, SEEN[0]), {}, "True and False"),
    (([0], 1, torch.ones(1, 4, dtype=torch.bool)), {}, "nothing left"),
    (([0], 1, SEEN[:1]), {"kind": "popularity", "counts": torch.tensor([1, 1, 1, 0, 0, 0, 0, 0])}, "nothing left"),
    *((([0], 1, SEEN), {"kind": "popularity", "counts": N_J, "beta": b}, "beta") for b in (None, "1", math.inf, math.nan, 400))])
def test_negatives_refuse_in_words(nb, args, options, message):
    with pytest.raises(ValueError, match=message):
        nb["sample_negatives"](*args, **options)


# --- the page's checks against broken formulas --------------------------------------------------------------------------

MUTANTS = [
    ('marked = [f"#{word}#" for word in text.lower().split()]', 'marked = [f"#{word}" for word in text.lower().split()]', "47.1"),
    ("for k in range(len(word) - 2)]", "for k in range(len(word) - 3)]", "47.1"),
    ('return (unit(a), unit(b)) if model.similarity == "cosine" else (a, b)', 'return (unit(a), b) if model.similarity == "cosine" else (a, b)', "47.2"),
    ("return self.gamma * a @ b.mT", "return a @ b.mT", "47.2"),
    ("return self.gamma * (a * b).sum(-1)", "return (a * b).sum(-1) / self.gamma", "47.2"),
    ('F.cross_entropy(positive("gamma", gamma) * R,', 'F.cross_entropy(R / positive("gamma", gamma),', "47.3"),
    ('F.cross_entropy(positive("gamma", gamma) * R,', 'F.cross_entropy(R / positive("gamma", gamma),', "47.4"),
    ("R.new_zeros(len(R), dtype=torch.int64))", "R.new_ones(len(R), dtype=torch.int64))", "47.4"),
    ("return F.relu((a - p).norm(dim=1) - (a - q).norm(dim=1) + margin).mean()", "return F.relu((a - p).norm(dim=1) - (a - q).norm(dim=1)).mean()", "47.5"),
    ("return F.relu((a - p).norm(dim=1) - (a - q).norm(dim=1) + margin).mean()", "return F.relu((a - p).norm(dim=1) - (p - q).norm(dim=1) + margin).mean()", "47.5"),
    ("return F.relu((a - p).norm(dim=1) - (a - q).norm(dim=1) + margin).mean()", "return F.softplus((a - p).norm(dim=1) - (a - q).norm(dim=1) + margin).mean()", "47.5"),
    ("return self.gamma * a @ b.mT", "return self.gamma * a.abs() @ b.mT", "47.6"),
    ("return self.gamma * (a * b).sum(-1)", "return self.gamma * (a * b).mean(-1)", "47.6"),
    ("P_all = scipy.special.softmax((V @ psi).detach().numpy())", "P_all = scipy.special.softmax((-V @ psi).detach().numpy())", "47.7"),
    ("V.detach().numpy().T @ (P_all - pi_u.numpy())", "V.detach().numpy().T @ (pi_u.numpy() - P_all)", "47.7"),
    ("sample_weight=np.where(clicked, T, 1.0)", "sample_weight=np.where(clicked, T + 1, 1.0)", "47.8"),
    ("1 / (1 - clicks.mean(1))", "1 / clicks.mean(1)", "47.9"),
    ("return (F.softplus(-pos) + F.softplus(neg).sum(1)).mean() / (1 + neg.shape[1])", "return (F.softplus(-pos) + F.softplus(neg).sum(1)).mean() / neg.shape[1]", "47.10"),
    ("return (F.softplus(-pos) + F.softplus(neg).sum(1)).mean() / (1 + neg.shape[1])", "return (F.softplus(pos) + F.softplus(neg).sum(1)).mean() / (1 + neg.shape[1])", "47.10"),
    ("return F.softplus(neg - pos[:, None]).mean()", "return F.softplus(pos[:, None] - neg).mean()", "47.11"),
    ("return F.softplus(neg - pos[:, None]).mean()", "return F.softplus(neg - pos[:, None]).sum(1).mean()", "47.11"),
    ("    s = torch.cat([pos[:, None], neg], 1)", "    s = torch.cat([neg, pos[:, None]], 1)", "47.12"),
    ("return F.cross_entropy(s, s.new_zeros(len(s), dtype=torch.int64))", "return (neg.logsumexp(1) - pos).mean()", "47.12"),
    ("for t in theta]) - lam * theta**2", "for t in theta]) - 2 * lam * theta**2", "47.13"),
    ("log_prior(np.eye(2) / (2 * lam)), atol=1e-12)", "log_prior(np.eye(2) / lam), atol=1e-12)", "47.14"),
    ("order = [(a > b) for a in liked for b in silent]", "order = [(a < b) for a in liked for b in silent]", "47.15"),
    ("return F.softplus(neg - pos[:, None]).mean()", "return 0.5 * F.softplus(neg - pos[:, None]).mean()", "47.15"),
    ("+ keep * (1 - click) * np.logaddexp(0, s)).sum()", "+ (1 - click) * np.logaddexp(0, s)).sum()", "47.16"),
    ("np.log(click / (1 - click)) - np.log(keep), s_best", "np.log(click / (1 - click)) + np.log(keep), s_best", "47.16"),
    ("return torch.where(counts > 0, (counts / top) ** beta, 0.0)", "return torch.where(counts > 0, counts / top, 0.0)", "47.17"),
    ("draw = lambda size: (torch.randint(m, (size,), generator=generator)", "draw = lambda size: (torch.randint(m - 1, (size,), generator=generator)", "47.17"),
    ("left = free[user[b]] * (1.0 if weight is None else weight)", "left = free[user[b]] * 1.0", "47.17"),
    ("b, c = seen[rows, items].nonzero(as_tuple=True)", "b, c = (~seen[rows, items]).nonzero(as_tuple=True)", "47.17"),
    ("return scores.masked_fill(seen, -torch.inf).topk(k, dim=1).indices", "return scores.topk(k, dim=1).indices", "47.17"),
    ("return scores.masked_fill(seen, -torch.inf).topk(k, dim=1).indices", "return scores.masked_fill(seen, torch.inf).topk(k, dim=1, largest=False).indices", "47.17"),
    ("pos, neg = pos - q_pos, neg - q_neg", "pos, neg = pos + q_pos, neg + q_neg", "47.18"),
    ("pos, neg = pos - q_pos, neg - q_neg", "pos, neg = pos, neg - q_neg", "47.18"),
    ('for s in (pos, neg))\n    if (log_q_pos is None)', 'for s in (neg, pos))\n    if (log_q_pos is None)', "47.18"),
    ("plain = lambda s: -pi_6 @ s + scipy.special.logsumexp(s, b=Q_6)", "plain = lambda s: -Q_6 @ s + scipy.special.logsumexp(s, b=Q_6)", "47.19"),
    ("scipy.special.logsumexp(s - np.log(Q_6), b=Q_6)", "scipy.special.logsumexp(s + np.log(Q_6), b=Q_6)", "47.19"),
    ("s = s - finite(log_q)[..., None, :]", "s = s + finite(log_q)[..., None, :]", "47.20"),
    ("s = s - finite(log_q)[..., None, :]", "s = s - finite(log_q)[..., :, None]", "47.20"),
    ("s = s.masked_fill(twin, -torch.inf)", "s = s.masked_fill(twin, 0.0)", "47.20"),
    ("& ~torch.eye(B, dtype=torch.bool)", "& torch.eye(B, dtype=torch.bool)", "47.20"),
    ("return (s.logsumexp(-1) - s.diagonal(dim1=-2, dim2=-1)).mean()", "return (s.logsumexp(-2) - s.diagonal(dim1=-2, dim2=-1)).mean()", "47.20"),
    ("return math.log(N) - torch.stack(", "return math.log(N + 1) - torch.stack(", "47.21"),
    ("y = rho * x + (1 - rho**2) ** 0.5 * noise", "y = rho * x + (1 - rho**2) * noise", "47.21"),
    ("estimate.append((1 - alpha) * estimate[-1] + alpha * x)", "estimate.append((1 - alpha) * estimate[-1] + 2 * alpha * x)", "47.22"),
    ("estimate.append((1 - alpha) * estimate[-1] + alpha * x)", "estimate.append(alpha * estimate[-1] + (1 - alpha) * x)", "47.22"),
    ("gap = np.diff(at).astype(float)", "gap = np.diff(at).astype(float) - 1", "47.22"),
    ("doubt = torch.sigmoid(log_Z - pos).detach()", "doubt = torch.sigmoid(log_Z - pos)", "47.23"),
    ("doubt = torch.sigmoid(log_Z - pos).detach()", "doubt = torch.sigmoid(pos - log_Z).detach()", "47.23"),
    ("(neg - log_q_neg).logsumexp(1) - math.log(neg.shape[1])", "(neg - log_q_neg).logsumexp(1)", "47.23"),
]
(test_a_wrong_formula_fails_its_own_check, test_the_right_formulas_pass_the_same_slices,
 test_every_equation_has_a_wrong_variant) = wrong_variant_tests(BOOK, MUTANTS)
