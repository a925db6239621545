"""A person's whole path through the page of `zoo serve`, in a headless Chromium: drop, read, correct, take along."""

import base64
import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("nicegui", reason="needs the extra demo: pip install 'bottleneck-zoo[demo]'")
pytest.importorskip("selenium", reason="needs selenium, of the extra test")

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.zoo.conftest import digit_files, train, trained_run  # noqa: F401
from zoo.cli import main
from zoo.data.concept_tables import FILE_KEYS, read_table

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (Debian: chromium-driver)"),
]
PATIENCE = 60
SPY = """
import os, socket

real = socket.socket.connect
def connect(self, address):
    local = self.family == socket.AF_UNIX or str(address[0]).startswith(("127.", "::1", "localhost"))
    if not local:
        with open(os.environ["SPY_FILE"], "a") as file:
            file.write(f"{address}\\n")
    return real(self, address)
socket.socket.connect = connect
"""
"""As sitecustomize of the server's process: notes every connection that leaves this computer."""


@pytest.fixture
def server(trained_run, tmp_path):  # noqa: F811
    """The page's address, its process, and the file that names connections to other computers."""
    with _serving(trained_run, tmp_path) as found:
        yield found


@contextmanager
def _serving(run: Path, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen, Path]]:
    (tmp_path / "spy").mkdir()
    (tmp_path / "spy" / "sitecustomize.py").write_text(SPY)
    seen = tmp_path / "connections.txt"
    seen.touch()
    path = os.pathsep.join([str(tmp_path / "spy"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = os.environ | {"PYTHONPATH": path, "SPY_FILE": str(seen), "PYTHONUNBUFFERED": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-m", "zoo", "serve", str(run), "--no-browser"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert address, line + process.communicate(timeout=PATIENCE)[0]
        yield address[0], process, seen
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def browser(tmp_path):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1400,1300"):
        options.add_argument(f"--{word}")
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "downloads")})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


class Person:
    """What somebody does with the page."""

    def __init__(self, driver):
        self.driver = driver

    def find(self, selector: str):
        return self.until(lambda: self.driver.find_elements(By.CSS_SELECTOR, selector))[0]

    def reads(self, name: str) -> str:
        return self.find(f'[data-test="{name}"]').text

    def until(self, condition):
        """What the condition returns, once that is true."""
        return WebDriverWait(self.driver, PATIENCE, poll_frequency=0.1).until(lambda _: condition())

    def until_reads(self, name: str, text: str) -> None:
        self.until(lambda: text in self.reads(name))

    def drop(self, file: Path) -> None:
        """Drag a file onto the page."""
        script = """
            const bytes = Uint8Array.from(atob(arguments[1]), (c) => c.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], arguments[2], {type: "image/png"}));
            const drop = new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
            arguments[0].dispatchEvent(drop);
        """
        zone, content = self.find('[data-test="drop"]'), base64.b64encode(file.read_bytes()).decode()
        self.driver.execute_script(script, zone, content, file.name)

    def says(self, concept: str, word: str) -> None:
        self.find(f'[data-concept="{concept}"] .{word}').click()

    def drags(self, concept: str, pixels: int) -> None:
        thumb = self.find(f'[data-concept="{concept}"] .q-slider__thumb')
        ActionChains(self.driver).click_and_hold(thumb).move_by_offset(pixels, 0).release().perform()


def test_drop_correct_and_take_along(server, browser, digit_files, trained_run, tmp_path):  # noqa: F811
    address, process, connections = server
    browser.get(address)
    person = Person(browser)

    note = tmp_path / "note.png"
    note.write_text("no picture")
    person.drop(note)
    person.until_reads("problem", "note.png is not a picture")

    person.drop(digit_files / "8.png")
    person.until_reads("prediction", "8")
    assert person.reads("problem") == ""
    loop = person.find('[data-concept="upper_loop"]')
    assert float(loop.find_element(By.CSS_SELECTOR, '[data-test="contribution"]').text) > 0
    assert int(loop.find_element(By.CSS_SELECTOR, '[data-test="seen"]').text.strip("<>%")) > 50

    person.says("upper_stem", "present")
    person.says("lower_stem", "present")
    person.until_reads("prediction", "1")
    person.until_reads("before", "before your corrections: 8")
    person.find('[data-test="reset"]').click()
    person.until_reads("prediction", "8")
    person.until(lambda: not person.driver.find_elements(By.CSS_SELECTOR, ".concept.corrected"))

    person.drags("top_bar", 60)
    person.until(lambda: person.driver.find_elements(By.CSS_SELECTOR, '.corrected[data-concept="top_bar"]'))
    person.says("lower_open_left", "present")
    person.until_reads("prediction", "9")

    person.find(".label input").send_keys("9")
    person.find(".q-menu .q-item").click()
    person.until_reads("summary", "1 of 1 pictures")

    browser.refresh()
    person.until_reads("prediction", "9")
    person.until_reads("summary", "1 of 1 pictures")
    assert not person.find('[data-test="sent"]').is_displayed()
    person.find('[data-test="download"]').click()
    table = tmp_path / "downloads" / "corrections.csv"
    person.until(table.exists)
    _check(table)

    loaded = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    assert all(url.startswith((address, "data:", "blob:")) for url in browser.execute_script(loaded))
    _ends_on_interrupt(process)
    assert connections.read_text() == ""
    assert not (tmp_path / ".nicegui").exists()


def test_what_left_the_device_stands_on_the_page(browser, digit_files, tmp_path, capsys):  # noqa: F811
    run = train(tmp_path / "runs", "model=concept_split", "trainer.max_epochs=1", "backbone.widths=[16,32]")
    capsys.readouterr()
    assert main(["explain", str(run), str(digit_files / "8.png"), "--out", str(tmp_path / "why.png")]) == 0
    *_, size, levels, _, _ = capsys.readouterr().out.splitlines()
    with _serving(run, tmp_path) as (address, _process, _connections):
        browser.get(address)
        person = Person(browser)

        def chips() -> list[str]:
            return [chip.text for chip in browser.find_elements(By.CSS_SELECTOR, ".chip")]

        person.until(lambda: "step" in person.find(".steps").get_attribute("class"))
        assert not person.find('[data-test="sent"]').is_displayed()
        person.drop(digit_files / "8.png")
        person.until(lambda: person.find('[data-test="sent"]').is_displayed())
        assert f"left the device: {person.reads('sent')}" == size
        assert f"  as levels: {', '.join(chips())}" == levels.replace("_", " ")
        person.says("upper_stem", "present")
        person.until(lambda: person.driver.find_elements(By.CSS_SELECTOR, ".concept.corrected"))
        assert f"  as levels: {', '.join(chips())}" == levels.replace("_", " ")


def _check(table: Path) -> None:
    read = read_table(table, keys=FILE_KEYS)
    assert read.problems == []
    with table.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["file"] == "9/8.png"
    assert (row["lower_open_left"], row["lower_loop"]) == ("1", "0")
    assert 0.1 < float(row["top_bar"]) < 1


def _ends_on_interrupt(process: subprocess.Popen) -> None:
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, rest.splitlines()) == (0, ["stopped"])
    assert time.monotonic() - begin < 20
