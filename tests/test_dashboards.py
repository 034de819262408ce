"""TensorBoard of a run and of a sweep: the answers of its server, and the page in a browser."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pytest
from support import ROOT, SMALL
from tornado.websocket import WebSocketClientConnection, websocket_connect  # of jupyter_client, which nbclient needs

from segsweep.callbacks.tensorboard import scalar_tag
from segsweep.runs import read_metrics

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 60
"""Longest wait for anything."""

SIZE, SAMPLES, VALIDATIONS = 32, 2, 4
RATES, OPTIMIZERS = ("0.001", "0.01"), ("sgd", "adam")
JOBS = {f"lr={rate},optim={optimizer}": (rate, optimizer) for rate in RATES for optimizer in OPTIMIZERS}
CURVES = ["precision_recall/1: val", "precision_recall/2: test"]

Found = TypeVar("Found")
Ask = Callable[..., Any]

pytestmark = pytest.mark.slow
drawn = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")


def eventually(what: str, look: Callable[[], Found | None]) -> Found:
    """Calls `look` until its result is true, and returns that."""
    deadline = time.monotonic() + SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what}: not within {SECONDS} s"
        time.sleep(0.2)
    return found


def fetch(url: str) -> Any:
    without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with without_proxy.open(url, timeout=SECONDS) as response:
        return json.load(response)


@contextlib.contextmanager
def started(command: list[str], folder: Path, temporary: str) -> Iterator[Path]:
    """Runs a program and yields the file with its output; at the end kills it and its subprocesses."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {name: str(folder) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    environment |= {"TMPDIR": temporary}
    said = folder / "said.txt"
    with said.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield said
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def tensorboard(logdir: Path, folder: Path) -> Iterator[str]:
    """The address of a TensorBoard server of `logdir`."""
    command = [sys.executable, "-m", "tensorboard.main", "--host", "127.0.0.1", "--port", "0", "--logdir", str(logdir)]
    with started(command, folder, str(folder)) as said:
        address = eventually("TensorBoard's address", lambda: re.search(r"http://\S+?:\d+/", said.read_text()))
        yield address[0]


# ---- a browser

# Everything in the page, shadow roots included: texts in order, sizes of pictures, maxima of sliders, curves.
LOOK = """(() => {
  const page = {texts: [], pictures: [], sliders: [], curves: 0};
  const walk = node => {
    for (const child of node.childNodes) {
      if (child.nodeType === Node.TEXT_NODE && child.textContent.trim()) page.texts.push(child.textContent.trim());
      if (child.nodeType !== Node.ELEMENT_NODE || /^(STYLE|SCRIPT|TEMPLATE)$/i.test(child.tagName)) continue;
      if (!child.checkVisibility()) continue;
      if (child.tagName === "IMG") page.pictures.push([child.naturalWidth, child.naturalHeight]);
      if (child.tagName === "PAPER-SLIDER" && child.max !== undefined) page.sliders.push(child.max);
      if (child.tagName === "path" && child.classList.contains("line")) page.curves += 1;
      walk(child);
    }
    if (node.shadowRoot) walk(node.shadowRoot);
  };
  if (document.body) walk(document.body);
  return page;
})()"""

Page = dict[str, Any]


class Browser:
    """A page of Chromium, controlled by its DevTools protocol, without access to other machines."""

    def __init__(self, said: Path, profile: Path) -> None:
        port = eventually(f"Chromium's port, see {said}", lambda: self._port(profile)).strip()
        page = eventually("a page", lambda: self._page(f"http://127.0.0.1:{port}/json/list"))
        self._runner = asyncio.Runner()
        self._socket = self._run(self._connect(page))
        self._calls = 0

    @staticmethod
    def _port(profile: Path) -> str | None:
        file = profile / "DevToolsActivePort"
        return file.read_text().partition("\n")[0] if file.exists() else None

    @staticmethod
    def _page(address: str) -> str | None:
        return next((page["webSocketDebuggerUrl"] for page in fetch(address) if page["type"] == "page"), None)

    @staticmethod
    async def _connect(address: str) -> WebSocketClientConnection:
        return await websocket_connect(address, max_message_size=1 << 28)

    def _run(self, what: Any) -> Any:
        async def in_time() -> Any:
            return await asyncio.wait_for(what, SECONDS)

        return self._runner.run(in_time())

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._calls += 1
        number = self._calls

        async def answer() -> dict[str, Any]:
            await self._socket.write_message(json.dumps({"id": number, "method": method, "params": parameters}))
            while True:
                message = await self._socket.read_message()
                assert message is not None, "Chromium has ended"
                if (content := json.loads(message)).get("id") == number:
                    return content

        content = self._run(answer())
        assert "error" not in content, content
        return content["result"]

    def look(self) -> Page:
        result = self.call("Runtime.evaluate", expression=LOOK, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"]["value"]

    def open(self, address: str) -> None:
        # Changing only the part after the # would not reload the page.
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)

    def shows(self, what: str, check: Callable[[Page], Any]) -> Page:
        """Waits until the page passes `check`, and returns it."""
        seen: Page = {}

        def look() -> bool:
            seen.update(self.look())
            return bool(check(seen))

        try:
            eventually(what, look)
        except AssertionError as error:
            raise AssertionError(f"{error}; the page is {seen}") from None
        return seen

    def close(self) -> None:
        self._socket.close()
        self._runner.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("browser")
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--no-proxy-server", f"--user-data-dir={folder / 'profile'}", "--remote-debugging-port=0",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--window-size=1400,1000", "about:blank",
    ]  # fmt: skip
    with (
        # Chromium's socket in this folder needs a short path; pytest's folders have long ones.
        tempfile.TemporaryDirectory() as temporary,
        started(command, folder, temporary) as said,
        contextlib.closing(Browser(said, folder / "profile")) as found,
    ):
        yield found


# ---- a run and a sweep


def train(folder: Path, *arguments: str) -> None:
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    settings = [entry for entry in SMALL if entry != "callbacks.graph=null"]
    settings += [f"data.image_size={SIZE}", f"callbacks.panel.samples={SAMPLES}", "trainer.max_steps=8"]
    train(folder, *settings, "data.limit_samples=5", "hydra.run.dir=run")
    return folder / "run"


@pytest.fixture(scope="module")
def run_server(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that has read the whole run: a page that is loaded earlier stays empty."""
    with tensorboard(run / "tensorboard", tmp_path_factory.mktemp("run_server")) as address:
        # A training writes these last.
        eventually(
            "the test's scalars", lambda: "3: test/loss" in fetch(address + "data/plugin/scalars/tags").get(".", {})
        )
        yield address


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    axes = [f"lr={','.join(RATES)}", f"optim={','.join(OPTIMIZERS)}"]
    train(folder, "-m", *SMALL, "callbacks.panel=null", *axes, "name=drawn")
    return folder / "multirun/drawn"


@pytest.fixture(scope="module")
def sweep_server(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tensorboard(sweep, tmp_path_factory.mktemp("sweep_server")) as address:

        def all_read() -> bool:
            asked = json.dumps({"allowedStatuses": ["STATUS_SUCCESS"], "sliceSize": 100})
            groups = fetch(f"{address}data/plugin/hparams/session_groups?request={urllib.parse.quote(asked)}")
            found = groups.get("sessionGroups", [])
            return len(found) == len(JOBS) and all(group.get("metricValues") for group in found)

        eventually("all rows of HPARAMS", all_read)
        yield address


# ---- the pages


def follows(texts: list[str], *expected: str) -> bool:
    """Whether these texts follow each other in the page."""
    return any(tuple(texts[start : start + len(expected)]) == expected for start in range(len(texts)))


def test_the_logged_metrics_are_points_of_the_server_s_curves(run: Path, run_server: str):
    """At threshold 0.5, precision and recall equal the logged metrics."""
    assert sorted(fetch(run_server + "data/plugin/pr_curves/tags")["."]) == CURVES
    metrics = read_metrics(run / "metrics.csv")
    for tag, split, number in zip(CURVES, ("val", "test"), (VALIDATIONS, 1), strict=True):
        asked = urllib.parse.urlencode({"run": ".", "tag": tag})
        entries = fetch(f"{run_server}data/plugin/pr_curves/pr_curves?{asked}")["."]
        logged = metrics.dropna(subset=[f"{split}/precision"])
        assert len(entries) == len(logged) == number
        for entry, (_, row) in zip(entries, logged.iterrows(), strict=True):
            middle = entry["thresholds"].index(0.5)
            assert entry["step"] == row["step"]
            assert entry["precision"][middle] == pytest.approx(row[f"{split}/precision"], abs=1e-6)
            assert entry["recall"][middle] == pytest.approx(row[f"{split}/recall"], abs=1e-6)
            counts = [entry[f"{name}s"][middle] for name in ("true_positive", "false_negative", "true_negative")]
            pixels = sum(counts) + entry["false_positives"][middle]
            assert pixels == 5 * SIZE**2
            assert (counts[0] + counts[2]) / pixels == pytest.approx(row[f"{split}/accuracy"], abs=1e-6)


@drawn
@pytest.mark.parametrize(("tab", "counted"), [("timeseries", "{} cards"), ("scalars", "{}")])
def test_scalars_are_grouped_by_split(run: Path, run_server: str, browser: Browser, tab: str, counted: str):
    columns = read_metrics(run / "metrics.csv").columns
    # TensorBoard shows the learning rate and the speed in the group train.
    groups = Counter(scalar_tag(name).partition("/")[0] for name in columns.drop(["step", "epoch"]))
    assert sorted(groups) == ["1: train", "2: val", "3: test"]
    browser.open(f"{run_server}#{tab}")
    browser.shows(
        f"groups {dict(groups)}",
        lambda page: all(follows(page["texts"], name, counted.format(number)) for name, number in groups.items()),
    )


@drawn
def test_images_are_a_panel_of_each_sample_with_a_step_for_each_validation(run_server: str, browser: Browser):
    tags = [f"samples/{number}: image, mask, prediction, error, overlay" for number in range(SAMPLES)]
    browser.open(f"{run_server}#images")
    width = 5 * SIZE + 4 * 2  # a panel is five pictures, with gaps of 2 pixels
    browser.shows(
        "a panel of each sample, and a slider over the validations",
        lambda page: (
            [text for text in page["texts"] if text in tags][::2] == tags  # as title and as tag
            and page["pictures"] == [[width, SIZE]] * SAMPLES
            and page["sliders"].count(VALIDATIONS - 1) == SAMPLES  # the others are of brightness and contrast
        ),
    )


@drawn
def test_the_graph_is_the_net_between_input_and_output(run_server: str, browser: Browser):
    browser.open(f"{run_server}#graphs")
    browser.shows("the net by its name", lambda page: {"input", "TextureCNN", "output"} <= set(page["texts"]))


@drawn
def test_precision_recall_curves_are_drawn_with_a_step_for_each_validation(run_server: str, browser: Browser):
    browser.open(f"{run_server}#pr_curves")
    page = browser.shows(
        "two curves, and a slider",
        lambda page: page["curves"] == 2 and set(CURVES) <= set(page["texts"]) and page["sliders"],
    )
    assert page["sliders"] == [VALIDATIONS - 1]


@drawn
def test_hparams_has_a_row_for_each_job_with_its_settings_and_result(sweep: Path, sweep_server: str, browser: Browser):
    browser.open(f"{sweep_server}#hparams")
    page = browser.shows("a row for each job", lambda page: set(JOBS) <= set(page["texts"]))
    texts = page["texts"][page["texts"].index("Trial ID") :]
    assert texts[2:5] == ["lr", "optim", "val/iou"]
    summary = pd.read_csv(sweep / "summary.csv").set_index("directory")
    for job, (rate, optimizer) in JOBS.items():
        lr, optim, iou = texts[texts.index(job) + 1 :][:3]
        assert (float(lr), optim) == (float(rate), optimizer)
        assert float(iou) == pytest.approx(summary["val/iou"][job], abs=1e-4)


@drawn
@pytest.mark.parametrize("tab", ["timeseries", "pr_curves"])
def test_runs_are_named_by_their_swept_settings(sweep_server: str, browser: Browser, tab: str):
    browser.open(f"{sweep_server}#{tab}")
    browser.shows("all jobs", lambda page: {f"{job}/tensorboard" for job in JOBS} <= set(page["texts"]))
