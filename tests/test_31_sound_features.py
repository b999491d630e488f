"""Notebook 31: its public functions on inputs the page does not show, and its checks against broken formulas."""

import math

import numpy as np
import pytest
import torch

from helpers import get_torchaudio
from tests.book import book, wrong_variant_tests

BOOK = book("31")


@pytest.fixture(scope="module")
def nb():
    return BOOK.definitions()


def sound(*shape, dtype=torch.float64, seed=0):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1).to(dtype)


def hann(n, dtype=torch.float64):
    return torch.hann_window(n, dtype=dtype)


# --- quantisation --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("bits", [1, 2, 8, np.int64(16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_quantise_has_one_level_more_than_a_file(nb, bits, dtype):
    x = torch.linspace(-1, 1, 300_001, dtype=dtype)
    q = nb["quantise"](x, bits)
    assert q.dtype == dtype and len(q.unique()) == 2 ** int(bits) + 1 and q.min() == -1 and q.max() == 1
    assert (q - x).abs().max() <= 2.0 ** -int(bits) + 1e-6
    assert torch.equal(nb["quantise"](x.numpy()[::-1], bits), q.flip(0))


@pytest.mark.parametrize("x", [[1.01], [-2, 0], [math.nan], [math.inf], [3000]])
def test_quantise_refuses_what_is_no_amplitude(nb, x):
    with pytest.raises(ValueError, match="32768"):
        nb["quantise"](torch.tensor(x), 8)
    for bits in (0, -1, 2.5, True, "8", 51, 1100):
        with pytest.raises(ValueError, match="bits"):
            nb["quantise"](torch.zeros(2), bits)


@pytest.mark.parametrize("bits", [5, 8])
def test_a_file_clips_a_full_scale_sine(nb, bits):
    """The sentence of section 3: 0.9 dB at 8 bits, 2.2 at 5, are lost by having no level at +1."""
    sine = torch.sin(2 * torch.pi * (math.sqrt(5) - 1) / 20 * torch.arange(100_000, dtype=torch.float64))
    q = nb["quantise"](sine, bits)
    lost = nb["snr_db"](sine, q) - nb["snr_db"](sine, q.clamp(max=1 - 2.0 ** (1 - bits)))
    assert float(lost) == pytest.approx({5: 2.2, 8: 0.9}[bits], abs=0.06)


# --- the transform -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("N", [1, 2, 7, 64])
def test_dft_matrix_is_complex128(nb, N):
    M = nb["dft_matrix"](N)
    assert M.dtype == torch.complex128 and M.shape == (N, N)
    assert np.allclose(M, np.fft.fft(np.eye(N)), atol=1e-12)


@pytest.mark.parametrize("X", [torch.ones(4), np.fft.fft(np.arange(4.0)), [4, 0, 0, 0], torch.ones(4, dtype=torch.complex64)])
def test_inverse_dft_takes_what_people_have(nb, X):
    assert np.allclose(nb["inverse_dft"](X), np.fft.ifft(np.asarray(X)), atol=1e-12)


@pytest.mark.parametrize("N", [0, -1, 2.0, "8", None, True])
def test_dft_matrix_refuses(nb, N):
    with pytest.raises(ValueError, match="whole number"):
        nb["dft_matrix"](N)


@pytest.mark.parametrize("N", [2.5, -3, 0, True, None, "8"])
def test_hann_refuses(nb, N):
    with pytest.raises(ValueError, match="N must be a whole number"):
        nb["hann"](N)
    assert nb["hann"](np.int64(4)).tolist() == pytest.approx([0, 0.5, 1, 0.5]) and nb["hann"](1).tolist() == [0]


@pytest.mark.parametrize("T, n_fft, hop", [(100, 16, 5), (16, 16, 5), (17, 16, 1), (40, 9, 20), (33, 7, 7)])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_stft_of_batches_is_that_of_each(nb, T, n_fft, hop, shape):
    x, w = sound(*shape, T), hann(n_fft)
    X = nb["stft"](x, n_fft, hop, w)
    assert X.shape == (*shape, 1 + (T - n_fft) // hop, n_fft // 2 + 1) and X.dtype == torch.complex128
    flat = x.reshape(-1, T)
    for one, theirs in zip(flat, X.reshape(-1, *X.shape[-2:])):
        frames = np.stack([one[r * hop:r * hop + n_fft].numpy() * w.numpy() for r in range(X.shape[-2])])
        assert np.allclose(theirs, np.fft.rfft(frames), atol=1e-12)


@pytest.mark.parametrize("dtype, result", [(torch.float32, torch.complex64), (torch.float64, torch.complex128), (torch.float16, torch.complex64),
                                           (torch.int16, torch.complex128)])
def test_stft_keeps_the_type_of_the_sound(nb, dtype, result):
    x = (sound(50) * 100).round().to(dtype)
    assert nb["stft"](x, 16, 4, hann(16)).dtype == result
    back = nb["istft"](nb["stft"](x, 16, 4, torch.ones(16)), 4, torch.ones(16))
    assert torch.allclose(back.double(), x.double()[:48], atol=1e-3)


@pytest.mark.parametrize("x, n_fft, hop, window, message", [
    (sound(10), 16, 4, hann(16), "shorter than one frame"), (sound(0), 16, 4, hann(16), "shorter"),
    (torch.tensor(1.0), 16, 4, hann(16), "shorter"), (sound(50), 16, 4, hann(15), "16 samples"),
    (sound(50), 16, 4, hann(16)[None], "16 samples"), (sound(50), 16, 0, hann(16), "hop"), (sound(50), 16, -1, hann(16), "hop"),
    (sound(50), 16, 2.5, hann(16), "hop"), (sound(50), 0, 4, sound(0), "n_fft"), (sound(50) + 1j, 16, 4, hann(16), "complex")])
def test_stft_and_power_refuse(nb, x, n_fft, hop, window, message):
    for name in ("stft", "power_spectrogram"):
        with pytest.raises(ValueError, match=message):
            nb[name](x, n_fft, hop, window)


@pytest.mark.parametrize("bad", ["hann", None, {"w": 1}, ["a", "b"]])
def test_what_is_no_array_of_numbers_is_refused(nb, bad):
    for call in (lambda: nb["stft"](sound(50), 16, 4, bad), lambda: nb["stft"](bad, 16, 4, hann(16)), lambda: nb["log_mel"](bad, 8000, 16, 4, 2),
                 lambda: nb["istft"](torch.zeros(5, 9, dtype=torch.complex128), 4, bad)):
        with pytest.raises(ValueError, match="of numbers, got"):
            call()


def test_stereo_with_the_channels_last_is_told_how(nb):
    with pytest.raises(ValueError, match=r"x\.T or x\.mean\(-1\)"):
        nb["log_mel"](sound(1000, 2), 8000, 256, 80, 20)
    assert nb["log_mel"](sound(1000, 2).T, 8000, 256, 80, 20).shape == (2, 10, 20)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_istft_refuses_what_is_not_complex(nb, dtype):
    with pytest.raises(ValueError, match="must be complex"):
        nb["istft"](torch.ones(5, 9, dtype=dtype), 4, hann(16))


@pytest.mark.parametrize("n_fft", [8, 9])
@pytest.mark.parametrize("hop", [1, 3, 8])
def test_istft_inverts_and_is_zero_where_no_window_reaches(nb, n_fft, hop):
    x, w = sound(2, 5 * hop + n_fft), hann(n_fft)
    back = nb["istft"](nb["stft"](x, n_fft, hop, w), hop, w)
    weight = np.zeros(x.shape[1])
    for r in range(6):
        weight[r * hop:r * hop + n_fft] += w.numpy() ** 2
    assert back.shape == x.shape
    assert torch.allclose(back, torch.where(torch.as_tensor(weight) > 0, x, 0), atol=1e-9)


def test_istft_leaves_gaps_zero_when_frames_do_not_touch(nb):
    x, w = sound(30), torch.ones(4, dtype=torch.float64)
    back = nb["istft"](nb["stft"](x, 4, 10, w), 10, w)
    assert back.shape == (24,) and torch.equal(back[4:10], torch.zeros(6, dtype=torch.float64))
    assert torch.allclose(back[10:14], x[10:14])


@pytest.mark.parametrize("n_fft", [8, 9])
def test_istft_is_least_squares(nb, n_fft):
    """No small step away from the inverse lowers the distance over all bins."""
    g = torch.Generator().manual_seed(2)
    X = torch.complex(*(torch.randn(5, n_fft // 2 + 1, generator=g, dtype=torch.float64) for _ in range(2)))
    w = hann(n_fft) + 0.1
    x = nb["istft"](X, 3, w)

    def distance(y):
        return nb["all_bins"](nb["stft"](y, n_fft, 3, w) - X, n_fft)

    for k in range(len(x)):
        for step in (-1e-4, 1e-4):
            moved = x.clone()
            moved[k] += step
            assert distance(moved) >= distance(x)


@pytest.mark.parametrize("X, hop, window", [(torch.zeros(5, 9), 4, hann(8)), (torch.zeros(9), 4, hann(16)), (torch.zeros(0, 9), 4, hann(16)),
                                            (torch.zeros(5, 9), 4, torch.tensor(1.0)), (torch.zeros(5, 9), 4, hann(16)[None]),
                                            (torch.zeros(5, 9), 0, hann(16))])
def test_istft_refuses(nb, X, hop, window):
    with pytest.raises(ValueError, match="window|hop"):
        nb["istft"](X.to(torch.complex128), hop, window)


# --- mel -----------------------------------------------------------------------------------------------------------------

def test_mel_of_numbers_and_tensors(nb):
    assert isinstance(nb["hz_to_mel"](1000), float) and nb["hz_to_mel"](1000) == pytest.approx(999.9855, abs=1e-3)
    assert nb["mel_to_hz"](nb["hz_to_mel"](123.4)) == pytest.approx(123.4)
    f = torch.tensor([[0.0, 700.0], [8000.0, 20.0]])
    assert nb["hz_to_mel"](f).dtype == torch.float32 and nb["hz_to_mel"](f).shape == f.shape
    assert torch.allclose(nb["mel_to_hz"](nb["hz_to_mel"](f.double())), f.double())
    assert nb["hz_to_mel"](torch.tensor([1000])).dtype == torch.float64
    for name in ("hz_to_mel", "mel_to_hz"):
        with pytest.raises(ValueError, match=">= 0"):
            nb[name](-1.0)


@pytest.mark.parametrize("n_mels, n_fft, rate, low, high", [(40, 256, 8000, 0.0, None), (80, 400, 16_000, 20.0, 7600.0), (1, 16, 8000, 0.0, 4000.0),
                                                            (128, 2048, 44_100, 0.0, None), (13, 510, 8000, 300.0, 3400.0)])
def test_filterbank_is_torchaudios(nb, n_mels, n_fft, rate, low, high):
    ours = nb["mel_filterbank"](n_mels, n_fft, rate, low, high)
    theirs = get_torchaudio().functional.melscale_fbanks(n_fft // 2 + 1, low, high or rate / 2, n_mels, rate).T
    assert ours.shape == (n_mels, n_fft // 2 + 1)
    assert torch.allclose(ours.float(), theirs, atol=2e-4)          # torchaudio computes the edges in float32


@pytest.mark.parametrize("low, high", [(0, 4001), (-1, None), (3000, 2000), (1000, 1000), (4000, None), (math.nan, None), (0, math.nan), (0, "4000"), ("0", None)])
def test_filterbank_refuses(nb, low, high):
    for call in (lambda: nb["mel_filterbank"](10, 64, 8000, low, high), lambda: nb["log_mel"](sound(100), 8000, 64, 16, 10, low, high)):
        with pytest.raises(ValueError, match="f_min"):
            call()
    with pytest.raises(ValueError, match="n_mels"):
        nb["mel_filterbank"](0, 64, 8000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_mel_of_batches_types_and_numpy(nb, dtype):
    x = sound(2, 3, 700, dtype=dtype)
    L = nb["log_mel"](x, 8000, 256, 80, 40)
    assert L.shape == (2, 3, 6, 40) and L.dtype == dtype
    assert torch.allclose(L[1, 2], nb["log_mel"](x[1, 2].numpy(), 8000, 256, 80, 40), atol=1e-5)
    theirs = get_torchaudio().transforms.MelSpectrogram(8000, 256, hop_length=80, n_mels=40, center=False).to(dtype)(x)
    assert torch.allclose(L, theirs.clamp(min=1e-10).log().mT, atol=5e-3)
    for eps in (None, "1e-10", 0.0, -1.0, math.nan, math.inf, torch.finfo(dtype).tiny / 2):          # the last one would become 0: minus infinity
        with pytest.raises(ValueError, match="eps"):
            nb["log_mel"](x, 8000, 256, 80, 40, eps=eps)
    assert torch.isfinite(nb["log_mel"](0 * x, 8000, 256, 80, 40, eps=torch.finfo(dtype).tiny)).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_log_mel_refuses_what_is_not_finite(nb, value):
    x = sound(2, 700)
    x[1, 300] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        nb["log_mel"](x, 8000, 256, 80, 40)


@pytest.mark.parametrize("rate", [None, math.inf, math.nan, 0, -8000, "8000"])
def test_sampling_rates_are_positive_numbers(nb, rate):
    for call in (lambda: nb["mel_filterbank"](10, 64, rate), lambda: nb["log_mel"](sound(100), rate, 64, 16, 10)):
        with pytest.raises(ValueError, match="sample_rate"):
            call()
    assert nb["mel_filterbank"](10, 64, np.int64(8000)).shape == (10, 33)


@pytest.mark.parametrize("kind", [lambda x: x, lambda x: x.numpy()])
def test_log_mel_refuses_8_bit_sound_and_says_how(nb, kind):
    pcm = (sound(700) * 100 + 128).round()
    with pytest.raises(ValueError, match="zero at 128"):
        nb["log_mel"](kind(pcm.to(torch.uint8)), 8000, 256, 80, 20)


def test_arrays_of_torch_and_librosa_are_told_to_transpose(nb):
    with pytest.raises(ValueError, match=r"given as S\.T"):
        nb["griffin_lim"](torch.ones(129, 10), 256, 80, hann(256))
    X = torch.stft(sound(700), 256, 80, window=hann(256), center=False, return_complex=True)
    with pytest.raises(ValueError, match=r"given as X\.mT"):
        nb["istft"](X, 80, hann(256))
    assert nb["istft"](X.mT, 80, hann(256)).shape == (256 + 5 * 80,)


def test_mfcc_of_arrays_and_types(nb):
    from scipy.fft import dct
    L = sound(3, 5, 12)
    assert np.allclose(nb["mfcc"](L.numpy(), 12), dct(L.numpy(), norm="ortho"), atol=1e-12)
    assert nb["mfcc"](L.float(), 4).dtype == torch.float32 and nb["mfcc"](L, 4).shape == (3, 5, 4)
    with pytest.raises(ValueError, match="13 is too many"):
        nb["mfcc"](L, 13)
    for n_keep in (0, -1, 2.5):
        with pytest.raises(ValueError, match="n_keep"):
            nb["mfcc"](L, n_keep)


def test_log_mel_reads_16_bit_integers_and_reversed_arrays(nb):
    pcm = (sound(600) * 3000).round()
    L = nb["log_mel"](pcm, 8000, 256, 80, 20)
    assert torch.allclose(nb["log_mel"](pcm.to(torch.int16), 8000, 256, 80, 20), L)
    assert torch.allclose(nb["log_mel"](pcm.flip(0).numpy()[::-1], 8000, 256, 80, 20), L)


# --- Griffin–Lim ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("n_fft, hop, frames", [(8, 3, 9), (9, 4, 7), (64, 16, 20), (16, 16, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_griffin_lim_never_rises_and_says_the_truth(nb, n_fft, hop, frames, dtype):
    S = torch.rand(frames, n_fft // 2 + 1, generator=torch.Generator().manual_seed(3)).to(dtype) ** 2
    w = hann(n_fft, dtype)
    x, history = nb["griffin_lim"](S, n_fft, hop, w, n_iter=25, generator=torch.Generator().manual_seed(4))
    assert x.shape == ((frames - 1) * hop + n_fft,) and x.dtype == dtype and history.shape == (25,)
    assert (history.diff() <= 0).all()
    assert torch.isclose(history[-1], (nb["stft"](x, n_fft, hop, w).abs() - S).norm() / S.norm(), rtol=1e-3)
    same = nb["griffin_lim"](S, n_fft, hop, w, n_iter=25, generator=torch.Generator().manual_seed(4))[0]
    other = nb["griffin_lim"](S, n_fft, hop, w, n_iter=25, generator=torch.Generator().manual_seed(5))[0]
    assert torch.equal(x, same) and not torch.allclose(x, other)


def test_griffin_lim_of_silence_is_silence(nb):
    x, history = nb["griffin_lim"](torch.zeros(4, 9), 16, 4, hann(16, torch.float32), n_iter=3)
    assert torch.equal(x, torch.zeros(28)) and torch.equal(history, torch.zeros(3))


@pytest.mark.parametrize("S, message", [(torch.ones(4, 8), "shape"), (torch.ones(9), "shape"), (torch.ones(2, 4, 9), "one sound"),
                                        (-torch.ones(4, 9), ">= 0"), (torch.full((4, 9), math.nan), "NaN"), (torch.ones(0, 9), "shape"),
                                        (torch.full((4, 9), math.inf), "finite")])
def test_griffin_lim_refuses(nb, S, message):
    with pytest.raises(ValueError, match=message):
        nb["griffin_lim"](S, 16, 4, hann(16))
    with pytest.raises(ValueError, match="n_iter"):
        nb["griffin_lim"](torch.ones(4, 9), 16, 4, hann(16), n_iter=0)


# --- mu-law --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("mu", [1, 15, 255, 65_535])
def test_mu_law_codes(nb, mu):
    x = torch.linspace(-1, 1, 1001)
    codes = nb["mu_law_encode"](x, mu)
    assert codes.dtype == torch.int64 and codes.min() == 0 and codes.max() == mu
    every = torch.arange(mu + 1).reshape(1, -1)
    assert torch.equal(nb["mu_law_encode"](nb["mu_law_decode"](every, mu).double(), mu), every)
    if mu <= 255:
        functional = get_torchaudio().functional
        assert torch.equal(codes, functional.mu_law_encoding(x, mu + 1))
        assert torch.allclose(nb["mu_law_decode"](codes, mu), functional.mu_law_decoding(codes, mu + 1), atol=1e-6)


def test_mu_law_decodes_bytes_into_the_default_type(nb):
    assert nb["mu_law_decode"](torch.tensor([0, 255], dtype=torch.uint8)).dtype == torch.get_default_dtype()
    assert torch.allclose(nb["mu_law_decode"](np.array([0, 255])), torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize("x", [[1.001], [-1.1, 0], [math.nan], [math.inf], [30_000, 2]])
def test_mu_law_encode_refuses(nb, x):
    with pytest.raises(ValueError, match="32768"):
        nb["mu_law_encode"](torch.tensor(x))


@pytest.mark.parametrize("codes", [[256], [-1], [1.5], [math.nan]])
def test_mu_law_decode_refuses(nb, codes):
    with pytest.raises(ValueError, match="whole numbers 0 … 255"):
        nb["mu_law_decode"](torch.tensor(codes))
    for mu in (0, 2.5):
        with pytest.raises(ValueError, match="mu"):
            nb["mu_law_encode"](torch.zeros(2), mu)


# --- SpecAugment ---------------------------------------------------------------------------------------------------------

def test_spec_augment_hides_whole_stripes_other_ones_for_every_member(nb):
    S = sound(200, 30, 12, dtype=torch.float32)
    before = S.clone()
    out = nb["spec_augment"](S, 7, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(S, before) and out.dtype == torch.float32 and out.shape == S.shape
    hidden = out != S
    rows, columns = hidden.all(2), hidden.all(1)
    assert torch.equal(hidden, rows[:, :, None] | columns[:, None, :])
    assert rows.sum(1).max() == 7 and columns.sum(1).max() == 3 and rows.sum(1).min() == 0
    for member in (rows, columns):                          # one interval each, not everywhere the same
        assert (member.int().diff(dim=1) == 1).sum(1).max() <= 1 and len(member.unique(dim=0)) > 20
    mean = S.mean((1, 2), keepdim=True).expand_as(S)
    assert torch.allclose(out[hidden], mean[hidden])


def test_spec_augment_options(nb):
    S = sound(50, 20, 10)
    assert torch.equal(nb["spec_augment"](S, 0, 0), S) and torch.equal(nb["spec_augment"](S, 5, 5, n_time=0, n_freq=0), S)
    many = nb["spec_augment"](S, 4, 0, n_time=3, fill=9.0, generator=torch.Generator().manual_seed(2))
    assert ((many == 9).any(-1).int().diff(dim=1) == 1).sum(1).max() >= 2
    bands = nb["spec_augment"](S, 0, 2, n_freq=3, fill=9.0, generator=torch.Generator().manual_seed(2)) == 9
    assert torch.equal(bands.any(1), bands.all(1)) and 2 <= (bands.all(1).int().diff(dim=1, prepend=torch.zeros(50, 1)) == 1).sum(1).max() <= 3
    assert torch.isfinite(nb["spec_augment"](S[0], 1000, 1000)).all()       # wider than the example: everything may go
    again = [nb["spec_augment"](S, 5, 5, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*again)
    assert torch.equal(nb["spec_augment"](S, 20, 0, fill=S.mean((1, 2), keepdim=True).numpy(), generator=torch.Generator().manual_seed(3)),
                       nb["spec_augment"](S, 20, 0, generator=torch.Generator().manual_seed(3)))
    for bad in (torch.zeros(7), "mean", torch.zeros(2, 50, 20, 10)):
        with pytest.raises(ValueError, match="fill|of numbers"):
            nb["spec_augment"](S, 3, 3, fill=bad)
    for bad in ((-1, 0), (2.5, 0), (0, -1)):
        with pytest.raises(ValueError, match="whole number"):
            nb["spec_augment"](S, *bad)
    with pytest.raises(ValueError, match="frames"):
        nb["spec_augment"](S[0, 0], 2, 2)


# Wrong variants of each formula: where, what it becomes, and the equation whose check must notice.
MUTANTS = [
    ("return abs(f - sample_rate * round(f / sample_rate))", "return abs(f - sample_rate * int(f / sample_rate))", "31.1"),
    ("return sample_rate * bits * channels * seconds", "return sample_rate * bits * seconds", "31.2"),
    ("x, step = amplitudes(x), 2.0 ** (1 - bits)", "x, step = amplitudes(x), 2.0 ** (-bits)", "31.3"),
    ("return step * torch.round(x / step)", "return step * torch.floor(x / step)", "31.3"),
    ("return step * torch.round(x / step)", "return step * torch.floor(x / step)", "31.4"),
    ("return 10 * torch.log10((x**2).sum()", "return 20 * torch.log10((x**2).sum()", "31.4"),
    ("return torch.exp(-2j * torch.pi * turns)", "return torch.exp(2j * torch.pi * turns)", "31.5"),
    ("turns = (torch.outer(k, k) % N).double() / N", "turns = (torch.outer(k, k + 1) % N).double() / N", "31.5"),
    ("return dft_matrix(len(X)).conj() @ X / len(X)", "return dft_matrix(len(X)) @ X / len(X)", "31.6"),
    ("return dft_matrix(len(X)).conj() @ X / len(X)", "return dft_matrix(len(X)).conj() @ X", "31.6"),
    ("return both_sides(P, N).sum(-1) / N", "return P.sum(-1) / N", "31.7"),
    ("return both_sides(P, N).sum(-1) / N", "return both_sides(P, N).sum(-1) / N**2", "31.7"),
    ("X[..., 1:(N + 1) // 2].flip(-1).conj()", "X[..., 1:(N + 1) // 2].flip(-1)", "31.8"),
    ("X[..., 1:(N + 1) // 2].flip(-1).conj()", "X[..., 1:(N + 1) // 2].conj()", "31.8"),
    ("X[..., 1:(N + 1) // 2].flip(-1).conj()", "X[..., 1:N // 2 + 1].flip(-1).conj()", "31.8"),
    ("return torch.exp(-2j * torch.pi * d", "return torch.exp(2j * torch.pi * d", "31.9"),
    ("torch.abs(torch.sin(torch.pi * u) / torch.sin(torch.pi * u / N))", "torch.abs(torch.sin(torch.pi * u) / (torch.pi * u / N))", "31.10"),
    ("(W[(k[:, None] - k) % N] * X).sum(1) / N", "(W[(k[:, None] + k) % N] * X).sum(1) / N", "31.11"),
    ("(W[(k[:, None] - k) % N] * X).sum(1) / N", "(W[(k[:, None] - k) % N] * X).sum(1)", "31.11"),
    ("return 0.5 * (1 - torch.cos(2 * torch.pi * torch.arange(N, dtype=torch.float64) / N))",
     "return 0.5 * (1 - torch.cos(2 * torch.pi * torch.arange(N, dtype=torch.float64) / (N - 1)))", "31.12"),
    ("formula = [1 + (T - N) // H", "formula = [(T - N) // H", "31.13"),
    ("return x.unfold(-1, n_fft, hop) * window.to(x)", "return x.unfold(-1, n_fft, hop)[..., 1:, :] * window.to(x)", "31.13"),
    ("return torch.fft.rfft(windowed_frames(x, n_fft, hop, window))", "return torch.fft.rfft(windowed_frames(x, n_fft, hop, window)).conj()", "31.14"),
    ("return x.unfold(-1, n_fft, hop) * window.to(x)", "return x.unfold(-1, n_fft, hop) * window.to(x) ** 2", "31.14"),
    ("in_time, in_frequency = w**2 / (w**2).sum()", "in_time, in_frequency = w / w.sum()", "31.15"),
    ("at = hop * torch.arange(F)[:, None] + torch.arange(N)", "at = (hop + 1) * torch.arange(F)[:, None] + torch.arange(N)", "31.16"),
    ("start = (N // hop + 2) * hop", "start = (N // hop + 2) * hop + 1", "31.16"),
    ("top = overlap_add(frames * window, hop)", "top = overlap_add(frames, hop)", "31.17"),
    ("below = overlap_add((window**2)", "below = overlap_add((window)", "31.17"),
    ("return X.real**2 + X.imag**2", "return (X.real**2 + X.imag**2).sqrt()", "31.18"),
    ("return X.real**2 + X.imag**2", "return X.real**2 - X.imag**2", "31.18"),
    ("m = 2595 * torch.log10(1 + f / 700)", "m = 2595 * torch.log10(1 + f / 1000)", "31.19"),
    ("f = 700 * (10 ** (m / 2595) - 1)", "f = 700 * 10 ** (m / 2595)", "31.20"),
    ("edges = mel_to_hz(torch.linspace(low, high, n_mels + 2, dtype=torch.float64))",
     "edges = torch.linspace(f_min, f_max, n_mels + 2, dtype=torch.float64)", "31.21"),
    ("left, centre, right = edges[:-2], edges[1:-1], edges[2:]", "left, centre, right = edges[:-2], edges[2:] / 2 + edges[:-2] / 2, edges[2:]", "31.21"),
    ("return (P @ bank.mT.to(P)).clamp(min=eps).log()", "return (P @ bank.mT.to(P)).clamp(min=eps).log10()", "31.22"),
    ("return (P @ bank.mT.to(P)).clamp(min=eps).log()", "return (P @ bank.mT.to(P) + eps).log() + 0.0 * eps + 1e-6", "31.22"),
    ("bank = mel_filterbank(n_mels, n_fft, sample_rate, f_min, f_max)", "bank = mel_filterbank(n_mels, n_fft, sample_rate)", "31.22"),
    ("q * (j + 0.5) / n_mels)", "q * j / n_mels)", "31.23"),
    ("basis[0] /= 2**0.5", "basis[0] /= 2", "31.23"),
    ("return torch.polar(magnitude, X.angle())", "return torch.polar(magnitude, -X.angle())", "31.24"),
    ("return torch.polar(magnitude, X.angle())", "return torch.polar(magnitude, -X.angle())", "31.25"),
    ("below = overlap_add((window**2)", "below = overlap_add((window)", "31.25"),
    ("if not history or error <= history[-1]:", "if not history:", "31.25"),
    ("if not history or error <= history[-1]:", "if True:", "31.25"),
    ("X = with_magnitude(X, S)    ", "X = torch.polar(S, 0.99 * X.angle())    ", "31.25"),
    ("error = (X.abs() - S).norm() / size", "error = (X.abs() - S).norm()", "31.25"),
    ("return energy(Z.abs() ** 2, N).sum().sqrt()", "return (Z.abs() ** 2).sum().sqrt()", "31.25"),
    ("return torch.sign(x) * torch.log1p(mu * x.abs()) / math.log1p(mu)\n", "return torch.sign(x) * torch.log1p(mu * x.abs()) / math.log(mu)\n", "31.26"),
    ("return mu / ((1 + mu * real(x).abs()) * math.log1p(mu))", "return mu / ((1 + real(x).abs()) * math.log1p(mu))", "31.27"),
    ("return torch.floor((mu_law_compress(x, mu) + 1) / 2 * mu + 0.5).long()", "return torch.floor((mu_law_compress(x, mu) + 1) / 2 * mu).long()", "31.28"),
    ("y = 2 * c / mu - 1", "y = 2 * c / (mu + 1) - 1", "31.29"),
    ("return torch.sign(y) * torch.expm1(y.abs() * math.log1p(mu)) / mu", "return torch.sign(y) * torch.exp(y.abs() * math.log1p(mu)) / mu", "31.29"),
    ("return torch.floor((mu_law_compress(x, mu) + 1) / 2 * mu + 0.5).long()", "return torch.floor((mu_law_compress(x, mu) + 1) / 2 * mu).long()", "31.30"),
    ("y = 2 * c / mu - 1", "y = torch.where((2 * c - mu).abs() < 4, 0.0, 2 * c / mu - 1)", "31.30"),
    ("share = (a**2 / 2) / (1 + 4 * a / math.pi + a**2 / 2)", "share = 1", "31.30"),
    ("width = (draw() * (min(limit, length) + 1)).floor()", "width = (draw() * min(limit, length)).floor()", "31.31"),
    ("start = (draw() * (length - width + 1)).floor()", "start = (draw() * (length - width + 1)).floor() * 0", "31.31"),
    ("start = (draw() * (length - width + 1)).floor()", "start = (draw() * (length - width)).floor()", "31.31"),
    ("stripes(batch, n_mels, freq_width, n_freq, generator)", "stripes(batch, n_mels, freq_width // 2, n_freq, generator)", "31.31"),
    ("return ((at >= start) & (at < start + width)).any(-2)", "return ((at >= start) & (at <= start + width)).any(-2)", "31.31"),
]


(test_a_wrong_formula_fails_its_own_check, test_the_right_formulas_pass_the_same_slices,
 test_every_equation_has_a_wrong_variant) = wrong_variant_tests(BOOK, MUTANTS)
