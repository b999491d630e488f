"""Notebook 21: its public functions on inputs the page does not show, and its checks against broken formulas."""

import itertools
import math

import numpy as np
import pycrfsuite
import pytest
import seqeval.metrics
import torch
import torchcrf
from hmmlearn.hmm import CategoricalHMM
from seqeval.metrics.sequence_labeling import get_entities

from tests.book import book, wrong_variant_tests

BOOK = book("21")
NAN = math.nan


@pytest.fixture(scope="module")
def nb():
    names = BOOK.definitions()
    names["device"] = torch.device("cpu")         # the setup cell's
    return names


def crf_of(nb, K, seed=0, dtype=torch.float64, size=1.0):
    """A CRF with random weights, and pytorch-crf with the same."""
    torch.manual_seed(seed)
    ours, theirs = nb["LinearChainCRF"](K).to(dtype), torchcrf.CRF(K, batch_first=True).to(dtype)
    with torch.no_grad():
        for mine, other in ((ours.start, theirs.start_transitions), (ours.transitions, theirs.transitions), (ours.end, theirs.end_transitions)):
            mine.copy_(size * torch.randn_like(mine))
            other.copy_(mine)
    return ours, theirs


def mask_of(*lengths):
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def paths_of(crf, e):
    """Every path of one sentence with its score, by sums over Python numbers."""
    A, b, c, e = (x.detach().double().tolist() for x in (crf.transitions, crf.start, crf.end, e))
    found = {}
    for y in itertools.product(range(len(b)), repeat=len(e)):
        found[y] = b[y[0]] + c[y[-1]] + sum(row[k] for row, k in zip(e, y)) + sum(A[i][j] for i, j in zip(y, y[1:]))
    return found


# ---- the chain --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("K, lengths, seed", [(1, (3, 1), 0), (2, (7, 1, 4), 1), (4, (4, 5, 2), 2), (5, (1,), 3)])
def test_everything_by_enumeration(nb, K, lengths, seed):
    crf, _ = crf_of(nb, K, seed)
    mask = mask_of(*lengths)
    e = torch.where(mask[..., None], torch.randn(*mask.shape, K).double(), NAN)
    y = torch.where(mask, torch.randint(K, mask.shape), -100)
    log_z, ll, marginals = crf.log_partition(e, mask).detach(), crf.log_likelihood(e, y, mask).detach(), crf.marginals(e, mask)
    best, score = crf.viterbi(e, mask)
    assert (best[~mask] == -1).all() and (marginals[~mask] == 0).all() and not marginals.requires_grad
    for b, n in enumerate(lengths):
        scores = paths_of(crf, e[b, :n])
        total = math.log(sum(map(math.exp, scores.values())))
        assert float(log_z[b]) == pytest.approx(total, abs=1e-10)
        assert float(ll[b]) == pytest.approx(scores[tuple(y[b, :n].tolist())] - total, abs=1e-10)
        assert float(score[b]) == pytest.approx(max(scores.values()), abs=1e-10)
        assert scores[tuple(best[b, :n].tolist())] == pytest.approx(max(scores.values()), abs=1e-10)
        for t, k in itertools.product(range(n), range(K)):
            assert float(marginals[b, t, k]) == pytest.approx(sum(math.exp(s - total) for p, s in scores.items() if p[t] == k), abs=1e-10)


def test_pytorch_crf_at_full_size(nb):
    ours, theirs = crf_of(nb, 40, 4)
    mask = mask_of(*torch.randint(1, 30, (16,)).tolist(), 30)
    e, y = torch.randn(*mask.shape, 40).double(), torch.randint(40, mask.shape)
    assert torch.allclose(ours.log_likelihood(e, y, mask), theirs(e, y, mask, reduction="none"), atol=1e-9)
    assert [row[row >= 0].tolist() for row in ours.viterbi(e, mask)[0]] == theirs.decode(e, mask)
    for model in (ours, theirs):
        model.zero_grad()
    ours.log_likelihood(e, y, mask).sum().backward()
    theirs(e, y, mask).backward()
    assert torch.allclose(ours.transitions.grad, theirs.transitions.grad, atol=1e-9)
    assert torch.allclose(ours.start.grad, theirs.start_transitions.grad, atol=1e-9)
    assert torch.allclose(ours.end.grad, theirs.end_transitions.grad, atol=1e-9)


@pytest.mark.parametrize("size", [30, 300, 900])
def test_transitions_that_differ_by_hundreds_are_exact_in_float64(nb, size):
    ours, theirs = crf_of(nb, 5, 1, size=size)
    e = 10 * torch.randn(3, 6, 5).double()
    y = torch.randint(5, (3, 6))
    assert torch.allclose(ours.log_likelihood(e, y), theirs(e, y, reduction="none"), rtol=1e-12)


def test_forbidding_weights_stay_finite_in_float32(nb):
    crf, _ = crf_of(nb, 4, 2, torch.float32)
    with torch.no_grad():
        crf.transitions[0, 1] = crf.start[2] = -1e4
    e = torch.randn(2, 30, 4, requires_grad=True)
    loss = -crf.log_likelihood(e, torch.tensor([[0, 0, 3] * 10, [3] * 30])).sum()
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in (*crf.parameters(), e))
    assert float(crf.marginals(e)[:, 0, 2].max()) == 0 and crf.log_likelihood(e, torch.tensor([[0, 1] * 15] * 2)).isfinite().all()


def test_initial_weights_are_zero_and_p_is_uniform(nb):
    crf = nb["LinearChainCRF"](3)
    assert all((p == 0).all() for p in crf.parameters()) and sorted(dict(crf.named_parameters())) == ["end", "start", "transitions"]
    assert float(crf.log_likelihood(torch.zeros(1, 4, 3), torch.zeros(1, 4, dtype=torch.long)).detach()) == pytest.approx(-4 * math.log(3))


def test_kinds_of_input(nb):
    crf, _ = crf_of(nb, 3, 5, torch.float32)
    e = torch.randint(5, (2, 4, 3))
    expected = crf.log_partition(e.double())
    for x in (e.numpy(), e.float(), e.half(), e.to(torch.uint8), e.float().mT.contiguous().mT, np.asarray(e, dtype=np.float32)):
        assert torch.allclose(crf.log_partition(x).double(), expected, rtol=1e-5)
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1]])
    assert torch.allclose(crf.log_partition(e.double(), mask)[0], crf.log_partition(e[:1, :2].double())[0])
    assert crf.viterbi(e.numpy(), mask, None)[0].tolist()[0][2:] == [-1, -1]


@pytest.mark.parametrize("call, word", [
    (lambda c: c.log_partition(torch.zeros(1, 2, 4)), r"\(B, T, 3\)"), (lambda c: c.log_partition(torch.zeros(2, 3)), r"emissions\[None\]"),
    (lambda c: c.log_partition(torch.zeros(1, 0, 3)), "T >= 1"), (lambda c: c.log_partition(torch.full((1, 2, 3), NAN)), "finite"),
    (lambda c: c.log_partition(torch.zeros(1, 3, 3), torch.tensor([[True, False, True]])), "hole"),
    (lambda c: c.log_partition(torch.zeros(2, 3, 3), torch.tensor([[True] * 3, [False] * 3])), "sentence 1"),
    (lambda c: c.log_partition(torch.zeros(2, 3, 3), torch.ones(2, 2)), "mask"), (lambda c: c.log_partition(torch.zeros(1, 2, 3), torch.tensor([[2, 1]])), "mask"),
    (lambda c: c.log_likelihood(torch.zeros(1, 2, 3), torch.tensor([[0, 3]])), "from 0 to 2"),
    (lambda c: c.log_likelihood(torch.zeros(1, 2, 3), torch.tensor([[0, -1]])), "from 0 to 2"),
    (lambda c: c.log_likelihood(torch.zeros(1, 2, 3), torch.tensor([[0, 1, 1]])), "labels are whole numbers"),
    (lambda c: c.log_likelihood(torch.zeros(1, 2, 3), torch.tensor([[0.0, 1.0]])), "whole numbers"),
    (lambda c: c.marginals(torch.full((1, 1, 3), math.inf)), "finite"),
    (lambda c: c.viterbi(torch.zeros(1, 2, 3), None, (torch.ones(3).bool(), torch.ones(2, 2).bool())), "bio_constraints"),
    (lambda c: c.viterbi(torch.zeros(1, 2, 3), None, (torch.ones(3), torch.ones(3, 3))), "bool"),
    (lambda c: c.viterbi(torch.zeros(1, 2, 3), None, (torch.zeros(3).bool(), torch.ones(3, 3).bool())), "no path")])
def test_bad_chains_are_refused(nb, call, word):
    with pytest.raises(ValueError, match=word):
        call(nb["LinearChainCRF"](3))


@pytest.mark.parametrize("n", [0, -1, 2.0, True, "3"])
def test_bad_numbers_of_labels_are_refused(nb, n):
    with pytest.raises(ValueError, match="whole number"):
        nb["LinearChainCRF"](n)
    with pytest.raises(ValueError, match="whole number"):
        nb["count_features"](3, n)


def test_hmmlearn_agrees_on_another_model(nb):
    rng = np.random.default_rng(8)
    hmm = CategoricalHMM(4)
    hmm.startprob_, hmm.transmat_, hmm.emissionprob_ = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(4), 4), rng.dirichlet(np.ones(6), 4)
    words = rng.integers(6, size=(25, 1))
    start, moves, end, e = nb["hmm_as_crf"](hmm.startprob_, hmm.transmat_, hmm.emissionprob_, words[:, 0])
    crf = nb["LinearChainCRF"](4).double()
    crf.load_state_dict({"start": start, "transitions": moves, "end": end})
    assert float(crf.log_partition(e[None]).detach()) == pytest.approx(hmm.score(words), abs=1e-10)
    assert crf.viterbi(e[None])[0][0].tolist() == hmm.decode(words)[1].tolist()
    assert np.allclose(crf.marginals(e[None])[0], hmm.predict_proba(words), atol=1e-12)


# ---- labels and spans -------------------------------------------------------------------------------------------------------

def test_spans_by_hand(nb):
    spans = nb["bio_spans"]
    assert spans(["I-a", "I-a", "B-a", "O", "I-b", "I-a"]) == [("a", 0, 2), ("a", 2, 3), ("b", 4, 5), ("a", 5, 6)]
    assert spans([]) == [] and spans(["O"] * 3) == [] and spans(("B-per-son", "I-per-son")) == [("per-son", 0, 2)]


def test_spans_and_scores_as_seqeval(nb):
    rng = np.random.default_rng(1)
    names = ["O", "B-a", "I-a", "B-b", "I-b", "I-c"]
    for trial in range(60):
        gold, said = ([[names[k] for k in rng.integers(6, size=n)] for n in (1, 4, 9)] for _ in range(2))
        assert nb["bio_spans"](gold[2]) == [(kind, a, b + 1) for kind, a, b in get_entities(gold[2])]
        theirs = [getattr(seqeval.metrics, f"{m}_score")(gold, said, zero_division=0) for m in ("precision", "recall", "f1")]
        assert np.nan_to_num(nb["span_f1"](gold, said)) == pytest.approx(theirs), trial


def test_f1_where_nothing_is_to_be_found(nb):
    f = nb["span_f1"]
    assert np.isnan(f([["O"]], [["O"]])).all() and np.isnan(f([], [])).all()
    p, r, f1 = f([["B-a"]], [["O"]])
    assert math.isnan(p) and r == 0 and f1 == 0
    p, r, f1 = f([["O"]], [["B-a"]])
    assert p == 0 and math.isnan(r) and f1 == 0


@pytest.mark.parametrize("call, word", [
    (lambda nb: nb["bio_spans"](["X-a"]), "X-a"), (lambda nb: nb["bio_spans"](["B-"]), "BIO"), (lambda nb: nb["bio_spans"](["B"]), "BIO"),
    (lambda nb: nb["bio_spans"](["O-a"]), "BIO"), (lambda nb: nb["bio_spans"]([3]), "BIO"),
    (lambda nb: nb["span_f1"]([["O"]], []), "one for each"), (lambda nb: nb["span_f1"]([["O"]], [["O", "O"]]), "sentence 0"),
    (lambda nb: nb["bio_constraints"](["O", "S-a"]), "BIO"), (lambda nb: nb["bio_constraints"]([]), "all different"),
    (lambda nb: nb["bio_constraints"](["O", "O"]), "each once")])
def test_bad_labels_are_refused(nb, call, word):
    with pytest.raises(ValueError, match=word):
        call(nb)


def test_constraints_allow_what_has_no_orphan(nb):
    names = ["B-x", "O", "I-y", "I-x", "B-y"]
    start_ok, ok = nb["bio_constraints"](names)
    assert start_ok.dtype == ok.dtype == torch.bool and ok.shape == (5, 5)
    for path in itertools.product(range(5), repeat=3):
        labels = [names[k] for k in path]
        kept = sum(y[0] != "I" for y in labels) - labels.count("O") == len(nb["bio_spans"](labels))     # no span opened by an I
        assert kept == bool(start_ok[path[0]] and all(ok[i, j] for i, j in zip(path, path[1:])))


def test_legal_decoding_finds_the_best_legal_path(nb):
    names = ["B-x", "O", "I-y", "I-x", "B-y"]
    crf, _ = crf_of(nb, 5, 9)
    mask = mask_of(4, 2, 1)
    e = 2 * torch.randn(3, 4, 5).double()
    start_ok, ok = allowed = nb["bio_constraints"](names)
    found, score = crf.viterbi(e, mask, allowed)
    for b, n in enumerate((4, 2, 1)):
        legal = {p: s for p, s in paths_of(crf, e[b, :n]).items() if start_ok[p[0]] and all(ok[i, j] for i, j in zip(p, p[1:]))}
        assert tuple(found[b, :n].tolist()) == max(legal, key=legal.get) and float(score[b]) == pytest.approx(max(legal.values()))


def test_feature_counts(nb):
    assert nb["count_features"](72, 10**5) == (7_200_000, 5184, 518_400_000) and nb["count_features"](np.int64(1), 1) == (1, 1, 1)


# ---- the feature CRF --------------------------------------------------------------------------------------------------------

def toy_sentences(n=40, seed=0):
    rng = np.random.default_rng(seed)
    X, Y = [], []
    for _ in range(n):
        words = rng.integers(6, size=rng.integers(1, 6))
        X.append([["bias", f"w={w}", f"odd={w % 2}"] + ["twice"] * int(2 * (w == 3)) for w in words])
        Y.append(["AB"[int(w > 2 if rng.random() < 0.8 else w < 2)] for w in words])
    return X, Y


@pytest.mark.parametrize("l2", [0.3, 3.0])
def test_the_optimum_is_crfsuites(nb, l2, tmp_path):
    X, Y = toy_sentences()
    ours = nb["FeatureCRF"](l2, 300).fit(X, Y)
    trainer = pycrfsuite.Trainer(verbose=False)
    for x, y in zip(X, Y):
        trainer.append(x, y)
    trainer.set_params({"c1": 0, "c2": l2, "max_iterations": 500, "epsilon": 1e-12, "delta": 1e-12,
                        "feature.possible_states": True, "feature.possible_transitions": True})
    trainer.train(str(tmp_path / "m"))
    tagger = pycrfsuite.Tagger()
    tagger.open(str(tmp_path / "m"))
    for (a, y), w in tagger.info().state_features.items():
        assert float(ours.W_[ours.attributes_[a], ours.labels_[y]]) == pytest.approx(w, abs=1e-5)
    for (i, j), w in tagger.info().transitions.items():
        assert float(ours.crf_.transitions[ours.labels_[i], ours.labels_[j]].detach()) == pytest.approx(w, abs=1e-5)
    new, labels = toy_sentences(20, 5)
    new[0][0].append("never seen")
    assert ours.predict(new) == [tagger.tag(x) for x in new]
    for x, y, ll in zip(new, labels, ours.log_likelihood(new, labels)):
        tagger.set(x)
        assert float(ll) == pytest.approx(math.log(tagger.probability(y)), abs=1e-5)
    for x, p in zip(new, ours.marginals(new)):
        tagger.set(x)
        assert p.shape == (len(x), 2) and float(p[-1, ours.labels_["A"]]) == pytest.approx(tagger.marginal("A", len(x) - 1), abs=1e-5)


def test_fit_gives_itself_and_does_not_touch_its_data(nb):
    X, Y = toy_sentences(10)
    before = [[list(w) for w in s] for s in X], [list(s) for s in Y]
    model = nb["FeatureCRF"](0.5, 20)
    assert model.fit(X, Y) is model and (X, Y) == before
    again = nb["FeatureCRF"](0.5, 20).fit(tuple(map(tuple, X)), tuple(map(tuple, Y)))
    assert torch.equal(again.W_, model.W_)


@pytest.mark.parametrize("call, word", [
    (lambda F: F().fit([], []), "at least one sentence"), (lambda F: F().fit([[]], [[]]), "at least one word"),
    (lambda F: F().fit([[["a"]]], [["O", "O"]]), "one label a word"), (lambda F: F().fit([[["a"]]], []), "one label a word"),
    (lambda F: F().fit([["a b"]], [["O"]]), "list of attributes"), (lambda F: F().predict([[["a"]]]), "fit the model first"),
    (lambda F: F(-1.0), "l2"), (lambda F: F(NAN), "l2"), (lambda F: F(1.0, 0), "whole number"),
    (lambda F: F(1.0, 5).fit([[["a"]]], [["O"]]).log_likelihood([[["a"]]], [["B"]]), "training lacks: B"),
    (lambda F: F(1.0, 5).fit([[["a"]]], [["O"]]).predict([]), "at least one sentence")])
def test_bad_training_is_refused(nb, call, word):
    with pytest.raises(ValueError, match=word):
        call(nb["FeatureCRF"])


# ---- the taggers ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("crf", [False, True])
def test_padding_changes_nothing(nb, crf):
    torch.manual_seed(0)
    tagger = nb["BiLSTMTagger"](9, 4, d_emb=5, d_hidden=3, crf=crf).double()
    if crf:
        torch.nn.init.normal_(tagger.crf.transitions)
    tokens, labels, mask = torch.randint(9, (3, 6)), torch.randint(4, (3, 6)), mask_of(6, 2, 4)
    dirty = torch.where(mask, tokens, 10**6)
    e = tagger(dirty, mask).detach()
    assert e.shape == (3, 6, 4)
    total = 0
    for b, n in enumerate((6, 2, 4)):
        alone, on = tokens[b:b + 1, :n], torch.ones(1, n).bool()
        assert torch.allclose(e[b, :n], tagger(alone, on)[0], atol=1e-12)
        assert tagger.decode(dirty, mask)[b, :n].tolist() == tagger.decode(alone, on)[0].tolist()
        total += float(tagger.loss(alone, labels[b:b + 1, :n], on).detach())
    assert float(tagger.loss(dirty, torch.where(mask, labels, -100), mask).detach()) == pytest.approx(total / 3)
    assert (tagger.decode(dirty, mask)[~mask] == -1).all()


def test_losses_by_the_libraries(nb):
    torch.manual_seed(1)
    tokens, labels, mask = torch.randint(9, (3, 5)), torch.randint(4, (3, 5)), mask_of(5, 1, 3)
    plain = nb["BiLSTMTagger"](9, 4, d_emb=5, d_hidden=3)
    e = plain(tokens, mask).detach()
    assert plain.crf is None
    assert float(plain.loss(tokens, labels, mask).detach()) == pytest.approx(float(torch.nn.functional.cross_entropy(e[mask], labels[mask], reduction="sum")) / 3, rel=1e-5)
    chained = nb["BiLSTMTagger"](9, 4, d_emb=5, d_hidden=3, crf=True)
    torch.nn.init.normal_(chained.crf.transitions)
    theirs = torchcrf.CRF(4, batch_first=True)
    with torch.no_grad():
        theirs.start_transitions.zero_(), theirs.end_transitions.zero_(), theirs.transitions.copy_(chained.crf.transitions)
    e = chained(tokens, mask).detach()
    loss, same = chained.loss(tokens, labels, mask).detach(), -theirs(e, labels, mask, reduction="none").mean().detach()
    assert float(loss) == pytest.approx(float(same), rel=1e-5)
    assert [r[r >= 0].tolist() for r in chained.decode(tokens, mask)] == theirs.decode(e, mask)


def test_several_vocabularies_and_legal_decoding(nb):
    torch.manual_seed(2)
    tagger = nb["BiLSTMTagger"]((9, 4), 3, d_emb=(5, 2), d_hidden=3)
    tokens = torch.stack([torch.randint(9, (2, 5)), torch.randint(4, (2, 5))], -1)
    mask = mask_of(5, 3)
    names = ["I-a", "O", "B-a"]
    found = tagger.decode(tokens.numpy(), mask.numpy(), nb["bio_constraints"](names))
    for row in found:
        labels = [names[k] for k in row if k >= 0]
        assert all(b != "I-a" or a != "O" for a, b in zip(["O", *labels], labels))
    with pytest.raises(ValueError, match="F = 2"):
        tagger(tokens[..., 0], mask)


@pytest.mark.parametrize("tokens, mask, word", [
    (torch.tensor([[9]]), None, "below"), (torch.tensor([[-1]]), None, "below"), (torch.zeros(1, 2), None, "whole numbers"),
    (torch.zeros(1, 0, dtype=torch.long), None, "whole numbers"), (torch.zeros(1, 2, dtype=torch.long), torch.tensor([[False, True]]), "words come first"),
    (torch.zeros(1, 3, dtype=torch.long), torch.tensor([[True, False, True]]), "hole")])
def test_bad_tokens_are_refused(nb, tokens, mask, word):
    with pytest.raises(ValueError, match=word):
        nb["BiLSTMTagger"](9, 3)(tokens, mask)


def test_the_lstm_by_hand_is_torchs_in_both_directions(nb):
    torch.manual_seed(3)
    net = torch.nn.LSTM(2, 5, bidirectional=True).double()
    z = torch.randn(7, 2).double()
    ways = [[getattr(net, f"{n}_l0{way}").detach() for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")] for way in ("", "_reverse")]
    ours = nb["both_ways"](z, *[(W, U, a + b) for W, U, a, b in ways])
    assert torch.allclose(ours, net(z[:, None])[0][:, 0].detach(), atol=1e-12)


# ---- checks against broken formulas -----------------------------------------------------------------------------------------

WRONG = [
    ("ratios = ((right, found), (right, true), (2 * right, true + found))", "ratios = ((right, true), (right, found), (2 * right, true + found))", "21.1"),
    ("if kind is not None and (head != \"I\" or now != kind):", "if kind is not None and head != \"I\":", "21.1"),
    ("between = transitions[y[:, :-1], y[:, 1:]]", "between = transitions[y[:, 1:], y[:, :-1]]", "21.2"),
    ("torch.where(mask[:, 1:], between, 0).sum(1) + end[last])", "torch.where(mask[:, 1:], between, 0).sum(1) + end[y[:, -1]])", "21.2"),
    ("for i, j in itertools.pairwise(y)) + end[y[-1]] for y in paths]", "for i, j in itertools.pairwise(y)) for y in paths]", "21.3"),
    ("return K * M, K**2, K**2 * M", "return K * M, K**2, K * M**2", "21.4"),
    ("alpha = torch.where(mask[:, t, None], step(alpha) + e[:, t], alpha)", "alpha = step(alpha) + e[:, t]", "21.5"),
    ("return torch.logsumexp(alpha[:, :, None] + transitions, dim=1)", "return torch.logsumexp(alpha[:, None, :] + transitions, dim=2)", "21.5"),
    (".matmul(table).log() + (high + top)", ".matmul(table).log() + high", "21.5"),
    ("torch.autograd.grad(forward_sum(*weights, e, mask).sum(), e)[0]", "torch.autograd.grad(forward_sum(*weights, e, mask).mean(), e)[0]", "21.6"),
    ("beta.insert(0, torch.logsumexp(transitions + e[T - t] + beta[0], 1))", "beta.insert(0, torch.logsumexp(transitions + e[T - t] + beta[0], 0))", "21.7"),
    ("transitions + (e + beta)[1:, None, :]", "transitions + beta[1:, None, :]", "21.7"),
    ("return torch.cat([hot[:, 0], pairs, hot[:, -1]], 1)", "return torch.cat([hot[:, -1], pairs, hot[:, 0]], 1)", "21.8"),
    ("pairs = torch.einsum(\"nti,ntj->nij\", hot[:, :-1], hot[:, 1:])", "pairs = torch.einsum(\"nti,ntj->nji\", hot[:, :-1], hot[:, 1:])", "21.9"),
    ("moved = toy()[0], transitions + v[:, None], end + v, e - v", "moved = toy()[0], transitions + v, end + v, e - v", "21.10"),
    ("best, where = (delta[:, None, :] + by_next).max(2)", "best, where = (delta[:, None, :] + transitions).max(2)", "21.11"),
    ("label = torch.where(mask[:, t], before, label)", "label = before", "21.11"),
    ("sure = nodes.gather(1, answer[:, None]).sum()", "sure = nodes.gather(1, answer[:, None]).prod()", "21.12"),
    ("return initial, moves, torch.zeros_like(initial), says[:, words].T", "return initial, moves, initial, says[:, words].T", "21.13"),
    ("return scores.log_softmax(1).gather(1, y[:, None]).sum().exp()", "return scores.flatten().log_softmax(0).reshape(scores.shape).gather(1, y[:, None]).sum().exp()", "21.14"),
    ("scores = torch.cat([(start + e[0])[None], transitions[y[:-1]] + e[1:]])", "scores = torch.cat([(start + e[0])[None], transitions[y[1:]] + e[1:]])", "21.14"),
    ("total = sum(l2 * w.square().sum()", "total = sum(l2 / 2 * w.square().sum()", "21.15"),
    ("W.grad, A.grad = 2 * l2 * W - seen_W", "W.grad, A.grad = l2 * W - seen_W", "21.15"),
    ("c = torch.sigmoid(r) * c + torch.sigmoid(u) * torch.tanh(new)", "c = torch.sigmoid(u) * c + torch.sigmoid(r) * torch.tanh(new)", "21.16"),
    ("read(z.flip(0), *back).flip(0)", "read(z.flip(0), *back)", "21.17"),
    ("self.transitions = nn.Parameter(torch.zeros(K, K))", "self.transitions = nn.Parameter(torch.eye(K))", "21.18"),
    ("at_words = e.log_softmax(-1).gather(2", "at_words = e.log_softmax(1).gather(2", "21.18"),
    ("follows = [[head != \"I\" or kind == before", "follows = [[head != \"I\" or kind != before", "21.19"),
    ("return torch.where(ok[0], start, -math.inf), torch.where(ok[1], transitions, -math.inf)",
     "return start, torch.where(ok[1], transitions, -math.inf)", "21.19"),
]
test_wrong, test_right, test_every = wrong_variant_tests(BOOK, WRONG)
