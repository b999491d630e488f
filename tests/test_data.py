"""Loaders: what is bundled, what is found, what is downloaded, and what is refused."""

import errno
import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from dataclasses import fields, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pooch
import pytest
import soundfile
import torch

from helpers import data
from helpers.data import fetch
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


def test_bundled_commands_are_what_their_kinds_say():
    def slots(words, labels):
        """{(type, value)} and the phrase around the slots."""
        text = " ".join(f"[{y[2:]} {w}" if y[0] == "B" else w if y[0] == "I" else f"| {w}" for w, y in zip(words, labels))
        found = {part.split("|")[0].strip() for part in text.split("[")[1:]}
        return found, [y if y == "O" else y[2:] for y in labels if y[0] != "I"], [w for w, y in zip(words, labels) if y == "O"]

    train, valid, test = (data.utterances(split=split) for split in ("train", "valid", "test"))
    assert [len(train), len(valid), len(test)] == [2000, 400, 600] and set(train.kind) == set(valid.kind) == {""}
    assert {k: test.kind.count(k) for k in set(test.kind)} == {"seen": 200, "new value": 200, "new phrase": 200}
    assert len(set(train.intents)) == 6 and len({y[2:] for labels in train.labels for y in labels}) == 18
    assert all(len(w) == len(y) > 0 for u in (train, valid, test) for w, y in zip(u.words, u.labels))
    known = [slots(w, y) for w, y in zip(train.words, train.labels)]
    values, phrases = set().union(*(k[0] for k in known)), {(tuple(k[1]), tuple(k[2])) for k in known}
    sentences = {tuple(w) for w in train.words}
    for words, labels, kind in zip(test.words, test.labels, test.kind):
        found, *phrase = slots(words, labels)
        assert tuple(words) not in sentences
        assert (found <= values) == (kind != "new value") and (tuple(map(tuple, phrase)) in phrases) == (kind != "new phrase")


def test_bundled_commands_are_hard_where_language_is_hard():
    train = data.utterances()
    labels_of = {}
    for words, labels in zip(train.words, train.labels):
        for w, y in zip(words, labels):
            labels_of.setdefault(w, set()).add(y)
    assert {"B-time", "B-amount", "B-people"} <= labels_of["seven"] and {"O", "B-date", "B-song"} <= labels_of["may"]
    assert any({"B-city", "B-song"} <= labels for labels in labels_of.values()) and all(w == w.lower() for w in labels_of)


def test_the_commands_can_be_made_again(tmp_path):
    import subprocess
    import sys

    subprocess.run([sys.executable, data.DATA / "make_utterances.py", tmp_path], check=True)
    assert (tmp_path / "utterances.csv").read_bytes() == (data.DATA / "utterances.csv").read_bytes()


@pytest.mark.parametrize("load, says", [
    (lambda: data.sounds("nope"), "unknown data source 'nope'.*'digits', 'speech', 'fsdd'"),
    (lambda: data.utterances("nope"), "unknown data source 'nope'.*'bundled', 'snips'"),
    (lambda: data.utterances("snips", "dev"), "unknown split 'dev'.*'train', 'valid', 'test'"),
    (lambda: data.squad("bundled"), "unknown data source 'bundled'.*'article', 'dev', 'train'"),
    (lambda: data.nab("taxi"), "unknown series 'taxi'.*'nyc_taxi', 'machine_temperature_system_failure'"),
    (lambda: data.feature_weights("vgg16"), "unknown kind of weights 'vgg16'.*'bundled', 'vgg19'")])
def test_an_unknown_name_is_refused_before_anything_is_looked_for(load, says):
    with pytest.raises(ValueError, match=says):
        load()


def test_jupyter_shows_the_message_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    shell = InteractiveShell()
    for code in ("data.ratings('nope')", "data.utterances('nope')"):
        with capture_output() as said:
            shell.run_cell(f"from helpers import data\n{code}")
        assert len((said.stdout + said.stderr).strip().splitlines()) == 1, said.stdout
        assert "unknown data source 'nope'" in said.stdout


def test_the_readme_lists_every_real_set():
    about = (ROOT / "data/README.md").read_text(encoding="utf-8").split("## Real data sets")[1]
    for name, source in data.SOURCES.items():
        assert f"`{name}`" in about and f"`{source.folder}/" in about, name
        assert source.urls and source.checksums and all(sum.split(":")[0] in ("md5", "sha256") for sum in source.checksums.values())


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
    (cache / "u.data").write_text(ROWS, encoding="utf-8")
    assert len(data.ratings("ml-100k")) == 2
    own = nowhere / "own"
    monkeypatch.setenv("COURSE_DATA", str(own))
    assert len(data.ratings("ml-100k")) == 2, "not in COURSE_DATA: the cache serves"
    (own / "ml-100k").mkdir(parents=True)
    (own / "ml-100k/u.data").write_text("spoiled", encoding="utf-8")
    with pytest.raises(ValueError, match="own.*u.data, line 1"):
        data.ratings("ml-100k")


def test_a_relative_course_data_starts_at_the_course(nowhere, monkeypatch):
    publish(monkeypatch)
    monkeypatch.setenv("COURSE_DATA", "real")
    for folder in (nowhere / "real/ml-100k", nowhere / "notebooks", nowhere / "elsewhere/deep"):
        folder.mkdir(parents=True)
    (nowhere / "real/ml-100k/u.data").write_text(ROWS, encoding="utf-8", newline="\n")
    for cwd in ("", "notebooks", "elsewhere/deep"):
        monkeypatch.chdir(nowhere / cwd)
        assert data.places("ml-100k")[0] == nowhere / "real/ml-100k"
        assert len(data.ratings("ml-100k")) == 2
    monkeypatch.setattr(data, "DATA", nowhere / "clone/data")                # a course without that folder: that of the reader
    assert data.places("ml-100k")[0] == nowhere / "real/ml-100k"
    monkeypatch.setenv("COURSE_DATA", "missing")
    assert data.places("ml-100k")[0] == nowhere / "clone/missing/ml-100k"
    monkeypatch.setenv("COURSE_DATA", " ")
    assert data.places("ml-100k") == [nowhere / "clone/data/cache/ml-100k"]


def test_a_file_that_cannot_be_read_is_named(nowhere, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(nowhere))
    (nowhere / "ml-100k").mkdir()
    (nowhere / "ml-100k/u.data").write_text(ROWS, encoding="utf-8")
    monkeypatch.setattr(fetch, "_digest", lambda *_: open(nowhere, encoding="utf-8"))
    with pytest.raises(data.DataError, match=r"u\.data cannot be read \(.+\): mend its permissions"):
        data.ratings("ml-100k")


def test_a_read_only_checkout_is_a_data_error(nowhere, monkeypatch):
    (nowhere / "file").write_text("", encoding="utf-8")
    monkeypatch.setattr(data, "DATA", nowhere / "file/data")                  # nothing can be made there, not even by root
    for load in (lambda: data.digits("mnist-train"), lambda: data.ratings("ml-100k")):
        with pytest.raises(data.DataError, match="(?s)could not be downloaded.*COURSE_DATA"):
            load()


@pytest.mark.parametrize("row", ["1\t1\t5", "1\t1\tfive\t0", "0\t1\t5\t0", "944\t1\t5\t0", "1\t1683\t5\t0", "1\t1\t6\t0", "1\t1\tnan\t0",
                                 "", "1,1,5,0", "1\t1\t5\t-1", "1.5\t1\t5\t0"])
def test_a_malformed_row_is_named_by_file_and_line(nowhere, monkeypatch, row):
    monkeypatch.setenv("COURSE_DATA", str(nowhere))
    (nowhere / "ml-100k").mkdir()
    (nowhere / "ml-100k/u.data").write_text(f"1\t1\t5\t881250949\n{row}\n2\t2\t4\t0\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"u\.data, line 2: expected user 1\.\.943, item 1\.\.1682, rating 1\.\.5, unix time"):
        data.ratings("ml-100k")


def test_a_file_with_other_contents_is_refused(nowhere, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(nowhere))
    (nowhere / "ml-100k").mkdir()
    (nowhere / "ml-100k/u.data").write_text(ROWS, encoding="utf-8")
    with pytest.raises(data.DataError, match="not the published u.data.*expected sha256:06416e59"):
        data.ratings("ml-100k")
    (nowhere / "ml-100k/u.data").write_text("", encoding="utf-8")
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


FILES = {"u.data": ROWS.encode(), "u.item": "1|Film|||u|1\n".encode("latin-1"), "u.genre": b"drama|0\n\n", "u.user": b"1|24|M|writer|0\n"}


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
    yield type("Server", (), {"root": root, "pages": pages, "asked": asked, "addresses": staticmethod(addresses),
                              "cache": nowhere / "data/cache"})
    httpd.shutdown()
    httpd.server_close()


def test_a_download_is_kept_and_used_again(server):
    assert len(data.ratings("ml-100k")) == 2
    assert sorted(p.name for p in (server.cache / "ml-100k").iterdir()) == ["u.data", "u.genre", "u.item", "u.user"]
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
    (server.cache / "ml-100k/u.data").write_text(ROWS.replace("5", "4"), encoding="utf-8")
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


def test_a_full_disk_is_a_data_error_and_leaves_nothing(server, monkeypatch):
    def fill(url, path, **_):
        path.mkdir(parents=True, exist_ok=True)
        (path / "half").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(pooch, "retrieve", fill)
        with pytest.raises(data.DataError, match="No space left"):
            data.ratings("ml-100k")
    assert list(server.cache.rglob("*")) == []
    with monkeypatch.context() as stopped:
        stopped.setattr(pooch, "retrieve", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            data.ratings("ml-100k")
    assert list(server.cache.rglob("*")) == []


# --- sound, text, series ----------------------------------------------------------------------------------------------

def published(monkeypatch, name, files, folder=None, **about):
    """Declare `files` (name -> bytes) to be the real set `name`; write them into `folder` if there is one."""
    sums = {file: "sha256:" + hashlib.sha256(body).hexdigest() for file, body in files.items()}
    monkeypatch.setitem(data.SOURCES, name, replace(data.SOURCES[name], **({"checksums": sums} | about)))
    for file, body in files.items() if folder else ():
        path = folder / data.SOURCES[name].folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)


def wav(x, rate=8000, **options):
    file = io.BytesIO()
    soundfile.write(file, np.asarray(x, dtype=np.float64), rate, **({"format": "WAV"} | options))
    return file.getvalue()


TAKES = {"0_ann_0.wav": wav([0.5, -0.25]), "7_bob_12.wav": wav([0.0, 0.125, 0.25])}


def recordings(takes):
    return {"recordings/": "sha256:" + hashlib.sha256(b"".join(takes[k] for k in sorted(takes, key=str.encode))).hexdigest()}


def test_the_archive_of_recordings_is_unpacked_and_parsed(server, monkeypatch):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as z:
        for name, body in {"": b"", "README.md": b"x", "recordings/": b"", "other/recordings/1_eve_0.wav": wav([1.0]),
                           **{f"recordings/{k}": v for k, v in reversed(TAKES.items())}}.items():
            z.writestr(f"free-spoken-digit-dataset-1.0.10/{name}", body)
    server.pages["/fsdd.zip"] = (200, archive.getvalue(), None)
    published(monkeypatch, "fsdd", {}, urls=(server.root + "/fsdd.zip",), checksums=recordings(TAKES))
    s = data.sounds("fsdd")
    assert [x.tolist() for x in s.sound] == [[0.5, -0.25], [0, 0.125, 0.25]] and s.sound[0].dtype == torch.float32
    assert (s.text, s.speaker, s.take, s.phones, s.sample_rate) == (["zero", "seven"], ["ann", "bob"], [0, 12], None, 8000)
    assert sorted(p.name for p in server.cache.rglob("*")) == [*sorted(TAKES), "fsdd", "recordings"]
    data.sounds("fsdd")
    assert server.asked == ["/fsdd.zip"] and data.found("fsdd") == server.cache / "fsdd"


@pytest.mark.parametrize("name, body, says", [
    ("8_eve.wav", wav([0.0]), r"8_eve\.wav: expected a name like 7_jackson_32\.wav"), ("x_eve_1.wav", wav([0.0]), "expected a name"),
    ("8_eve_1.wav", wav([0.0], 16000), "8_eve_1.wav: expected a mono WAV file of 8000 Hz, got WAV, 16000 Hz"),
    ("8_eve_1.wav", wav([[0.0, 0.0]]), "2 channels"), ("8_eve_1.wav", b"no sound", "cannot be read"), ("8_eve_1.wav", b"", "cannot be read"),
    ("8_eve_1.wav", wav([0.0], format="FLAC"), "got FLAC"), ("8_eve_1.wav", wav([]), "0 samples")])
def test_a_file_that_is_no_recording_is_named(nowhere, monkeypatch, name, body, says):
    for file, contents in (TAKES | {name: body}).items():
        (nowhere / "fsdd/recordings").mkdir(parents=True, exist_ok=True)
        (nowhere / "fsdd/recordings" / file).write_bytes(contents)
    monkeypatch.setenv("COURSE_DATA", str(nowhere))
    with pytest.raises(ValueError, match=says):
        data.sounds("fsdd")


def test_other_recordings_than_the_published_ones_are_refused(nowhere, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(nowhere))
    (nowhere / "fsdd/recordings").mkdir(parents=True)
    assert data.found("fsdd") is None, "a folder without a sound"
    (nowhere / "fsdd/recordings/0_ann_0.wav").write_bytes(TAKES["0_ann_0.wav"])
    with pytest.raises(data.DataError, match="not the published recordings/.*expected sha256:ddb17656"):
        data.sounds("fsdd")


@pytest.mark.parametrize("source, n, seconds", [("digits", 1120, 536), ("speech", 100, 216)])
def test_the_bundled_sounds_are_what_their_table_says(source, n, seconds):
    s = data.sounds(source)
    assert len(s) == len(s.sound) == len(s.text) == len(s.speaker) == len(s.take) == n and s.sample_rate == 8000
    assert all(x.ndim == 1 and x.dtype == torch.float32 for x in s.sound) and round(sum(map(len, s.sound)) / 8000) == seconds
    whole, rate = soundfile.read(ROOT / f"data/{source}.flac", dtype="int16")
    assert rate == 8000 and sum(map(len, s.sound)) == len(whole) and not (whole % 16).any(), "12 bits"
    peaks = torch.stack([x.abs().max() for x in s.sound])
    assert 0.1 < peaks.min() and 0.3 < peaks.max() < 1, "none is silent, none clips"
    for x in s.sound:
        longest = int(torch.diff(torch.nonzero(x.abs() >= 0.999 * x.abs().max())[:, 0]).eq(1).long().sum())
        assert longest < 8, "clipped"
        assert x.square().mean().sqrt() > 0.05 * x.abs().max()
    s.sound[0].zero_()
    assert s.sound[1].any() and data.sounds(source).sound[0].any(), "own memory, read anew"


def test_the_bundled_digits():
    s = data.sounds()
    rows = list(zip(s.text, s.speaker, s.take))
    assert len(set(rows)) == len(rows) and s.phones is None and len(set(s.text)) == 10
    assert set(rows) == {(w, f"v{i:02}", take) for w in set(s.text) for i in range(50) for take in range(2)} | {
        (w, "slt", take) for w in set(s.text) for take in range(12)}
    assert all(0.15 < len(x) / 8000 < 1.2 for x in s.sound)
    edge = torch.tensor([float(torch.cat([x[:40], x[-40:]]).abs().max() / x.abs().max()) for x in s.sound])
    assert edge.median() < 0.05, "silence at the ends, not cut words"
    assert len({x.numpy().tobytes() for x in s.sound}) > 1100, "two takes are two recordings"


def test_the_bundled_sentences():
    s = data.sounds("speech")
    phones = [phone for row in s.phones for phone, _ in row]
    arpabet = set("aa ae ah ao aw ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z zh".split())
    assert arpabet <= set(phones) <= arpabet | {"ax", "pau"} and min(map(phones.count, arpabet)) >= 10
    for x, row, text in zip(s.sound, s.phones, s.text):
        ends = [end for _, end in row]
        assert ends == sorted(set(ends)) and ends[0] > 0 and abs(ends[-1] - len(x) / 8000) < 1e-3
        assert row[0][0] == row[-1][0] == "pau" and text == " ".join(text.lower().split())
    assert len(set(s.text)) == 100 and set(s.speaker) == {"slt"}


def test_bundled_sounds_that_are_gone_are_named(nowhere, monkeypatch):
    monkeypatch.setattr(data, "DATA", nowhere)
    with pytest.raises(data.DataError, match=r"data/digits\.flac and data/digits\.csv cannot be read"):
        data.sounds()


COMMANDS = {"seq.in": b"play jazz \nwake me\n", "seq.out": b"O B-genre \nO O\n", "label": b"Play\nAlarm\n"}


def commands(**changed):
    """SNIPS's nine files, all splits alike, with some changed in train."""
    names = {"words": "seq.in", "labels": "seq.out", "intents": "label"}
    return {f"{split}/{k}": v for split in ("train", "valid", "test") for k, v in COMMANDS.items()} | {
        f"train/{names[k]}": v for k, v in changed.items()}


def test_commands_are_downloaded_into_their_folders(server, monkeypatch):
    published(monkeypatch, "snips", commands(), urls=(server.root + "/snips/",))
    server.pages |= {f"/snips/{name}": (200, body, None) for name, body in commands().items()}
    u = data.utterances("snips", "valid")
    assert (u.words, u.labels, u.intents, u.kind) == ([["play", "jazz"], ["wake", "me"]], [["O", "B-genre"], ["O", "O"]], ["Play", "Alarm"], ["", ""])
    assert len(data.utterances("snips")) == 2 and len(server.asked) == 9


@pytest.mark.parametrize("changed", [{"words": b"play jazz\nwake\n"}, {"labels": b"O B-genre\nO o\n"}, {"intents": b"Play\nAla rm\n"},
                                     {"words": b"play jazz\n\n", "labels": b"O O\n\n"}, {"intents": b"Play\n"}, {"words": b"play jazz\n"}])
@pytest.mark.parametrize("accepted", [True, False])
def test_a_malformed_command_is_named(nowhere, monkeypatch, changed, accepted):
    monkeypatch.setenv("COURSE_DATA", str(nowhere))
    published(monkeypatch, "snips", commands(**changed), nowhere, **({} if accepted else {"checksums": data.SOURCES["snips"].checksums}))
    with pytest.raises(ValueError, match=r"train.seq\.in, line 2: expected as many words"):
        data.utterances("snips")


def article(start):
    asked = {"id": "q1", "question": "Who?", "answers": [{"text": "Ann", "answer_start": start}]}
    return {"title": "A", "paragraphs": [{"context": "It was Ann.", "qas": [asked, asked]}, {"context": "None.", "qas": []}]}


def test_questions_come_with_their_answers(nowhere, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(nowhere))
    published(monkeypatch, "squad-dev", {"dev-v1.1.json": json.dumps({"data": [article(7), article(7)]}).encode()}, nowhere)
    q = data.squad("dev")
    assert (len(q), len(q.contexts), q.where) == (4, 4, [0, 0, 2, 2])
    assert q.answers[3] == [("Ann", 7)] and q.contexts[q.where[3]][7:10] == "Ann" and q.questions[0] == "Who?"
    assert len(data.squad()) == 2, "the first article of the whole set"
    published(monkeypatch, "squad-article", {"dev-v1.1-super-bowl-50.json": json.dumps({"data": [article(7)] * 3}).encode()}, nowhere)
    assert len(data.squad("article")) == 2, "and of the file that holds it alone"


def test_an_answer_that_is_elsewhere_is_named(nowhere, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(nowhere))
    for sums in ({}, {"checksums": data.SOURCES["squad-dev"].checksums}):
        published(monkeypatch, "squad-dev", {"dev-v1.1.json": json.dumps({"data": [article(8)]}).encode()}, nowhere, **sums)
        with pytest.raises(ValueError, match="question q1: the answer 'Ann' does not stand at offset 8"):
            data.squad()
    (nowhere / "squad/dev-v1.1.json").write_bytes(b"<html>")
    with pytest.raises(data.DataError, match="not the published dev-v1.1.json"):
        data.squad()


TAXI = b"timestamp,value\n2014-07-01 00:00:00,5\n2014-07-01 00:30:00,6.5\n2014-07-01 00:10:00,7\n2014-07-01 01:00:00,8\n"
WINDOWS = json.dumps({"realKnownCause/nyc_taxi.csv": [["2014-07-01 00:05:00.000000", "2014-07-01 00:40:00.000000"]]}).encode()


def test_series_keep_their_rows_and_windows(server, monkeypatch):
    files = {"nyc_taxi.csv": TAXI, "combined_windows.json": WINDOWS, "machine_temperature_system_failure.csv": TAXI}
    published(monkeypatch, "nab", files, urls=(server.root + "/nab/",))
    server.pages |= {"/nab/data/realKnownCause/nyc_taxi.csv": (200, TAXI, None), "/nab/labels/combined_windows.json": (200, WINDOWS, None),
                     "/nab/data/realKnownCause/machine_temperature_system_failure.csv": (200, TAXI, None)}
    s = data.nab("nyc_taxi")
    assert s.time.tolist() == [1404172800 + k for k in (0, 1800, 600, 3600)] and s.time.dtype == torch.int64
    assert s.value.tolist() == [5, 6.5, 7, 8] and s.value.dtype == torch.float64 and s.windows == [(1, 2)] and len(s) == 4


@pytest.mark.parametrize("row", [b"2014-07-01 00:30:00", b"noon,5", b"2014-07-01 00:30:00,five", b""])
def test_a_malformed_row_of_a_series_is_named(nowhere, monkeypatch, row):
    monkeypatch.setenv("COURSE_DATA", str(nowhere))
    (nowhere / "nab").mkdir()
    (nowhere / "nab/nyc_taxi.csv").write_bytes(b"timestamp,value\n2014-07-01 00:00:00,5\n" + row + b"\n2014-07-01 01:00:00,5\n")
    with pytest.raises(ValueError, match=r"nyc_taxi\.csv, line 3: expected a time like"):
        data.nab("nyc_taxi")


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


@real
def test_the_real_spoken_digits():
    s = data.sounds("fsdd")
    assert len(s) == 3000 and len(set(s.speaker)) == 6 and all(s.text.count(word) == 300 for word in set(s.text))
    assert s.take.count(0) == s.take.count(49) == 60
    peaks = torch.tensor([x.abs().max() for x in s.sound])
    assert peaks.min() < 0.02 and peaks.max() == 1
    assert all(x.ndim == 1 and x.dtype == torch.float32 and x.isfinite().all() for x in s.sound)


@real
def test_the_real_commands():
    splits = {split: data.utterances("snips", split) for split in ("train", "valid", "test")}
    assert [len(u) for u in splits.values()] == [13084, 700, 700]
    everything = [*zip(*(sum((getattr(u, f) for u in splits.values()), []) for f in ("words", "labels", "intents")))]
    assert len({y for _, labels, _ in everything for y in labels}) == 72 and len({intent for *_, intent in everything}) == 7
    assert len({w for words in splits["train"].words for w in words}) == 11_418


@real
def test_the_real_questions():
    q = data.squad()
    assert (len(q), len(q.contexts)) == (810, 54) and all(q.answers)
    assert q.questions[0] == "Which NFL team represented the AFC at Super Bowl 50?" and q.answers[0][0] == ("Denver Broncos", 177)


@real
def test_the_real_series():
    taxi, machine = data.nab("nyc_taxi"), data.nab("machine_temperature_system_failure")
    assert (len(taxi), len(machine)) == (10_320, 22_695) and (len(taxi.windows), len(machine.windows)) == (5, 4)
    assert set(taxi.time.diff().tolist()) == {1800} and (machine.time.diff() < 0).sum() == 1 and machine.time.diff().min() == -55 * 60
    assert all(0 <= a < b < len(s) for s in (taxi, machine) for a, b in s.windows)
