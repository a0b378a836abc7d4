"""The page of a bundle: what it shows, to whom, and what it leaves behind."""

import asyncio
import http.client
import json
import pickle
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from browsing import Page as ReadPage
from bundles import make_images, write_bundle, write_images
from hostile import Payload

from cxrlit import Predictor
from cxrlit.handoff.backends import BackendName
from cxrlit.handoff.predictor import Prediction

pytest.importorskip("gradio")
pytest.importorskip("playwright")

from browsing import CHROMIUM
from demos import Served, open_browser, read_table, serve, upload, visit
from dicoms import SECRET, make_dicom
from playwright.sync_api import Browser, Page, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from cxrlit.handoff.demo import gate
from cxrlit.handoff.demo import uploads as uploads_module
from cxrlit.handoff.demo.card_text import SECTIONS, read_sections
from cxrlit.handoff.demo.examples import draw_examples
from cxrlit.handoff.demo.page import build_page
from cxrlit.handoff.demo.views import say_findings, say_refusal, show_findings, show_picture

in_a_browser = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]
CARD = (
    b"# A model\n\n## Limits\n\n- Only `adults` &lt;18 it never saw.\n\nIt is coarse.\n\n## Training\n\n- No limit.\n"
)
PICTURE, SAID = ".picture img", "#said[role=status]"
HOSTS = (
    *(b"evil.example", b"localhost.evil", b"a@localhost", b"localhost, localhost", b"127.1", b"\xb9\xb2\xb7.0.0.1"),
    *(b"", b"[", b"]", b"[::1]:7860", b"localhost:", b"localhost:99a", b"localhost:1:2", b"localhost:\xb2"),
    b"localhost/",
)
ORIGINS = (
    *(b"https://evil.example", b"https://127.0.0.1:7860", b"http://127.0.0.1", b"http://127.0.0.1:7861"),
    *(b"", b"null", b"[", b"http://[", b"http://\xb9"),
)
EXAMPLES = {"healthy.png", "Cardiomegaly.png", "Effusion.png", "Pneumothorax.png"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("demo") / "bundle", card=CARD)


@pytest.fixture(scope="module")
def served(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(bundle, tmp_path_factory.mktemp("served"), "--threads", "1") as page:
        yield page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as one:
        yield one


@pytest.fixture
def person(browser: Browser, served: Served) -> Iterator[Page]:
    with visit(browser, served) as page:
        yield page


@cache
def load(bundle: Path, backend: BackendName) -> Predictor:
    return Predictor.load(bundle, backend, n_threads=1)


def expect_table(bundle: Path, path: Path, backend: BackendName = "torch") -> dict[str, list[str]]:
    """What the page's table is to say of a file."""
    predictor = load(bundle, backend)
    one = predictor.predict(path, batch_size=1)[0]
    verdicts = {True: "present", False: "below threshold", None: "no threshold"}
    return {
        label: [
            f"{one.probs[label]:.3f}",
            f"{one.calibrated[label]:.3f}",
            "–" if predictor.thresholds[label] is None else f"{predictor.thresholds[label]:.3f}",
            verdicts[one.preds[label]],
        ]
        for label in predictor.labels
    }


class TestInABrowser:
    pytestmark = in_a_browser

    def test_an_image_gets_its_picture_bars_and_numbers(
        self, person: Page, served: Served, bundle: Path, tmp_path: Path
    ) -> None:
        path = write_images(tmp_path, 1)[0]
        upload(person, path)
        assert read_table(person) == (table := expect_table(bundle, path))
        bars = [text.split("\n") for text in person.locator(".bars li").all_inner_texts()]
        assert bars == [[label, f"{cells[1]}, {cells[3]}"] for label, cells in table.items()]
        expect(person.get_by_role("img", name="The radiograph", exact=True)).to_be_visible()
        assert person.get_by_text("Research use only: not a medical device.").is_visible()
        assert person.get_by_text("Only adults <18 it never saw.").is_visible()
        assert person.get_by_text("No person may be diagnosed").is_visible()
        assert served.list_files() == EXAMPLES

    def test_onnx_runtime_computes_it_too(self, browser: Browser, bundle: Path, tmp_path: Path) -> None:
        path = write_images(tmp_path / "images", 1)[0]
        (tmp_path / "served").mkdir()
        with (
            serve(bundle, tmp_path / "served", "--backend", "onnx", "--threads", "1") as page,
            visit(browser, page) as person,
        ):
            upload(person, path)
            assert read_table(person) == expect_table(bundle, path, "onnx")
            person.get_by_label("Nodule").check()
            expect(person.get_by_role("img", name="heatmap of Nodule")).to_be_visible()

    def test_the_keyboard_alone_shows_where(self, person: Page) -> None:
        person.keyboard.press("Tab")
        assert person.evaluate("document.activeElement.ariaLabel") == "Click to upload or drop files"
        for _ in range(2):
            person.keyboard.press("Tab")
        assert person.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        person.keyboard.press("Enter")
        expect(person.locator(SAID)).to_contain_text("Drawn with cardiomegaly")
        plain = person.locator(PICTURE).get_attribute("src")
        for _ in range(3):
            person.keyboard.press("Tab")
        assert person.evaluate("document.activeElement.value") == "Nowhere"
        person.keyboard.press("ArrowRight")
        expect(person.get_by_role("img", name="heatmap of Atelectasis")).to_be_visible()
        assert person.locator(PICTURE).get_attribute("src") != plain
        person.keyboard.press("ArrowRight")
        expect(person.get_by_role("img", name="heatmap of Cardiomegaly")).to_be_visible()
        for _ in range(2):
            person.keyboard.press("ArrowLeft")
        expect(person.get_by_role("img", name="The radiograph", exact=True)).to_be_visible()
        assert person.locator(PICTURE).get_attribute("src") == plain

    def test_what_is_not_seen_is_read_out(self, person: Page, tmp_path: Path) -> None:
        assert person.locator("html").get_attribute("lang") == "en"
        assert person.locator(SAID).inner_text().startswith("Choose a radiograph")
        upload(person, write_images(tmp_path, 1)[0])
        assert "000.png" in person.locator(SAID).inner_text()
        assert person.get_by_role("radiogroup", name="Show where").get_by_role("radio").count() == 9
        person.locator("#findings summary").press("Enter")
        assert person.get_by_role("columnheader").all_inner_texts()[0] == "Finding"
        assert person.get_by_role("rowheader").count() == 8

    def test_a_dicom_file_shows_its_pixels_and_none_of_its_tags(
        self, person: Page, served: Served, bundle: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "IM0001"
        path.write_bytes(make_dicom(np.uint16(16) * make_images(1, 40)[0]))
        upload(person, path)
        assert read_table(person) == expect_table(bundle, path)
        assert SECRET not in person.content()
        assert served.list_files() == EXAMPLES

    def test_what_is_no_radiograph_is_warned_of_and_a_name_is_text(self, person: Page, tmp_path: Path) -> None:
        path = tmp_path / "<img src=x onerror=alert(1)>.png"
        write_gray(path, make_images(1, 90)[0][:20])
        upload(person, path)
        expect(person.locator(".warnings li").first).to_have_text("its aspect is 4.50, not 0.5 to 2.0")
        assert "This may be no radiograph" in person.locator(SAID).inner_text()
        assert person.locator("#said img").count() == 0

    def test_a_bad_file_gets_its_reason_and_nothing_of_another_stays(
        self, person: Page, served: Served, tmp_path: Path
    ) -> None:
        good = write_images(tmp_path, 1)[0]
        canary = tmp_path / "canary"
        upload(person, good)
        person.get_by_label("Mass").check()
        expect(person.get_by_role("img", name="heatmap of Mass")).to_be_visible()
        for name, content in make_bad(good.read_bytes(), canary).items():
            (tmp_path / name).write_bytes(content)
            upload(person, tmp_path / name)
            assert f"{name}: cannot be used: " in person.locator(SAID).inner_text()
            expect_nothing(person)
        upload(person, good)
        expect(person.get_by_role("img", name="The radiograph", exact=True)).to_be_visible()
        expect(person.get_by_label("Nowhere")).to_be_checked()
        assert not canary.exists()
        assert served.list_files() == EXAMPLES

    def test_a_large_file_is_refused_unread_and_nothing_of_another_stays(
        self, person: Page, served: Served, tmp_path: Path
    ) -> None:
        upload(person, write_images(tmp_path, 1)[0])
        path = tmp_path / "large.dcm"
        with path.open("wb") as file:
            file.truncate(10 * 2**30)
        person.locator("#file input[type=file]").set_input_files(path)
        person.get_by_text("exceed the maximum allowed size").wait_for()
        expect(person.locator(SAID)).to_have_text("There is no result for the new file yet.")
        expect_nothing(person)
        assert served.list_files() == EXAMPLES

    def test_two_people_at_once_get_their_own(
        self, browser: Browser, served: Served, bundle: Path, tmp_path: Path
    ) -> None:
        first, second = write_images(tmp_path, 2)
        second = second.rename(tmp_path / "other.png")
        with visit(browser, served) as one, visit(browser, served) as other:
            for page, path in ((one, first), (other, second)):
                page.locator("#file input[type=file]").set_input_files(path)
            for page, path in ((one, first), (other, second)):
                page.locator("#said b", has_text=path.name).wait_for()
            tables = [read_table(page) for page in (one, other)]
            assert tables == [expect_table(bundle, path) for path in (first, second)]
            assert tables[0] != tables[1]
            pictures = [page.locator(PICTURE).get_attribute("src") for page in (one, other)]
            one.get_by_label("Mass").check()
            one.get_by_role("img", name="heatmap of Mass").wait_for()
            assert other.locator(PICTURE).get_attribute("src") == pictures[1]

    def test_two_people_with_the_same_file_do_not_take_it_from_each_other(
        self, browser: Browser, served: Served, bundle: Path, tmp_path: Path
    ) -> None:
        path = write_images(tmp_path, 1)[0]
        with visit(browser, served) as one, visit(browser, served) as other:
            for page in (one, other):
                page.locator("#file input[type=file]").set_input_files(path)
            for page in (one, other):
                page.locator("#said b", has_text=path.name).wait_for()
                assert read_table(page) == expect_table(bundle, path)

    def test_it_fits_a_phone_by_day_and_by_night(self, browser: Browser, served: Served) -> None:
        size = {"width": 390, "height": 844}
        with visit(browser, served, viewport=size, color_scheme="dark") as page:
            page.get_by_role("button", name="Drawn with effusion").click()
            page.locator("#said", has_text="Drawn with effusion").wait_for()
            page.locator("#findings summary").click()
            assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert max(map(int, ground[4:-1].split(","))) < 60

    def test_nothing_but_the_page_is_served(self, served: Served, bundle: Path) -> None:
        for path in (
            f"/gradio_api/file={bundle}/config.json",
            f"/gradio_api/file={served.folder}/../{served.folder.name}.log",
            "/gradio_api/file=/etc/passwd",
            "/static/../../../../etc/passwd",
            "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
            "/assets/..%2f..%2f..%2fpackage.json",
            "/gradio_api/proxy=https://example.com",
            "/gradio_api/info",
            "/gradio_api/openapi.json",
            "/docs",
            "/openapi.json",
            "/monitoring",
        ):
            connection = http.client.HTTPConnection(urlsplit(served.address).netloc, timeout=30)
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status in {403, 404}, path
            assert b"root:" not in answer.read()
            connection.close()

    def test_what_the_page_does_not_ask_is_a_line(self, served: Served) -> None:
        uploads = next(served.folder.glob("cxrlit-demo-*/uploads"))
        for number in range(8):
            for path in ("/etc/passwd", str(uploads), f"{uploads}/..", ""):
                for label in ("Hernias", "", path):
                    for data in ([{"path": path, "orig_name": "a"}], [None, label], [label]):
                        connection = http.client.HTTPConnection(urlsplit(served.address).netloc, timeout=30)
                        body = json.dumps({"fn_index": number, "session_hash": "a1", "data": data})
                        connection.request("POST", gate.ASK, body, {"Content-Type": "application/json"})
                        answer = connection.getresponse()
                        assert (answer.status, answer.read()) == (400, b"That is no question of this page.")
                        connection.close()
        assert served.list_files() == EXAMPLES

    def test_it_is_served_to_this_machine_alone(self, served: Served) -> None:
        port = urlsplit(served.address).port
        listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        assert {part[1] for part in listening if part[1].endswith(f":{port:04X}") and part[3] == "0A"} == {
            f"0100007F:{port:04X}"
        }

    def test_a_port_that_is_taken_is_a_line(self, served: Served, bundle: Path) -> None:
        outcome = run(bundle, "--port", str(urlsplit(served.address).port))
        assert outcome.returncode == 2
        assert "address already in use: take another, or 0 for any" in outcome.stderr
        assert "Traceback" not in outcome.stderr


def expect_nothing(person: Page) -> None:
    """Nothing that was found in a file is on the page."""
    expect(person.locator("#picture .picture")).to_have_count(0)
    expect(person.locator("#where")).to_be_hidden()
    expect(person.locator("#findings .bars, #findings .warnings, #findings table")).to_have_count(0)


def test_gradio_that_is_not_installed_is_a_line(bundle: Path) -> None:
    outcome = run(bundle, missing="gradio")
    assert outcome.returncode == 2
    assert outcome.stderr.strip() == "error: gradio is not installed: pip install 'cxrlit[demo]'"


@pytest.mark.slow
def test_a_refusal_leaves_nothing_of_another_file(bundle: Path, tmp_path: Path) -> None:
    page = build_page(load(bundle, "torch"), [])
    (take,) = [event.fn for event in page.fns.values() if [block.elem_id for block in event.inputs] == ["file"]]
    (bad := tmp_path / "bad").write_bytes(b"GIF89a")
    for path, reason in ((bad, "cannot be used"), (tmp_path / "gone", "it waited for too long: choose it again")):
        told = {block.elem_id: value for block, value in take({"path": str(path), "orig_name": "a.gif"}).items()}
        assert reason in told.pop("said")
        assert told == {"file": None, None: None, "picture": "", "where": "Nowhere", "findings": ""}
        assert not path.exists()


def run(bundle: Path, *options: str, missing: str = "") -> "subprocess.CompletedProcess[str]":
    """The command, where a package is missing."""
    program = f"import sys; sys.modules[{missing!r}] = None; from cxrlit.commands.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, "demo", str(bundle), *options], capture_output=True, text=True, timeout=120
    )


def write_gray(path: Path, pixels: Any) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path, format="PNG")


def make_bad(good: bytes, canary: Path) -> dict[str, bytes]:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    bomb = chunk(b"IHDR", struct.pack(">IIBBBBB", 200_000, 200_000, 8, 0, 0, 0, 0))
    return {
        "model.pt": pickle.dumps(Payload(canary)),
        "polyglot.png": good[:40] + pickle.dumps(Payload(canary)),
        "bomb.png": good[:8] + bomb + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b""),
        "half.png": good[: len(good) // 2],
        "page.svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "empty.png": b"",
    }


def make_gate(uploads: Path, status: int = 200) -> gate.Gate:
    """A gate before an application that says what it was asked."""

    async def answer(request: Request) -> Response:
        return Response(await request.body() or b"inside", status)

    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
    events = {0: [None], 1: [], 2: [frozenset(), frozenset({"Nowhere", "Mass"})]}
    return gate.Gate(app, uploads_module.Uploads(uploads), events)


def give(client: TestClient) -> str:
    """Upload a file; returns its path."""
    return str(client.post(gate.UPLOAD, files={"files": ("a.png", b"abc")}).json()[0])


def ask_about(path: object) -> dict[str, Any]:
    """What the page asks when a file was uploaded."""
    return {"fn_index": 0, "session_hash": "a1", "data": [{"path": path, "orig_name": "a.png"}]}


async def begin_uploads(app: gate.Gate, n: int) -> list[int]:
    """Begin so many uploads of which nothing comes; returns how those that end were answered."""
    scope: Any = {
        "type": "http",
        "method": "POST",
        "path": gate.UPLOAD,
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=a")],
    }
    codes: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            codes.append(message["status"])

    async def receive() -> Any:
        await asyncio.Event().wait()

    tasks = [asyncio.create_task(app(dict(scope), receive, send)) for _ in range(n)]
    await asyncio.wait(tasks, timeout=0.2)
    for task in tasks:
        task.cancel()
    return codes


class TestGate:
    @pytest.fixture
    def uploads(self, tmp_path: Path) -> Path:
        return tmp_path

    @pytest.fixture
    def client(self, uploads: Path) -> TestClient:
        return TestClient(make_gate(uploads), base_url="http://127.0.0.1:7860")

    def test_only_the_page_is_let_in(self, client: TestClient) -> None:
        assert client.get("/").text == client.get("/assets/index.js").text == "inside"
        for path in ("/gradio_api/file=/etc/passwd", "/gradio_api/proxy=a", "/gradio_api/run/predict", "/monitoring"):
            assert client.get(path).status_code == 404

    @pytest.mark.parametrize(
        ("name", "value"), [*(("host", one) for one in HOSTS), *(("origin", one) for one in ORIGINS)]
    )
    def test_another_site_gets_nothing(self, client: TestClient, name: str, value: bytes, uploads: Path) -> None:
        sent: Any = {name: value}
        assert client.get("/", headers=sent).status_code == 403
        assert client.post(gate.UPLOAD, files={"files": b"a"}, headers=sent).status_code == 403
        assert list(uploads.iterdir()) == []

    @pytest.mark.parametrize("name", ["host", "origin"])
    def test_a_request_of_two_addresses_gets_nothing(self, client: TestClient, name: str) -> None:
        own = {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860"}[name]
        assert client.get("/", headers=[("host", "127.0.0.1:7860"), (name, own), (name, "evil")]).status_code == 403

    def test_a_tunnel_to_another_port_is_the_page(self, client: TestClient) -> None:
        headers = {"host": "localhost:9000", "origin": "http://localhost:9000"}
        assert client.get("/", headers=headers).status_code == 200

    def test_a_browser_asks_nobody_else(self, client: TestClient) -> None:
        policy = client.get("/").headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "http" not in policy

    def test_each_upload_is_a_file_of_its_own(self, client: TestClient, uploads: Path) -> None:
        paths = [Path(client.post(gate.UPLOAD, files={"files": ("../a.png", b"abc")}).json()[0]) for _ in range(2)]
        assert paths[0] != paths[1]
        for path in paths:
            assert path.parent == uploads
            assert path.read_bytes() == b"abc"

    def test_what_is_too_large_is_refused_and_nothing_is_left(
        self, client: TestClient, uploads: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gate, "MAX_BYTES", 2**20)
        answer = client.post(gate.UPLOAD, files={"files": ("a.png", bytes(2**21))})
        assert (answer.status_code, answer.text) == (413, "The file is larger than 1 MiB.")
        assert list(uploads.iterdir()) == []

    def test_what_nobody_asks_about_is_not_kept(
        self, client: TestClient, uploads: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(uploads_module, "UNASKED_SECONDS", 0)
        with client:
            path = give(client)
            client.get("/")
            assert list(uploads.iterdir()) == []
            assert client.post(gate.ASK, json=ask_about(path)).status_code == 400

    def test_what_is_asked_about_is_kept_longer(
        self, client: TestClient, uploads: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with client:
            path = give(client)
            assert client.post(gate.ASK, json=ask_about(path)).status_code == 200
            client.get("/")
            assert list(uploads.iterdir()) == [Path(path)]
            monkeypatch.setattr(uploads_module, "ASKED_SECONDS", 0)
            path = give(client)
            client.post(gate.ASK, json=ask_about(path))
            client.get("/")
            assert not Path(path).exists()

    def test_too_many_wait(self, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(uploads_module, "MAX_UPLOADS", 1)
        codes = [client.post(gate.UPLOAD, files={"files": ("a.png", b"abc")}).status_code for _ in range(2)]
        assert codes == [200, 503]

    def test_too_many_come_in(self, uploads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(uploads_module, "MAX_UPLOADS", 2)
        assert asyncio.run(begin_uploads(make_gate(uploads), 3)) == [503]

    def test_one_that_stays_silent_is_given_up(self, uploads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gate, "SILENT_SECONDS", 0.01)
        assert asyncio.run(begin_uploads(make_gate(uploads), 2)) == [408, 408]
        assert list(uploads.iterdir()) == []

    def test_the_page_is_asked_what_was_checked_and_nothing_else(self, client: TestClient) -> None:
        path = give(client)
        asked = ask_about(path) | {"event_data": {"a": 1}, "request": "b", "trigger_id": 7}
        asked["data"][0] |= {"url": "http://evil.example", "is_stream": True, "orig_name": "\ud800.png"}
        assert client.post(gate.ASK, content=json.dumps(asked)).json() == {
            "data": [{"path": path, "orig_name": "?.png", "meta": {"_type": "gradio.FileData"}}],
            "fn_index": 0,
            "session_hash": "a1",
            "trigger_id": 7,
        }
        for label in (None, "Nowhere", "Mass"):
            asked = {"fn_index": 2, "session_hash": "a1", "data": [None, label]}
            assert client.post(gate.ASK, json=asked).json()["data"] == [None, label]

    def test_an_upload_is_asked_about_once(self, client: TestClient) -> None:
        path = give(client)
        assert [client.post(gate.ASK, json=ask_about(path)).status_code for _ in range(2)] == [200, 400]

    def test_an_upload_whose_question_is_refused_goes(self, uploads: Path) -> None:
        client = TestClient(make_gate(uploads, status=503), base_url="http://127.0.0.1:7860")
        assert client.post(gate.ASK, json=ask_about(give(client))).status_code == 503
        assert list(uploads.iterdir()) == []

    def test_only_an_upload_can_be_asked_about(self, client: TestClient, uploads: Path) -> None:
        path, name = (one := give(client)), Path(one).name
        (uploads / "other").touch()
        for tried in (
            *("/etc/passwd", "", ".", "..", f"{uploads}", f"{uploads}/", f"{uploads}/..", f"{uploads}/other", name),
            *(f"{path}/", f"{path}/..", f"{uploads}/./{name}", f"{uploads}//{name}", f"{path}\0", f" {path}"),
            *(None, 1, True, [path], {"path": path}, "file://" + path, "http://evil.example/a.png", "\ud800"),
        ):
            assert client.post(gate.ASK, content=json.dumps(ask_about(tried))).status_code == 400, tried
        assert client.post(gate.ASK, json=ask_about(path)).status_code == 200

    @pytest.mark.parametrize(
        "change",
        [
            *({"fn_index": one} for one in (3, -1, "0", None, True, 0.0, [])),
            *({"data": one} for one in (None, [], {}, "a", [None], ["a"], [{}], [None, None])),
            *({"session_hash": one} for one in (None, "", "a/b", "\ud800", "²", 1, [])),
            *({"fn_index": 2, "data": [None, one]} for one in ("Hernia", "", "mass", 1, True, ["Mass"], {})),
            *({"fn_index": 2, "data": ["Mass", "Mass"]}, {"fn_index": 1, "data": [None]}),
        ],
    )
    def test_what_the_page_does_not_ask_is_a_line(self, client: TestClient, change: dict[str, Any]) -> None:
        content = json.dumps(ask_about(give(client)) | change)
        answer = client.post(gate.ASK, content=content)
        assert (answer.status_code, answer.text) == (400, "That is no question of this page.")

    @pytest.mark.parametrize("content", [b"", b"[]", b"1", b"null", b"{", b"\xff", b"[" * 60_000, b"{}"])
    def test_what_is_no_question_is_a_line(self, client: TestClient, content: bytes) -> None:
        assert client.post(gate.ASK, content=content).status_code == 400
        assert client.post(gate.ASK, content=content + b" " * (gate.QUESTION_BYTES + 1)).status_code == 413
        assert client.get(gate.ASK).status_code == 405

    @pytest.mark.parametrize("data", [{}, {"files": "a"}])
    def test_a_form_without_a_file_is_refused(self, client: TestClient, data: dict[str, str]) -> None:
        assert client.post(gate.UPLOAD, data=data).status_code == 400


class TestViews:
    @pytest.fixture
    def prediction(self) -> Prediction:
        image = np.zeros((64, 64), np.uint8)
        heatmap = np.array([[1, 0], [0, 0]], np.float32)
        preds = {"<b>Mass": True, "Nodule": False, "Edema": None}
        probs = {"<b>Mass": 0.7, "Nodule": 0.2, "Edema": 0.5}
        return Prediction("a.png", "", ("it has colour",), probs, probs, preds, image, {"<b>Mass": heatmap})

    def test_each_label_stands_against_its_threshold(self, prediction: Prediction) -> None:
        page = ReadPage(show_findings(prediction, {"<b>Mass": 0.4, "Nodule": 0.25, "Edema": None}))
        assert page.tables[""][1:] == [
            ["<b>Mass", "0.700", "0.700", "0.400", "present"],
            ["Nodule", "0.200", "0.200", "0.250", "below threshold"],
            ["Edema", "0.500", "0.500", "–", "no threshold"],
        ]
        assert [one["style"] for one in page.find("span") if "style" in one] == [
            "width:70.00%", "left:40.00%", "width:20.00%", "left:25.00%", "width:50.00%",
        ]  # fmt: skip
        assert "it has colour" in page.texts

    def test_the_line_says_what_is_present(self, prediction: Prediction) -> None:
        assert "<bdi>&lt;i&gt;.png</bdi></b>: present: &lt;b&gt;Mass. This may be no" in say_findings(
            prediction, "<i>.png"
        )
        assert "a.png</bdi></b>: cannot be used: empty file" in say_refusal("empty file", "a.png")

    def test_a_heatmap_is_on_the_picture_where_it_is_asked_for(self, prediction: Prediction) -> None:
        plain, marked, unknown = (show_picture(prediction, label) for label in (None, "<b>Mass", "Hernia"))
        assert plain == unknown != marked
        assert ReadPage(marked).find("img")[0]["alt"] == "The radiograph with the heatmap of <b>Mass over it"

    def test_a_heatmap_of_nothing_says_so(self, prediction: Prediction) -> None:
        empty = replace(prediction, heatmaps={"Nodule": np.zeros((2, 2), np.float32)})
        said = "The heatmap shows positive evidence alone, and at its resolution there is none for Nodule."
        assert said in show_picture(empty, "Nodule")
        assert "there is none" not in show_picture(prediction, "<b>Mass")

    @pytest.mark.parametrize(
        ("prob", "threshold", "shown"),
        [
            (0.2106, 0.2114, ["0.2106", "0.2106", "0.2114"]),
            (0.0800004, 0.0799996, ["0.080000", "0.080000", "0.080000"]),
            (0.080001, 0.079999, ["0.080001", "0.080001", "0.079999"]),
            (0.5, 0.5, ["0.500", "0.500", "0.500"]),
            (0.99996, 1.0, ["0.99996", "0.99996", "1.00000"]),
        ],
    )
    def test_a_verdict_can_be_read_from_its_numbers(
        self, prediction: Prediction, prob: float, threshold: float, shown: list[str]
    ) -> None:
        probs, preds = {"Nodule": prob}, {"Nodule": prob >= threshold}
        one = replace(prediction, probs=probs, calibrated=probs, preds=preds)
        page = ReadPage(show_findings(one, {"Nodule": threshold}))
        assert page.tables[""][1][1:4] == shown
        verdict = "present" if prob >= threshold else "below threshold"
        assert f"{shown[1]}, {verdict}" in page.texts

    def test_the_card_is_read_by_its_sections(self) -> None:
        misuses, limits = read_sections(CARD.decode()).values()
        assert limits == ["Only adults <18 it never saw.", "It is coarse."]
        assert misuses == list(SECTIONS["What it must not be used for"])

    def test_examples_are_the_same_each_time(self, tmp_path: Path) -> None:
        folders = [tmp_path / "a", tmp_path / "b"]
        for folder in folders:
            folder.mkdir()
        first, second = map(draw_examples, folders)
        assert {example.path.name for example in first} == EXAMPLES
        assert [one.path.read_bytes() for one in first] == [one.path.read_bytes() for one in second]
