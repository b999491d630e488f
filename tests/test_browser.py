"""One reader's minute: JupyterLab in headless Chromium opens notebook 43, runs it, drags every slider, breaks a function."""

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.book import ROOT

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--no-first-run"]


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab server over a copy of a notebook somewhere below the course (not in the reader's work/); yields its address."""
    desk = ROOT / "build" / f"browser-test-{secrets.token_hex(4)}"
    desk.mkdir(parents=True)
    shutil.copy(ROOT / "notebooks/43_latent_factors.ipynb", desk)
    settings = tmp_path / "settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"windowingMode": "none"}', encoding="utf-8")        # every cell is in the page, not only those in sight
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(8)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}",
               f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={desk}", "--LabApp.extension_manager=readonly",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=none"]
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
                                "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"), "OMP_NUM_THREADS": "1"}
    log = open(tmp_path / "lab.log", "w", encoding="utf-8")
    server = subprocess.Popen(command, cwd=desk, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api?token={token}", timeout=2)
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "lab.log").read_text(encoding="utf-8")[-2000:]
                time.sleep(0.5)
        yield f"{address}/lab/tree/43_latent_factors.ipynb?token={token}&reset"
    finally:
        server.terminate()
        server.wait(timeout=30)
        log.close()
        shutil.rmtree(desk)


def test_a_reader_runs_all_cells_drags_the_sliders_and_breaks_a_function(lab):
    if CHROMIUM is None:
        assert not os.environ.get("CI"), "CI must have Chromium for this test"
        pytest.skip("no Chromium on this machine (Debian, Ubuntu: apt install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 1100})
        page.goto(lab)
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
        page.wait_for_selector("mjx-container:visible", timeout=60_000)        # the first ones are folded away
        assert "Latent factors" in page.inner_text(".jp-Notebook")
        page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=60_000)

        page.click('.lm-MenuBar-itemLabel:text-is("Run")')
        page.click('.lm-Menu-itemLabel:text-is("Run All Cells")')
        run_to_the_end(page)
        assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
        assert page.locator(".jp-OutputArea-output .ansi-red-fg").count() == 0, "a cell stopped with an error"
        assert page.locator("mjx-merror").count() == 0, "a formula that MathJax cannot read"

        every_slider_can_be_dragged(page)
        a_function_is_broken_and_mended(page)
        shots = os.environ.get("COURSE_SCREENSHOTS")
        if shots:
            page.screenshot(path=f"{shots}/broken.png")
        browser.close()


def run_to_the_end(page, seconds=240):
    """Wait until every code cell has been executed, in order."""
    deadline = time.time() + seconds
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="busy"]', timeout=30_000)
    while time.time() < deadline:
        status = page.get_attribute(".jp-Notebook-ExecutionIndicator", "data-status")
        numbers = re.findall(r"\[(\d+)\]", " ".join(page.locator(".jp-InputPrompt").all_inner_texts()))
        pending = page.locator('.jp-InputPrompt:has-text("[*]")').count()
        if status == "idle" and numbers and not pending:
            counts = [int(n) for n in numbers]                  # folded cells show no number
            assert counts == sorted(counts) and counts[-1] == page.locator(".jp-CodeCell").count(), "Run All stopped on the way"
            return
        time.sleep(0.5)
    raise AssertionError(f"not finished after {seconds} s")


def every_slider_can_be_dragged(page):
    """With the mouse: a track of some width, a handle that follows, a readout that changes, a figure that is drawn anew."""
    sliders = page.locator(".widget-hslider")
    assert sliders.count() >= 6
    for k in range(sliders.count()):
        slider = sliders.nth(k)
        slider.scroll_into_view_if_needed()
        track, before = slider.locator(".noUi-target").bounding_box(), slider.locator(".widget-readout").inner_text()
        name = slider.locator(".widget-label").inner_text()
        assert track["width"] > 100, f"the track of {name!r} is {track['width']:.0f} px wide"
        handle = slider.locator(".noUi-handle").bounding_box()
        start = handle["x"] + handle["width"] / 2
        end = track["x"] + track["width"] * (0.1 if start > track["x"] + track["width"] / 2 else 0.9)
        height = track["y"] + track["height"] / 2
        page.mouse.move(start, handle["y"] + handle["height"] / 2)
        page.mouse.down()
        page.mouse.move(end, height, steps=2)                # every step queues a redraw in the kernel
        page.mouse.up()
        page.wait_for_timeout(300)
        assert slider.locator(".widget-readout").inner_text() != before, f"dragging {name!r} changes nothing"
    widget = page.locator(".widget-interact").first
    image = widget.locator("img").first.get_attribute("src")
    widget.locator(".noUi-handle").first.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("([w, old]) => w.querySelector('img') && w.querySelector('img').src !== old",
                           arg=[widget.element_handle(), image], timeout=20_000)


def a_function_is_broken_and_mended(page):
    """break_it: the penalty of the closed form is divided instead of multiplied; checks turn red; mended, they are green."""
    which, what = (page.locator(".widget-dropdown select").nth(k) for k in (0, 1))
    which.scroll_into_view_if_needed()
    which.select_option(label="solve_user")
    changes = "Array.from(document.querySelectorAll('.widget-dropdown select')[1].options).map(o => o.text.replace(/\\u00a0/g, ' '))"
    wanted = f"{changes}.findIndex(o => o.includes('* → /') && o.includes('lam * torch.eye'))"    # ipywidgets shows spaces as no-break ones
    page.wait_for_function(f"() => {wanted} >= 0", timeout=300_000)                             # the queue of redraws comes first
    what.select_option(index=page.evaluate(wanted))
    page.click('button:text-is("break")')
    page.wait_for_selector("text=/\\d+ of \\d+ checks noticed/", timeout=300_000)
    assert "✗ (43.5)" in page.locator(".widget-html-content").last.inner_text()
    page.click('button:text-is("mend")')
    page.wait_for_selector("text=Mended.", timeout=300_000)
    said = page.locator(".widget-html-content").last.inner_text()
    assert "✓ (43.5)" in said and "✗" not in said
