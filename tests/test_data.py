"""Loaders: what is bundled, what is found, what is downloaded, and what is refused."""

import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import threading
import zipfile
from dataclasses import fields, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from helpers import data
from tests.book import ROOT

REAL = os.environ.get("COURSE_DATA")


# --- bundled ----------------------------------------------------------------------------------------------------------

def test_ratings_have_exactly_these_fields():
    assert [f.name for f in fields(data.Ratings)] == ["user", "item", "value", "time", "n_users", "n_items"]
    r = data.ratings()
    assert all(x.ndim == 1 and len(x) == len(r) == 20_000 for x in (r.user, r.item, r.value, r.time))
    assert (r.user.dtype, r.item.dtype, r.value.dtype, r.time.dtype) == (torch.int64, torch.int64, torch.float64, torch.int64)
    assert (r.n_users, r.n_items) == (600, 400)
    assert type(r.n_users) is int


def test_ratings_are_what_the_docstring_says():
    r = data.ratings()
    assert torch.equal(r.value * 2, (r.value * 2).round()) and r.value.min() == 0.5 and r.value.max() == 5
    assert len(set(zip(r.user.tolist(), r.item.tolist()))) == len(r)
    by_user, by_item = torch.bincount(r.user, minlength=600), torch.bincount(r.item, minlength=400)
    assert by_user[595:].sum() == by_item[395:].sum() == 0, "cold users and items"
    assert (by_user[590:595] <= 3).all() and (by_item[390:395] == 3).all()
    top = by_item.sort(descending=True).values
    assert top[:40].sum() > 0.25 * len(r), "a long tail has a head"


def test_ratings_scatter_around_the_known_model():
    r, t = data.ratings(), data.truth()
    e = r.value - t.mu - t.b_u[r.user] - t.b_i[r.item] - (t.P[r.user] * t.Q[r.item]).sum(1)
    inside = (r.value > 0.5) & (r.value < 5)
    assert abs(e[inside].std() - (t.noise_sd**2 + 0.5**2 / 12) ** 0.5) < 0.03
    wrong = r.value - t.mu - t.b_u[r.user] - t.b_i[r.item] + (t.P[r.user] * t.Q[r.item]).sum(1)
    assert wrong.std() > 2 * e.std()


def test_items_go_with_the_ratings():
    it = data.items()
    assert len(it.title) == len(set(it.title)) == 400
    assert it.genre.shape == (400, len(it.genre_names)) and it.genre.dtype == torch.bool
    assert set(it.genre.sum(1).tolist()) == {1, 2}


def test_ratings_can_be_selected_and_moved():
    r = data.ratings()
    part = r[r.value >= 4].to("cpu")
    assert len(part) == int((r.value >= 4).sum()) and part.n_users == 600
    assert torch.equal(r[:3].item, r.item[:3])


def test_the_generator_makes_the_files_bit_for_bit(tmp_path):
    subprocess.run([sys.executable, ROOT / "data/make_ratings.py", tmp_path], check=True)
    for name in ("ratings.csv", "ratings_truth.json", "items.csv"):
        assert (tmp_path / name).read_bytes() == (ROOT / "data" / name).read_bytes(), name


def test_the_generator_refuses_to_depend_on_the_last_digit():
    spec = importlib.util.spec_from_file_location("make_ratings", ROOT / "data/make_ratings.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    assert make.rounded([0.26, 0.74, -0.3], 0.5).tolist() == [0.5, 0.5, -0.5]
    with pytest.raises(ValueError, match="boundary"):
        make.rounded([0.25 + 1e-12], 0.5)


def test_bundled_digits():
    d = data.digits()
    assert d.image.shape == (5000, 28, 28) and d.image.dtype == torch.uint8
    assert torch.bincount(d.label).tolist() == [500] * 10


@pytest.mark.parametrize("load, choices", [(data.ratings, "ml-100k"), (data.items, "ml-100k"), (data.digits, "mnist-test")])
def test_an_unknown_source_is_refused_with_the_choices(load, choices):
    with pytest.raises(ValueError, match=f"'nope'.*'bundled'.*'{choices}'"):
        load("nope")


# --- found ------------------------------------------------------------------------------------------------------------

@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No real data anywhere, no network: an empty cache and addresses that refuse connections."""
    monkeypatch.setattr(data, "DATA", tmp_path / "data")
    monkeypatch.delenv("COURSE_DATA", raising=False)
    for name, source in list(data.SOURCES.items()):
        monkeypatch.setitem(data.SOURCES, name, replace(source, urls=("http://127.0.0.1:9/x.zip",)))
    return tmp_path


ROWS = "1\t1\t5\t881250949\n943\t1682\t1\t0\n"


def publish(monkeypatch, name="u.data", contents=b"1\t1\t5\t881250949\n943\t1682\t1\t0\n"):
    """Declare these contents to be the published ones."""
    source = data.SOURCES["ml-100k"]
    sums = source.checksums | {name: "sha256:" + hashlib.sha256(contents).hexdigest()}
    monkeypatch.setitem(data.SOURCES, "ml-100k", replace(source, checksums=sums))


def test_course_data_comes_first_then_the_cache(nowhere, monkeypatch):
    publish(monkeypatch)
    cache = nowhere / "data/cache/ml-100k"
    cache.mkdir(parents=True)
    (cache / "u.data").write_text(ROWS)
    assert len(data.ratings("ml-100k")) == 2
    own = nowhere / "own"
    monkeypatch.setenv("COURSE_DATA", str(own))
    assert len(data.ratings("ml-100k")) == 2, "not in COURSE_DATA: the cache serves"
    (own / "ml-100k").mkdir(parents=True)
    (own / "ml-100k/u.data").write_text("spoiled")
    with pytest.raises(ValueError, match="own.*u.data, line 1"):
        data.ratings("ml-100k")


@pytest.mark.parametrize("row", ["1\t1\t5", "1\t1\tfive\t0", "0\t1\t5\t0", "944\t1\t5\t0", "1\t1683\t5\t0", "1\t1\t6\t0", "1\t1\tnan\t0",
                                 "", "1,1,5,0", "1\t1\t5\t-1", "1.5\t1\t5\t0"])
def test_a_malformed_row_is_named_by_file_and_line(nowhere, monkeypatch, row):
    monkeypatch.setenv("COURSE_DATA", str(nowhere))
    (nowhere / "ml-100k").mkdir()
    (nowhere / "ml-100k/u.data").write_text(f"1\t1\t5\t881250949\n{row}\n2\t2\t4\t0\n")
    with pytest.raises(ValueError, match=r"u\.data, line 2: expected user 1\.\.943, item 1\.\.1682, rating 1\.\.5, unix time"):
        data.ratings("ml-100k")


def test_a_file_with_other_contents_is_refused(nowhere, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(nowhere))
    (nowhere / "ml-100k").mkdir()
    (nowhere / "ml-100k/u.data").write_text(ROWS)
    with pytest.raises(data.DataError, match="not the published u.data.*expected sha256:06416e59"):
        data.ratings("ml-100k")
    (nowhere / "ml-100k/u.data").write_text("")
    with pytest.raises(ValueError, match="no ratings in it"):
        data.ratings("ml-100k")


def test_offline_the_error_says_what_to_do(nowhere):
    with pytest.raises(data.DataError) as failed:
        data.ratings("ml-100k")
    said = str(failed.value)
    for part in ("http://127.0.0.1:9/x.zip", str(nowhere / "data/cache/ml-100k"), "COURSE_DATA", 'DATA = "bundled"', "u.data"):
        assert part in said, part
    assert isinstance(failed.value, OSError)
    assert not (nowhere / "data/cache/ml-100k").exists()


# --- downloaded -------------------------------------------------------------------------------------------------------

def packed(files):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as z:
        for name, contents in files.items():
            z.writestr(f"ml-100k/{name}", contents)
    return archive.getvalue()


FILES = {"u.data": ROWS.encode(), "u.item": "1|Film|||u|1\n".encode("latin-1"), "u.genre": b"drama|0\n\n"}


@pytest.fixture
def server(nowhere, monkeypatch):
    """A loopback server; `pages` maps a path to (status, body, how many bytes to send before hanging up)."""
    pages, asked = {}, []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            status, body, cut = pages.get(self.path, (404, b"", None))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:cut])
            self.close_connection = True

        def log_message(self, *_):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    root = f"http://127.0.0.1:{httpd.server_port}"
    sums = {name: "sha256:" + hashlib.sha256(body).hexdigest() for name, body in FILES.items()}

    def addresses(*paths):
        urls = tuple(p if p.startswith("http") else root + p for p in paths)
        monkeypatch.setitem(data.SOURCES, "ml-100k", replace(data.SOURCES["ml-100k"], urls=urls, checksums=sums))

    addresses("/good.zip")
    pages["/good.zip"] = (200, packed(FILES), None)
    yield type("Server", (), {"pages": pages, "asked": asked, "addresses": staticmethod(addresses),
                              "cache": nowhere / "data/cache"})
    httpd.shutdown()
    httpd.server_close()


def test_a_download_is_kept_and_used_again(server):
    assert len(data.ratings("ml-100k")) == 2
    assert sorted(p.name for p in (server.cache / "ml-100k").iterdir()) == ["u.data", "u.genre", "u.item"]
    assert data.items("ml-100k").title == ["Film"]
    assert server.asked == ["/good.zip"], "one download serves both"
    assert [p.name for p in server.cache.iterdir()] == ["ml-100k"], "no scraps"


BAD = {
    "cut off in the middle": lambda s: s.pages.update({"/good.zip": (200, packed(FILES), 150)}),
    "wrong content": lambda s: s.pages.update({"/good.zip": (200, packed(FILES | {"u.data": b"1\t1\t5\t0\n"}), None)}),
    "a page instead of an archive": lambda s: s.pages.update({"/good.zip": (200, b"<html>log in</html>", None)}),
    "an archive without the file": lambda s: s.pages.update({"/good.zip": (200, packed({"u.item": b""}), None)}),
    "not found": lambda s: s.pages.clear(),
    "a server error": lambda s: s.pages.update({"/good.zip": (500, b"", None)}),
    "an empty answer": lambda s: s.pages.update({"/good.zip": (200, b"", None)}),
}


@pytest.mark.parametrize("what", BAD)
def test_a_failed_download_leaves_nothing_that_later_loads(server, what):
    good = server.pages["/good.zip"]
    BAD[what](server)
    for _ in range(2):
        with pytest.raises(data.DataError, match="could not be downloaded"):
            data.ratings("ml-100k")
        assert list(server.cache.rglob("*")) == [], "something was left behind"
    server.pages["/good.zip"] = good
    assert len(data.ratings("ml-100k")) == 2, "the next try works"


@pytest.mark.parametrize("first", ["http://127.0.0.1:9/x.zip", "/missing.zip", "/broken.zip", "https://127.0.0.1:9/x.zip"])
def test_a_dead_first_address_leads_to_the_second(server, first):
    server.pages["/broken.zip"] = (200, packed(FILES), 100)
    server.addresses(first, "/good.zip")
    assert len(data.ratings("ml-100k")) == 2


def test_a_lapsed_certificate_leads_to_plain_http():
    first, second = data.SOURCES["ml-100k"].urls
    assert first.startswith("https://") and second == first.replace("https://", "http://")


def test_a_spoiled_cache_is_noticed(server):
    data.ratings("ml-100k")
    (server.cache / "ml-100k/u.data").write_text(ROWS.replace("5", "4"))
    with pytest.raises(data.DataError, match="Move the file away"):
        data.ratings("ml-100k")


def test_single_files_are_downloaded_by_name(server, monkeypatch):
    import gzip
    image, label = gzip.compress(b"\0" * 16 + bytes(range(28)) * 56), gzip.compress(b"\0" * 8 + b"\3\7")
    sums = {n: "md5:" + hashlib.md5(b).hexdigest() for n, b in (("a.gz", image), ("b.gz", label))}
    url = f"{data.SOURCES['ml-100k'].urls[0].rsplit('/', 1)[0]}/"
    monkeypatch.setitem(data.SOURCES, "mnist-test", replace(data.SOURCES["mnist-test"], urls=(url,), checksums=sums))
    server.pages |= {"/a.gz": (200, image, None), "/b.gz": (200, label, None)}
    digits = data.digits("mnist-test")
    assert digits.label.tolist() == [3, 7] and digits.image.shape == (2, 28, 28) and digits.image[1, 27, 27] == 27


# --- the real files ---------------------------------------------------------------------------------------------------

real = pytest.mark.skipif(not REAL, reason="COURSE_DATA is not set: no real data on this machine")


@real
def test_the_real_movielens():
    r = data.ratings("ml-100k")
    assert (len(r), r.n_users, r.n_items) == (100_000, 943, 1682)
    assert torch.bincount(r.value.long()).tolist() == [0, 6110, 11370, 27145, 34174, 21201]     # from the data's README
    assert torch.bincount(r.user).min() == 20
    it = data.items("ml-100k")
    assert len(it.title) == 1682 and it.title[0] == "Toy Story (1995)" and it.genre.shape == (1682, 19)
    assert [it.genre_names[k] for k in it.genre[0].nonzero()[:, 0]] == ["Animation", "Children's", "Comedy"]


@real
def test_the_real_mnist_test_split():
    d = data.digits("mnist-test")
    assert d.image.shape == (10_000, 28, 28)
    assert d.label[:5].tolist() == [7, 2, 1, 0, 4]
    bundled = {image.numpy().tobytes() for image in data.digits().image}
    assert not any(image.numpy().tobytes() in bundled for image in d.image), "the bundled digits are not test digits"
