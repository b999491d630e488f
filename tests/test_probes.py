"""Public functions as people call them: numpy arrays, other float types, bytes, views that are not contiguous, NaN, nothing at all.

Each entry says with which arguments a function is called and which kinds of input do not apply; all others must give what float64
tensors give, NaN and nothing must never become a number, and no call may change its arguments. Values are small integers, so that
every type can hold them.
"""

import copy
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest
import torch

from tests.book import book


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def grid(*shape, modulus=7, step=3):
    """Small integers without a pattern that a transposition would leave alone."""
    n = int(np.prod(shape))
    return ((torch.arange(n) * step + torch.arange(n) // 3) % modulus).double().reshape(shape)


def image(*shape):
    return grid(*shape, modulus=5) / 4          # 0, 1/4 … 1: exact in float16


RELEVANCE, SCORES = t(0, 1, 0, 1, 1, 0), t(3, 5, 1, 4, 2, 6)
RATED = torch.tensor([[5.0, 3, 0, 1, 4], [4, 2, 1, 1, 3], [1, 1, 5, 4, 2], [2, 5, 4, 3, 1]], dtype=torch.float64)


@dataclass(frozen=True)
class Probe:
    """Number and name of a function, its arguments, the kinds that do not apply, its tolerance in half precision."""

    number: str
    name: str
    arguments: tuple
    without: tuple = ()                    # each with its reason behind the entry
    loose: float = 2e-3
    options: dict = field(default_factory=dict)
    made_with: tuple = ()                  # of a class "Class.method": what an instance is made with

    def __str__(self):
        return f"{self.number}-{self.name}"

    @property
    def function(self):
        name, _, method = self.name.partition(".")
        found = definitions(self.number)[name]
        return getattr(found(*self.made_with), method) if method else found


PROBES = [
    Probe("11", "content_loss", (grid(2, 3, 4, 4), grid(2, 3, 4, 4, step=5))),
    Probe("11", "gram_matrix", (grid(3, 4, 5),)),
    Probe("11", "style_loss", (grid(3, 4, 4), grid(3, 4, 4, step=5)), loose=5e-3),
    Probe("11", "total_variation", (image(3, 5, 6),), without=("bytes",)),              # bytes are another scale of photos
    Probe("12", "psnr", (image(5, 6), image(5, 6).flip(0), 1.0), without=("bytes",)),
    Probe("12", "ssim", (image(16, 17), image(16, 17).flip(0), 1.0), without=("bytes",), loose=5e-3),
    Probe("13", "kl_diag_gaussian", (t(1, -2, 3), t(0, 1, -1)), without=("bytes",)),     # no negative bytes
    Probe("14", "gan_losses", (t(1, -2, 3), t(0, 2)), without=("bytes",)),               # no negative bytes
    Probe("14", "optimal_discriminator", (grid(5) + 1, grid(5, step=2) + 1)),
    Probe("14", "jensen_shannon", (t(0.5, 0.25, 0.25), t(0.125, 0.375, 0.5)), without=("bytes",)),       # shares
    Probe("14", "game_loss", (t(0.5, 0.25, 0.25), t(0.125, 0.375, 0.5), t(0.75, 0.5, 0.25)), without=("bytes",)),
    Probe("14", "mode_coverage", (grid(8, 2), t(0, 1, 5, 4, 3, 3).reshape(3, 2), 0.5)),
    Probe("14", "frechet_distance", (grid(2), t(4, 1, 1, 3).reshape(2, 2), grid(2, step=5), t(2, 1, 1, 2).reshape(2, 2)), loose=1e-2),
    Probe("14", "precision_recall", (grid(9, 3), grid(8, 3, step=5))),
    Probe("15", "emd", (grid(5, 2), grid(4, 2, step=5)), loose=1e-2),
    Probe("15", "emd_1d", (grid(9), grid(6, step=5))),
    Probe("15", "kantorovich_potential", (grid(5, 2), grid(4, 2, step=5), grid(4)), loose=5e-3),
    Probe("15", "emd_gradient", (grid(4, 2), grid(4, 2, step=5), torch.eye(4, dtype=torch.float64)), loose=5e-3),
    Probe("15", "wgan_losses", (t(1, 2, 4), t(0, 2)), loose=5e-3),
    Probe("15", "bigan_losses", (t(1, 2, 3), t(0, 2)), loose=5e-3),
    Probe("15", "emd_from_critic", (t(1, 2, 6), 2.0), loose=5e-3),
    Probe("32", "edit_ops", (grid(6), grid(5, step=2)), without=("NaN", "empty")),      # any tokens; two empty texts have no edits
    Probe("33", "ctc_collapse", (grid(9, modulus=3),)),
    Probe("33", "ctc_loss", (-grid(6, 2, 3), [[1, 2], [2, 0]], [6, 4], [2, 1]), without=("bytes",)),         # logarithms are negative
    Probe("33", "ctc_posterior", (-grid(6, 2, 3), [[1, 2], [2, 0]], [6, 4], [2, 1]), without=("bytes",)),    # the same
    Probe("33", "ctc_align", (-grid(6, 3), [1, 2]), without=("bytes",)),                                     # the same
    Probe("33", "ctc_greedy", (grid(6, 2, 3),)),
    Probe("33", "ctc_prefix_beam", (-grid(6, 3), 1), without=("bytes",)),                                    # the same
    Probe("22", "dot_attention", (grid(2, 3), grid(2, 4, 3, step=5)), loose=5e-3),
    Probe("22", "context_gradient", (t(0.5, 0.25, 0.25), grid(3, 2)), without=("bytes",), loose=5e-3),       # weights are no bytes
    Probe("22", "receptive_field", (t(3, 5, 2), t(1, 2, 1), t(2, 1, 3))),
    Probe("21", "LinearChainCRF.log_partition", (grid(2, 4, 3),), made_with=(3,)),
    Probe("21", "LinearChainCRF.log_likelihood", (grid(2, 4, 3), torch.tensor([[0, 1, 2, 1], [2, 2, 0, 1]])), without=("float32", "float16"), made_with=(3,)),  # labels are whole
    Probe("21", "LinearChainCRF.marginals", (grid(2, 4, 3),), made_with=(3,)),
    Probe("21", "LinearChainCRF.viterbi", (grid(2, 4, 3),), made_with=(3,)),
    Probe("31", "power_spectrogram", (grid(30), 8, 3, t(1, 2, 3, 4, 4, 3, 2, 1)), loose=5e-3),
    Probe("31", "istft", (torch.complex(grid(4, 5), grid(4, 5, step=5)), 3, t(1, 2, 3, 4, 4, 3, 2, 1)),
          without=("float32", "float16", "bytes")),                                      # real numbers are refused
    Probe("31", "log_mel", (grid(60), 8000, 32, 8, 6), without=("bytes",), loose=5e-3),      # 8-bit sound has its zero at 128: refused
    Probe("31", "mfcc", (grid(4, 6), 3)),
    Probe("31", "quantise", (t(0, 1, 1, 0), 4)),
    Probe("31", "hz_to_mel", (t(0, 100, 200, 31),)),
    Probe("31", "mel_to_hz", (t(0, 100, 200, 31),)),
    Probe("31", "mu_law_encode", (t(0, 1, 1, 0),)),
    Probe("31", "mu_law_decode", (t(0, 255, 128, 7),)),
    Probe("31", "spec_augment", (grid(3, 5, 4), 0, 0)),
    Probe("41", "hitrate_at_k", (RELEVANCE, SCORES, 2)),
    Probe("41", "precision_at_k", (RELEVANCE, SCORES, 3)),
    Probe("41", "recall_at_k", (RELEVANCE, SCORES, 3)),
    Probe("41", "average_precision_at_k", (RELEVANCE, SCORES, 4)),
    Probe("41", "reciprocal_rank", (RELEVANCE, SCORES)),
    Probe("41", "dcg_at_k", (grid(6, modulus=3), SCORES, 4)),
    Probe("41", "ndcg_at_k", (grid(6, modulus=3), SCORES, 4)),
    Probe("41", "roc_auc", (RELEVANCE, SCORES)),
    Probe("41", "diversity", (grid(4, 3),)),
    Probe("41", "rating_errors", (t(3, 4, 5, 1), t(2, 4, 4, 3))),
    Probe("42", "pearson_similarity", (RATED,), without=("NaN", "bytes")),   # NaN is a missing rating there
    Probe("42", "cosine_similarity", (RATED,), without=("NaN", "bytes")),
    Probe("43", "solve_user", (grid(5, 2), grid(5), 0.5), without=("empty",)),  # no ratings: p_u = 0
    Probe("44", "ials_user", (grid(5, 2), t(1, 0, 1, 1, 0), t(5, 1, 4, 3, 1), 0.5)),
    Probe("44", "vectors_expected", (t(3, 0, 1, 7), 4), without=("empty",)),  # no items: nothing is sent
    Probe("45", "fm_predict", (grid(5, 3), 0.5, grid(3, step=2), grid(3, 2)), loose=5e-3),
    Probe("45", "fm_predict_naive", (grid(5, 3), 0.5, grid(3, step=2), grid(3, 2)), loose=5e-3),
    Probe("46", "cross_product", (grid(5, 3, modulus=2), grid(4, 3, modulus=2, step=5))),
    Probe("47", "bce_loss", (grid(4), grid(4, 3, step=5)), loose=5e-3),
    Probe("47", "bpr_loss", (grid(4), grid(4, 3, step=5)), loose=5e-3),
    Probe("47", "sampled_softmax_loss", (grid(4), grid(4, 3, step=5), grid(4, step=2), grid(4, 3)), loose=5e-3),
    Probe("47", "in_batch_softmax_loss", (grid(4, 4), grid(4, step=5)), loose=5e-3),
    Probe("47", "triplet_loss", (grid(4, 3), grid(4, 3, step=5), grid(4, 3, step=2)), loose=5e-3),
    Probe("47", "dssm_loss", (grid(4, 3) / 8, 2.0), without=("bytes",), loose=5e-3),      # cosines are no bytes
    Probe("48", "mmr", (grid(5), grid(5, 5, step=2), 3, 0.5)),
    Probe("48", "mips_to_nn", (grid(5, 3),)),
    Probe("48", "exact_top_k", (grid(6, 3), grid(3, step=2) + 1, 4)),
    Probe("51", "z_test", (grid(6), 2.0, 1.0)),
    Probe("51", "t_test", (grid(2, 6), 1.0)),
    Probe("51", "welch_t_test", (grid(6), grid(5, step=2)), loose=5e-3),
    Probe("51", "pooled_t_test", (grid(6), grid(5, step=2)), loose=5e-3),
    Probe("51", "proportion_z_test", (t(3, 5), t(9, 8))),
    Probe("51", "mann_whitney_u", (grid(6), grid(5, step=2))),
    Probe("51", "srm_test", (t(30, 50, 20), [0.25, 0.5, 0.25])),
    Probe("51", "ratio_metric", (grid(6), grid(6, step=2) + 1)),
    Probe("52", "cuped", (grid(8), grid(8, step=5)), loose=5e-3),
    Probe("52", "always_valid_p", (grid(3, 5), grid(3, 5, step=2) + 1, 1.0), loose=5e-3),
    Probe("52", "always_valid_interval", (grid(3, 5), grid(3, 5, step=2) + 1, 1.0), loose=5e-3),
    Probe("52", "crossing_probability", (t(3, 2, 2), 1.0), loose=5e-3),
    Probe("52", "bonferroni", (t(0, 1, 1, 0, 0).reshape(1, 5),)),
    Probe("52", "holm", (t(0, 1, 1, 0, 0),)),
    Probe("52", "benjamini_hochberg", (t(0, 1, 1, 0, 0),)),
    Probe("61", "ses", (grid(3, 6), 0.5), loose=5e-3),
    Probe("61", "holt_winters", (grid(6), 2, 0.5, 0.25, 0.125, 3.0, 1.0, t(1, 0)), options={"horizon": 3}, loose=5e-3),
    Probe("61", "smape", (grid(2, 4) + 1, grid(2, 4, step=5) + 1), loose=5e-3),
    Probe("61", "mase", (grid(4), grid(4, step=5), grid(9, step=2), 2), loose=5e-3),
]
KINDS = {
    "numpy": lambda x: x.numpy().copy(),
    "float32": lambda x: x.float(),
    "float16": lambda x: x.half(),
    "strided": lambda x: torch.stack([x, -x], -1)[..., 0],
    "bytes": lambda x: x.to(torch.uint8),
    "NaN": lambda x: torch.where(torch.arange(x.numel()).reshape(x.shape) == 1, torch.nan, x),
    "empty": lambda x: x[:0],
}
CASES = [pytest.param(probe, kind, id=f"{probe}-{kind}") for probe in PROBES for kind in KINDS if kind not in probe.without]


@cache
def definitions(number):
    return book(number).definitions()


def changed(arguments, kind):
    return tuple(KINDS[kind](x) if isinstance(x, torch.Tensor) else x for x in arguments)


def flat(result):
    """A result of any kind as one float64 array."""
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, (tuple, list)):
        return np.concatenate([flat(part) for part in result if not isinstance(part, str)])
    return np.asarray(result.detach().double() if isinstance(result, torch.Tensor) else result, dtype=np.float64).ravel()


@pytest.mark.parametrize("probe, kind", CASES)
def test_a_public_function_on_what_people_have(probe, kind):
    function = probe.function
    arguments = changed(probe.arguments, kind)
    if kind in ("NaN", "empty"):
        try:
            result = flat(function(*arguments, **probe.options))
        except (ValueError, TypeError) as refused:
            assert len(str(refused)) > 25, f"a riddle: {refused!r} should name cause and cure"
        else:
            assert not result.size or np.isnan(result).any(), f"{kind} became {result}"
        return
    expected = flat(function(*copy.deepcopy(probe.arguments), **probe.options))
    got = flat(function(*arguments, **probe.options))
    assert got.shape == expected.shape
    tolerance = {"float16": probe.loose, "float32": 1e-5, "bytes": 1e-5}.get(kind, 1e-10)
    assert np.allclose(got, expected, rtol=tolerance, atol=tolerance * np.abs(expected[np.isfinite(expected)]).max(initial=1.0), equal_nan=True), (got, expected)


@pytest.mark.parametrize("probe", PROBES, ids=str)
def test_no_public_function_changes_its_arguments(probe):
    arguments = copy.deepcopy(probe.arguments)
    probe.function(*arguments, **probe.options)
    for mine, theirs in zip(arguments, probe.arguments):
        assert torch.equal(mine, theirs) if isinstance(mine, torch.Tensor) else mine == theirs


def test_every_lecture_is_probed():
    from tests.test_notebooks import NEW
    assert {b.number for b in NEW} <= {probe.number for probe in PROBES}
