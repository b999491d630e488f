"""Notebook 46: its modules on inputs the page does not show, and its checks against broken formulas."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.book import book, wrong_variant_tests

BOOK = book("46")


@pytest.fixture(scope="module")
def nb():
    names = BOOK.definitions()
    names |= {"device": torch.device("cpu"), "ZERO": math.sqrt(1.13**2 - 0.85**2)}     # computed in cells of the page
    return names


USER, ITEM = torch.tensor([0, 3, 1, 2, 0, 3]), torch.tensor([4, 0, 1, 2, 1, 3])
SHAPES = {"NeuMF": (3, 4, (6, 5)), "MLP": (0, 4, (6, 5)), "GMF": (3, 0, ())}
shapes = pytest.mark.parametrize("kind", SHAPES)


def model_of(nb, kind, n=4, m=5):
    torch.manual_seed(0)
    return nb["NeuMF"](n, m, *SHAPES[kind])


@shapes
def test_names_and_shapes_of_the_parameters(nb, kind):
    d_gmf, d_mlp, hidden = SHAPES[kind]
    model, names = model_of(nb, kind), dict(model_of(nb, kind).named_parameters())
    assert ("p_gmf.weight" in names) == (d_gmf > 0) and ("p_mlp.weight" in names) == (d_mlp > 0)
    if d_gmf:
        assert names["p_gmf.weight"].shape == (4, d_gmf) and names["q_gmf.weight"].shape == (5, d_gmf)
    if d_mlp:
        assert names["p_mlp.weight"].shape == (4, d_mlp) and names["q_mlp.weight"].shape == (5, d_mlp)
        linear = [part for part in model.mlp if isinstance(part, torch.nn.Linear)]
        assert [(part.in_features, part.out_features) for part in linear] == list(itertools.pairwise([2 * d_mlp, *hidden]))
    assert isinstance(model.h, torch.nn.Linear) and model.h.weight.shape == (1, d_gmf + (hidden[-1] if hidden else 0))


@shapes
@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 6, 1), ()])
def test_logits_have_the_shape_of_the_ids(nb, kind, shape):
    model = model_of(nb, kind)
    user, item = (x.reshape(shape) if shape else x[0] for x in (USER, ITEM))
    a = model(user, item)
    assert a.shape == shape and a.is_floating_point()
    assert torch.allclose(a.reshape(-1), model(USER, ITEM)[:a.numel()], atol=1e-6)


@shapes
def test_logits_are_not_probabilities(nb, kind):
    model = model_of(nb, kind)
    with torch.no_grad():
        model.h.bias += 10
    assert (model(USER, ITEM) > 5).all()


@shapes
def test_ids_in_every_form(nb, kind):
    model = model_of(nb, kind)
    expected = model(USER, ITEM)
    for form in (lambda x: x.numpy(), lambda x: x.int(), lambda x: torch.stack([x, x], 1)[:, 0], lambda x: x.tolist(), lambda x: x.to(torch.uint8)):
        assert torch.equal(model(form(USER), form(ITEM)), expected)
    assert torch.equal(model(USER.to(torch.uint16), ITEM.to(torch.uint16)), expected)
    assert model(USER[:0], ITEM[:0]).shape == model([], []).shape == (0,)


def test_neumf_has_two_sets_of_embeddings(nb):
    model = model_of(nb, "NeuMF")
    before = model(USER, ITEM)
    with torch.no_grad():
        model.p_gmf.weight.zero_()
        model.h.weight[:, :3] = 0
    product_free = model(USER, ITEM)
    assert not torch.allclose(before, product_free)
    assert torch.allclose(product_free, F.linear(model.mlp(torch.cat([model.p_mlp(USER), model.q_mlp(ITEM)], 1)), model.h.weight[:, 3:], model.h.bias)[:, 0])


def test_the_order_in_the_last_layer_is_product_then_layers(nb):
    model = model_of(nb, "NeuMF")
    with torch.no_grad():
        model.h.weight[:] = torch.tensor([[1.0] * 3 + [0.0] * 5])
        model.h.bias.zero_()
    assert torch.allclose(model(USER, ITEM), (model.p_gmf(USER) * model.q_gmf(ITEM)).sum(1), atol=1e-6)


@pytest.mark.parametrize("sizes, message", [
    ((4, 5, 0, 0, ()), "no branch"), ((4, 5, 2, 3, ()), "layers"), ((4, 5, 0, 3, ()), "layers"), ((4, 5, 2, 0, (4,)), "layers"),
    ((0, 5, 2, 0, ()), "n_users"), ((4, 5, -1, 0, ()), "d_gmf"), ((4, 5, 2, 3, (4, 0)), "widths"), ((4, 5, 2.0, 0, ()), "whole"),
    ((4, 5, 2, 3, None), "widths"), ((4, 5, 2, 3, (4.0,)), "whole"), ((4, 5, True, 0, ()), "whole")])
def test_sizes_that_make_no_model_are_refused(nb, sizes, message):
    with pytest.raises(ValueError, match=message):
        nb["NeuMF"](*sizes)


@pytest.mark.parametrize("user, item, message", [
    ([0, 1], [0], "one shape"), ([0, 4], [0, 1], r"0\.\.3"), ([0, -1], [0, 1], r"0\.\.3"), ([0, 1], [0, 5], r"0\.\.4"), ([0.0, 1.0], [0, 1], "integer")])
def test_ids_that_do_not_fit_are_refused(nb, user, item, message):
    for kind in SHAPES:
        with pytest.raises(ValueError, match=message):
            model_of(nb, kind)(torch.tensor(user), torch.tensor(item))


# --- training ------------------------------------------------------------------------------------------------------------

def blocks(n=30, m=20, seed=0):
    """Positives: even users like even items, odd users odd ones; two thirds of them."""
    user, item = np.nonzero((np.arange(n)[:, None] - np.arange(m)) % 2 == 0)
    keep = np.random.default_rng(seed).random(len(user)) < 0.67
    return torch.tensor(user[keep]), torch.tensor(item[keep]), torch.tensor(user[~keep]), torch.tensor(item[~keep])


def test_training_finds_what_is_there(nb):
    user, item, u_new, i_new = blocks()
    torch.manual_seed(0)
    model = nb["NeuMF"](30, 20, 4, 4, (8,))
    history = nb["train_ncf"](model, user, item, 20, 20, lr=0.02, batch_size=128, weight_decay=1e-3)
    assert isinstance(history, list) and len(history) == 20 and all(isinstance(x, float) and math.isfinite(x) for x in history)
    assert history[-1] < 0.6 * history[0]
    assert float((model(u_new, i_new) > model(u_new, (i_new + 1) % 20)).double().mean()) > 0.85


def test_the_first_loss_is_a_mean_per_pair(nb):
    user, item, *_ = blocks()
    model = model_of(nb, "GMF", 30, 20)
    torch.nn.init.zeros_(model.h.bias)
    history = nb["train_ncf"](model, user, item, 20, 1, lr=1e-8, batch_size=64)
    assert history[0] == pytest.approx(math.log(2), abs=0.01)               # logits near 0


def test_the_same_seed_gives_the_same_training(nb):
    user, item, *_ = blocks()

    def fit(seed):
        model = model_of(nb, "NeuMF", 30, 20)
        return nb["train_ncf"](model, user, item, 20, 2, seed=seed), model.h.weight.detach()

    (a, w_a), (b, w_b), (c, _) = fit(1), fit(1), fit(2)
    assert a == b and torch.equal(w_a, w_b) and a != c


class Columns(torch.nn.Module):
    """Logits (B, 1): a shape that would spread over a table (B, B)."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(30, 1)

    def forward(self, user, item):
        return self.table(user)


def test_logits_of_another_shape_than_the_labels_are_refused(nb):
    user, item, *_ = blocks()
    with pytest.raises(ValueError, match="one shape.*squeeze"):
        nb["train_ncf"](Columns(), user, item, 20, 1)
    with pytest.raises(ValueError, match="one shape"):
        nb["ncf_loss"](torch.zeros(3, 1), torch.zeros(3))


@pytest.mark.parametrize("n_negatives", [1, 4])
def test_the_loss_counts_positives_and_negatives(nb, n_negatives):
    user, item, *_ = blocks()
    model = model_of(nb, "GMF", 30, 20)
    model.h.load_state_dict({"weight": torch.zeros(1, 3), "bias": torch.ones(1)})              # the logit 1 for all
    yes, no = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    history = nb["train_ncf"](model, user, item, 20, 1, n_negatives=n_negatives, lr=1e-12, batch_size=50)
    assert history[0] == pytest.approx((yes + n_negatives * no) / (1 + n_negatives), abs=1e-5)


def test_training_changes_no_argument(nb):
    user, item, *_ = blocks()
    copies = user.clone(), item.clone()
    nb["train_ncf"](model_of(nb, "GMF", 30, 20), user, item, 20, 1)
    assert torch.equal(user, copies[0]) and torch.equal(item, copies[1])


def test_weight_decay_shrinks(nb):
    user, item, *_ = blocks()
    sizes = []
    for decay in (0.0, 0.1):
        model = model_of(nb, "GMF", 30, 20)
        nb["train_ncf"](model, user.numpy(), item.numpy(), 20, 10, lr=0.02, weight_decay=decay)
        sizes.append(float(model.p_gmf.weight.detach().norm()))
    assert sizes[1] < 0.5 * sizes[0]


@pytest.mark.parametrize("change, message", [
    ({"user": USER[:0], "item": ITEM[:0]}, "at least one"), ({"item": ITEM[:3]}, "one user and one item"), ({"user": USER + 10}, r"0\.\.3"),
    ({"item": ITEM + 1}, r"0\.\.4"), ({"n_epochs": 0}, "n_epochs"), ({"n_negatives": 0}, "n_negatives"), ({"batch_size": 0}, "batch_size"), ({"n_items": 4}, "n_items")])
def test_training_on_nonsense_is_refused(nb, change, message):
    with pytest.raises(ValueError, match=message):
        nb["train_ncf"](**({"model": model_of(nb, "GMF"), "user": USER, "item": ITEM, "n_items": 5, "n_epochs": 1} | change))


def test_a_user_who_has_seen_everything_is_refused(nb):
    with pytest.raises(ValueError, match="user 2 has seen all"):
        nb["train_ncf"](model_of(nb, "GMF"), torch.tensor([2] * 5), torch.arange(5), 5, 1)


@pytest.mark.parametrize("room", [10**8, 0])
def test_negatives_are_unseen_and_uniform(nb, room):
    user, item = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([1, 3, 0, 2, 4])
    seen = nb["Seen"](user, item, 6, room=room)
    assert (seen.table is None) == (room == 0)
    assert seen(user, item).all() and not seen(torch.tensor([0, 1]), torch.tensor([0, 1])).any()
    drawn = seen.unseen(torch.tensor([0, 1]).repeat_interleave(30_000), torch.Generator().manual_seed(0))
    for u, allowed in ((0, [0, 2, 4, 5]), (1, [1, 3, 5])):
        counts = torch.bincount(drawn[30_000 * u:30_000 * (u + 1)], minlength=6)
        assert counts[[k for k in range(6) if k not in allowed]].sum() == 0
        assert torch.allclose(counts[allowed] / 30_000, torch.tensor(1 / len(allowed)), atol=0.015)


def test_negatives_are_new_in_each_epoch(nb):
    user, item, *_ = blocks()
    seen, g = nb["Seen"](user, item, 20), torch.Generator().manual_seed(0)
    one, two = ({tuple(row) for b in nb["epoch_of"](user, item, seen, 4, 64, g) for row in torch.stack(b, 1).long().tolist() if row[2] == 0} for _ in range(2))
    assert len(one - two) > 20
    batches = nb["epoch_of"](user, item, seen, 4, 64, g)
    y = torch.cat([b[2] for b in batches])
    assert y.sum() == len(user) and len(y) == 5 * len(user) and 0.05 < float(batches[0][2].mean()) < 0.5


def test_side_by_side_is_one_by_one(nb):
    user, item, *_ = blocks()
    apart = nb["made"](lambda: nb["NeuMF"](30, 20, 2, 2, (3,)), 2)
    together = nb["made"](lambda: nb["NeuMF"](30, 20, 2, 2, (3,)), 2)
    for seed, model in enumerate(apart):
        nb["train_ncf"](model, user, item, 20, 2, lr=0.01, batch_size=100, weight_decay=0.01, seed=seed)
    nb["train_many"](together, user, item, 20, 2, penalties=0.01, lr=0.01, batch_size=100)
    for a, b in zip(apart, together):
        assert all(torch.allclose(x, y, atol=1e-4) for x, y in zip(a.parameters(), b.parameters()))


# --- metrics -------------------------------------------------------------------------------------------------------------

def test_hr_and_ndcg_by_hand(nb):
    hr, ndcg = nb["hr_ndcg"](torch.tensor([0, 9, 10, 3]), 10)
    assert float(hr) == 0.75 and float(ndcg) == pytest.approx((1 + 1 / math.log2(11) + 1 / math.log2(5)) / 4)


PLACES = {"scores": torch.tensor([[1.0, 5, 3, 3, 9, 2], [0.0, 0, 0, 0, 0, 0], [6.0, 5, 4, 3, 2, 1]]),
          "target": torch.tensor([2, 0, 1]), "other": torch.tensor([1, 5, 0]), "users": torch.tensor([0, 1, 2]),
          "seen": torch.tensor([[0, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]).bool()}


def test_places_by_hand(nb):
    # user 0: the tie at 3 counts against, 9 is seen, 5 is the other one; user 1: three ties; user 2: the best but the other
    assert nb["places"](**PLACES).tolist() == [1, 3, 0]
    assert nb["places"](**PLACES, n_negatives=3).tolist() == [1, 3, 0]
    assert set(nb["places"](**PLACES, n_negatives=1, seed=3).tolist()) <= {0, 1}


@pytest.mark.parametrize("where", [(0, 2), (0, 0)])
def test_scores_that_are_nan_have_no_place(nb, where):
    scores = PLACES["scores"].clone()
    scores[where] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        nb["places"](**(PLACES | {"scores": scores}))


def test_learning_a_dot_product_is_judged_on_fresh_vectors(nb):
    few = nb["learn_dot"](4, 64, epochs=300, seeds=2)          # learned by heart: bad elsewhere
    assert few.shape == (2,) and (few > 0.9 * nb["ZERO"]).all()


def test_the_last_two_of_each_user(nb):
    user = torch.tensor([0, 1, 0, 1, 0, 2, 1, 0])
    train, valid, test = nb["last_two_out"](user)
    assert train.tolist() == [0, 1, 2, 5] and valid.tolist() == [4, 3] and test.tolist() == [7, 6]


# --- Wide & Deep, Deep & Cross -------------------------------------------------------------------------------------------

def test_cross_products_by_brute_force(nb):
    x = torch.tensor(list(itertools.product([0, 1], repeat=4)))
    C = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
    expected = torch.stack([(x.bool() | ~c.bool()).all(1) for c in C], 1)
    for form in (torch.Tensor.long, torch.Tensor.float, torch.Tensor.double, torch.Tensor.bool, torch.Tensor.half):
        phi = nb["cross_product"](form(x), form(C))
        assert phi.dtype == form(x).dtype and torch.equal(phi.bool(), expected)
    assert nb["cross_product"](x.numpy().reshape(4, 4, 4), C.numpy()).shape == (4, 4, 4)
    assert nb["cross_product"](x[:0], C).shape == (0, 4) and nb["cross_product"](x[3], C).shape == (4,)


@pytest.mark.parametrize("x, C, message", [([[0, 2]], [[1, 1]], "0 or 1"), ([[0, 1]], [[1, 0.5]], "0 or 1"), ([[0, float("nan")]], [[1, 1]], "0 or 1"),
                                           ([[0, 1]], [[1, 1, 0]], "need x"), ([[0, 1]], [1, 1], "need x")])
def test_cross_products_of_other_numbers_are_refused(nb, x, C, message):
    with pytest.raises(ValueError, match=message):
        nb["cross_product"](torch.tensor(x), torch.tensor(C))


ROWS = torch.tensor([[0, 2], [3, 1], [1, 4]])


def test_wide_and_deep_has_the_promised_parts(nb):
    model = nb["WideAndDeep"](7, (4, 5), 3, (6, 2))
    assert model.wide.bias is None and model.wide.weight.shape == (1, 7) and model.out.weight.shape == (1, 2)
    assert [e.weight.shape for e in model.embeddings] == [(4, 3), (5, 3)]
    x = torch.zeros(3, 7)
    x[1, 2] = x[2, 6] = 1
    with torch.no_grad():
        model.wide.weight += torch.arange(7.0)
    a, without = model(x, ROWS), model(torch.zeros(3, 7), ROWS)
    assert a.shape == (3,) and torch.allclose(a - without, torch.tensor([0.0, 2, 6]), atol=1e-5)
    assert torch.allclose(model(x.long().numpy(), ROWS.int().numpy()), a)
    assert model(x[:0], ROWS[:0]).shape == (0,)
    ones = torch.tensor([[7, 7], [2, 7], [7, 6]])
    assert torch.allclose(model.at_ones(ones, ROWS), a, atol=1e-6)


@pytest.mark.parametrize("args, message", [((7, (), 3, (6,)), "field"), ((7, (4, 5), 3, ()), "layers"), ((0, (4, 5), 3, (6,)), "wide"), ((7, (4, 0), 3, (6,)), "categories"), ((7, (4, 5), 0, (6,)), "d >= 1"),
                                           ((7, (4, 5), 3, None), "widths"), ((7, (4.5, 5), 3, (6,)), "whole"), ((7, (4, 5), 2.0, (6,)), "whole"), ((7.0, (4, 5), 3, (6,)), "whole")])
def test_wide_and_deep_without_parts_is_refused(nb, args, message):
    with pytest.raises(ValueError, match=message):
        nb["WideAndDeep"](*args)


def test_rows_that_do_not_fit_are_refused(nb):
    wide, cross = nb["WideAndDeep"](7, (4, 5), 3, (6,)), nb["DeepCross"]((4, 5), 3, 1, (6,))
    for call in (lambda x: wide(torch.zeros(len(x), 7), x), cross):
        for x, message in ((torch.tensor([[0, 5]]), r"field 1.*0\.\.4"), (torch.tensor([[-1, 0]]), r"field 0.*0\.\.3"), (torch.tensor([[0, 1, 2]]), "x_cat must be"),
                           (torch.tensor([[0.0, 1.0]]), "integer")):
            with pytest.raises(ValueError, match=message):
                call(x)
    with pytest.raises(ValueError, match="x_wide"):
        wide(torch.zeros(3, 6), ROWS)


def test_cross_layer_by_hand(nb):
    layer = nb["CrossLayer"](2)
    assert layer.w.shape == layer.b.shape == (2,)
    with torch.no_grad():
        layer.w[:], layer.b[:] = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 0.25])
    x0, x = torch.tensor([[1.0, 3.0]]), torch.tensor([[4.0, 5.0]])
    assert layer(x0, x).tolist() == [[3.0 * 1 + 0.5 + 4, 3.0 * 3 + 0.25 + 5]]
    assert layer(x0[0], x[0]).shape == (2,) and layer(x0[None].expand(2, 3, 2), x[None].expand(2, 3, 2)).shape == (2, 3, 2)
    assert layer(x0.numpy(), x.double()).tolist() == layer(x0, x).tolist() and layer(x0.half(), x.half()).dtype == torch.float32
    for a, b in ((torch.zeros(1, 3), torch.zeros(1, 3)), (x0, x.expand(4, 2)), (torch.tensor(1.0), torch.tensor(1.0))):
        with pytest.raises(ValueError, match="need x0 and x"):
            layer(a, b)
    for d in (0, 2.0, None):
        with pytest.raises(ValueError, match="whole"):
            nb["CrossLayer"](d)


@pytest.mark.parametrize("n_cross, hidden", [(2, (6, 4)), (3, ()), (0, (5,))])
def test_deep_cross_by_numpy(nb, n_cross, hidden):
    torch.manual_seed(0)
    model = nb["DeepCross"]((4, 5), 3, n_cross, hidden).double()
    w = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    x = x0 = np.hstack([w[f"embeddings.{k}.weight"][ROWS[:, k]] for k in (0, 1)])
    for layer in model.cross:
        x = x0 * (x @ layer.w.detach().numpy())[:, None] + layer.b.detach().numpy() + x
    z = x0
    for k in range(len(hidden)):
        z = np.maximum(z @ w[f"mlp.{2 * k}.weight"].T + w[f"mlp.{2 * k}.bias"], 0)
    both = np.hstack(([x] if n_cross else []) + ([z] if hidden else []))
    assert np.allclose(model(ROWS).detach().numpy(), both @ w["out.weight"][0] + w["out.bias"], atol=1e-12)
    assert model(ROWS.numpy()).shape == (3,)
    again = nb["DeepCross"]((size for size in (4, 5)), 3, n_cross, (width for width in hidden))        # consumed once
    again.load_state_dict(model.state_dict())
    assert torch.allclose(again.double()(ROWS), model(ROWS))


def test_one_width_may_be_a_number(nb):
    assert nb["WideAndDeep"](3, (4, 5), 2, 8)(torch.zeros(3, 3), ROWS).shape == nb["DeepCross"]((4, 5), 2, 1, 8)(ROWS).shape == (3,)


def test_the_first_layer_in_halves(nb):
    model = model_of(nb, "MLP")
    of_user, of_item = nb["first_layer_halves"](model)
    for u in range(4):
        assert torch.allclose(nb["from_halves"](model, of_user[u], of_item), model(torch.full((5,), u), torch.arange(5)), atol=1e-6)
    assert nb["multiplications"](16, (32, 16, 8)) == 1672 and nb["multiplications"](16, (32, 16, 8), split=True) == 648


@pytest.mark.parametrize("args", [((4, 5), 3, 0, ()), ((), 3, 1, ()), ((4, 5), 3, -1, (4,)), ((4, 5), 3, 1, (0,)), ((4, 5), 3, 1.5, (4,)), ((4, 5), 3, 1, None)])
def test_deep_cross_without_layers_is_refused(nb, args):
    with pytest.raises(ValueError):
        nb["DeepCross"](*args)


def test_gradients_reach_every_parameter(nb):
    for model, a in ((m := model_of(nb, "NeuMF"), m(USER, ITEM)), (m := nb["WideAndDeep"](7, (4, 5), 3, (6,)), m(torch.ones(3, 7), ROWS)),
                     (m := nb["DeepCross"]((4, 5), 3, 2, (6,)), m(ROWS))):
        a.square().sum().backward()
        assert all(p.grad is not None for p in model.parameters())


def test_models_in_float64_pass_gradcheck(nb):
    torch.manual_seed(3)
    for model, args in ((nb["NeuMF"](4, 5, 2, 2, (3,)), (USER, ITEM)), (nb["DeepCross"]((4, 5), 2, 2, ()), (ROWS,))):
        model = model.double()
        names, weights = zip(*model.named_parameters())
        for p in weights:
            torch.nn.init.normal_(p)
        assert torch.autograd.gradcheck(lambda *w: torch.func.functional_call(model, dict(zip(names, w)), args), weights)


def test_the_loss_is_finite_at_large_logits(nb):
    a, y = torch.tensor([900.0, -900.0, 900.0, -900.0], dtype=torch.float64, requires_grad=True), torch.tensor([1.0, 0.0, 0.0, 1.0])
    loss = nb["ncf_loss"](a, y)
    loss.backward()
    assert float(loss.detach()) == 1800 and torch.isfinite(a.grad).all()


# Wrong variants of each formula: where, what it becomes, and the equation whose check must notice.
MUTANTS = [
    ("table = nn.Embedding.from_pretrained(layer.weight.detach().T)", "table = nn.Embedding.from_pretrained(layer.weight.detach().T + 1)", "46.1"),
    ("layer = nn.Linear(5, 3, bias=False).double()", "layer = nn.Linear(5, 3, bias=True).double()", "46.1"),
    ("torch.cat([self.p_mlp(user), self.q_mlp(item)], -1)", "torch.cat([self.q_mlp(item), self.p_mlp(user)], -1)", "46.2"),
    ("for part in (nn.Linear(a, b), nn.ReLU())", "for part in (nn.Linear(a, b), nn.Tanh())", "46.2"),
    ("self.p_gmf(user) * self.q_gmf(item)", "self.p_gmf(user) + self.q_gmf(item)", "46.3"),
    ("return self.h(torch.cat(parts, -1)).squeeze(-1)", "return self.h(torch.cat(parts[::-1], -1)).squeeze(-1)", "46.3"),
    ("return self.h(torch.cat(parts, -1)).squeeze(-1)", "return torch.sigmoid(self.h(torch.cat(parts, -1)).squeeze(-1))", "46.3"),
    ("np.r_[slopes, -slopes] / 4", "np.r_[slopes, -slopes] / 2", "46.4"),
    ("np.full(K - 1, 8 / K)", "np.full(K - 1, 4 / K)", "46.4"),
    ("np.tile([1.0, -1.0], (K, 1))", "np.tile([1.0, 1.0], (K, 1))", "46.4"),
    ("return (F.softplus(a) - y * a).sum()", "return (F.softplus(a) + y * a).sum()", "46.5"),
    ("return (F.softplus(a) - y * a).sum()", "return (F.softplus(a) - y * a).mean()", "46.5"),
    ("torch.sigmoid(a_50) - y_50, slope", "y_50 - torch.sigmoid(a_50), slope", "46.6"),
    ("return (F.softplus(a) - y * a).sum()", "return (F.softplus(-a) - y * a).sum()", "46.6"),
    ("tau = math.sqrt(ZERO / math.sqrt(d))", "tau = math.sqrt(ZERO / d)", "46.7"),
    ("tau = math.sqrt(ZERO / math.sqrt(d))", "tau = math.sqrt(ZERO) / math.sqrt(d)", "46.7"),
    ("return p, q, dot, dot + 0.85 * torch", "return p, q, dot, dot + 1.13 * torch", "46.7"),
    ("torch.log2(place.double() + 2)", "torch.log2(place.double() + 1.5)", "46.8"),
    ("hit = (place < k).double()", "hit = (place <= k).double()", "46.8"),
    ("return (s >= own[:, None]).sum(1)", "return (s > own[:, None]).sum(1)", "46.8"),
    ("own, s[rows, other] = s[rows, target].clone(), -torch.inf", "own = s[rows, target].clone()", "46.8"),
    ("s = torch.where(seen, -torch.inf, ", "s = torch.where(seen & False, -torch.inf, ", "46.8"),
    ("== members.sum(1)).to(x.dtype)", ">= 1).to(x.dtype)", "46.9"),
    ("return (x.float() @ members.T", "return ((1 - x.float()) @ members.T", "46.9"),
    ("return self.wide(x_wide).squeeze(-1) + self.deep(x_cat)", "return self.wide(x_wide).squeeze(-1) - self.deep(x_cat)", "46.10"),
    ("return weights[ones].sum(-1) + self.deep(x_cat)", "return weights[ones].sum(-1)", "46.10"),
    ("weights = F.pad(self.wide.weight[0], (0, 1))", "weights = F.pad(self.wide.weight[0], (1, 0))", "46.10"),
    ("return x0 * (x @ self.w)[..., None] + self.b + x", "return x * (x @ self.w)[..., None] + self.b + x", "46.11"),
    ("return x0 * (x @ self.w)[..., None] + self.b + x", "return x0 * (x0 @ self.w)[..., None] + self.b + x", "46.11"),
    ("return x0 * (x @ self.w)[..., None] + self.b + x", "return x0 * (x @ self.w)[..., None] + self.b + x0", "46.11"),
    ("return x0 * (x @ self.w)[..., None] + self.b + x", "return x0 * (x @ self.w)[..., None] + x", "46.11"),
    ("x = x0 * (x @ w) + x + (0 if", "x = x * (x @ w) + x + (0 if", "46.12"),
    ("x = x0 * (x @ w) + x + (0 if", "x = x0 * (x @ w) + (0 if", "46.12"),
    ("return cross_output(x0, weights[:-1], biases) @ weights[-1]", "return cross_output(x0, weights, biases) @ weights[-1]", "46.13"),
    ("return cross_output(x0, weights[:-1], biases) @ weights[-1]", "return cross_output(x0, weights[:-1], biases) @ weights[-1] + 1", "46.13"),
    ("if 1 <= sum(nu) <= l + 1]", "if 0 <= sum(nu) <= l + 1]", "46.14"),
    ("if 1 <= sum(nu) <= l + 1]", "if 1 <= sum(nu) <= l]", "46.14"),
    ("x = x0 * (x @ w) + x + (0 if", "x = x0 * (x @ w) + x0 + (0 if", "46.15"),
    ("net.q_mlp.weight @ W[:, d:].T", "net.q_mlp.weight @ W[:, :d].T", "46.16"),
    ("[*([] if split else [2 * d_mlp]), *hidden, 1]", "[*([2 * d_mlp]), *hidden, 1]", "46.16"),
    ("[*([] if split else [2 * d_mlp]), *hidden, 1]", "[*([] if split else [d_mlp]), *hidden, 1]", "46.16"),
    ("[*([] if split else [2 * d_mlp]), *hidden, 1]", "[*([] if split else [2 * d_mlp]), *hidden]", "46.16"),
]
(test_a_wrong_formula_fails_its_own_check, test_the_right_formulas_pass_the_same_slices,
 test_every_equation_has_a_wrong_variant) = wrong_variant_tests(BOOK, MUTANTS)
