"""The page of ``cxrlit demo``, in Chromium: what it shows, to whom, and what it leaves behind."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from browsing import CHROMIUM
from bundles import make_images, write_bundle, write_images
from PIL import Image

from cxrlit import Predictor
from cxrlit.handoff.backends.backend import BackendName
from cxrlit.handoff.predictor import Prediction

pytest.importorskip("starlette")
pytest.importorskip("playwright")

from demo_visits import give, open_browser, read_table, upload, visit
from demos import Served, Watched, make_bad, serve, serve_here
from dicoms import SECRET, make_dicom
from playwright.sync_api import Browser, Page, expect

in_a_browser = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]
CARD = (
    b"# A model\n\n## Limits\n\n- Only `adults` &lt;18 it never saw.\n\nIt is coarse.\n\n## Training\n\n- No limit.\n"
)
RADIOGRAPH, HEATMAP, SAID = ".picture .radiograph", ".picture .heatmap", "#said[role=status]"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("demo") / "bundle", card=CARD)


@pytest.fixture(scope="module")
def served(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(bundle, tmp_path_factory.mktemp("served"), "--threads", "1") as page:
        yield page
        assert list(page.folder.iterdir()) == []  # of no file at any time


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


def expect_nothing(person: Page) -> None:
    """Nothing that was found in a file is on the page."""
    expect(person.locator("#seen > *, #findings > *")).to_have_count(0)


class TestInABrowser:
    pytestmark = in_a_browser

    def test_an_image_gets_its_picture_bars_and_numbers(
        self, person: Page, served: Served, bundle: Path, tmp_path: Path
    ) -> None:
        path = write_images(tmp_path, 1)[0]
        upload(person, path)
        table = expect_table(bundle, path)
        present = ", ".join(label for label, cells in table.items() if cells[3] == "present")
        expect(person.locator(SAID)).to_contain_text(f"000.png: present: {present}.")
        assert read_table(person) == table
        bars = [text.split("\n") for text in person.locator(".bars li").all_inner_texts()]
        assert bars == [[label, f"{cells[1]}, {cells[3]}"] for label, cells in table.items()]
        measured = person.evaluate(
            """() => [...document.querySelectorAll(".track")].map((track) => [".bar", ".tick"].map((one) => {
              const [part, whole] = [track.querySelector(one), track].map((it) => it && it.getBoundingClientRect());
              return part && (one === ".bar" ? part.right : part.x + 1) / whole.width - whole.x / whole.width;
            }))"""
        )
        for (bar, tick), (_, calibrated, threshold, _) in zip(measured, table.values(), strict=True):
            assert abs(bar - float(calibrated)) < 0.01
            assert tick is None if threshold == "–" else abs(tick - float(threshold)) < 0.01
        expect(person.get_by_role("img", name="The radiograph", exact=True)).to_be_visible()
        assert person.get_by_text("Research use only: not a medical device.").is_visible()
        assert person.get_by_text("Only adults <18 it never saw.").is_visible()
        assert person.get_by_text("No person may be diagnosed").is_visible()
        assert served.list_files() == set()

    def test_onnx_runtime_computes_it_too(self, browser: Browser, bundle: Path, tmp_path: Path) -> None:
        path = write_images(tmp_path / "images", 1)[0]
        predictor = load(bundle, "onnx")
        with serve_here(predictor, tmp_path) as page, visit(browser, page) as person:
            upload(person, path)
            assert read_table(person) == expect_table(bundle, path, "onnx")
            person.get_by_label("Mass").check()
            expect(person.get_by_role("img", name="Heatmap of Mass over the radiograph")).to_be_visible()

    def test_the_keyboard_alone_shows_where(self, person: Page) -> None:
        person.keyboard.press("Tab")
        assert person.evaluate("document.activeElement.id") == "file"
        assert person.evaluate("getComputedStyle(document.activeElement.parentElement).outlineStyle") == "solid"
        for _ in range(2):
            person.keyboard.press("Tab")
        assert person.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        person.keyboard.press("Enter")
        expect(person.locator(SAID)).to_contain_text("Drawn with cardiomegaly")
        expect(person.locator(HEATMAP)).to_be_hidden(timeout=1)
        person.locator(RADIOGRAPH).wait_for()
        for _ in range(3):
            person.keyboard.press("Tab")
        assert person.evaluate("document.activeElement.parentElement.innerText") == "Nowhere"
        for label in ("Atelectasis", "Cardiomegaly"):
            person.keyboard.press("ArrowRight")
            said = person.locator("figcaption").inner_text()
            assert f"for {label}" in said
            shown = person.get_by_role("img", name=f"Heatmap of {label} over the radiograph")
            expect(shown).to_be_visible(visible="there is none" not in said)
        for _ in range(2):
            person.keyboard.press("ArrowLeft")
        expect(person.locator(HEATMAP)).to_be_hidden()
        assert person.locator("figcaption").inner_text() == "As the model sees it, 32 × 32 pixels."

    def test_what_is_not_seen_is_read_out(self, person: Page, tmp_path: Path) -> None:
        assert person.locator("html").get_attribute("lang") == "en"
        assert person.locator(SAID).inner_text().startswith("Choose a radiograph")
        assert person.get_by_label("Choose a radiograph, or drop it here").get_attribute("type") == "file"
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
        assert served.list_files() == set()

    def test_what_is_no_radiograph_is_warned_of_and_a_name_is_text(self, person: Page, tmp_path: Path) -> None:
        path = tmp_path / "<img src=x onerror=alert(1)>\u202e.png"
        Image.fromarray(make_images(1, 90)[0][:20]).save(path)
        give(person, path)
        expect(person.locator(".concerns li").first).to_have_text("its aspect is 4.50, not 0.5 to 2.0")
        assert "This may be no radiograph" in person.locator(SAID).inner_text()
        assert person.locator("#said b").inner_text() == r"<img src=x onerror=alert(1)>\u{202e}.png"
        assert person.locator("#said img").count() == 0

    def test_a_bad_file_gets_its_reason_and_nothing_of_another_stays(
        self, person: Page, served: Served, tmp_path: Path
    ) -> None:
        good = write_images(tmp_path, 1)[0]
        canary = tmp_path / "canary"
        upload(person, good)
        person.get_by_label("Mass").check()
        for name, content in make_bad(good.read_bytes(), canary).items():
            (tmp_path / name).write_bytes(content)
            upload(person, tmp_path / name)
            assert f"{name}: cannot be used: " in person.locator(SAID).inner_text()
            expect_nothing(person)
        upload(person, good)
        expect(person.get_by_role("img", name="The radiograph", exact=True)).to_be_visible()
        expect(person.get_by_label("Nowhere")).to_be_checked()
        expect(person.locator(HEATMAP)).to_be_hidden()
        assert not canary.exists()
        assert served.list_files() == set()

    def test_a_large_file_is_refused_unread_and_nothing_of_another_stays(self, person: Page, tmp_path: Path) -> None:
        upload(person, write_images(tmp_path, 1)[0])
        path = tmp_path / "large.dcm"
        with path.open("wb") as file:
            file.truncate(10 * 2**30)
        upload(person, path)
        expect(person.locator(SAID)).to_have_text("large.dcm: cannot be used: larger than 64 MiB")
        expect_nothing(person)

    def test_a_file_is_dropped_anywhere(self, person: Page, tmp_path: Path) -> None:
        address = person.url
        for names, said in ((["a.png"], "a.png: cannot be used: empty file"), (["a", "b"], "one file at a time")):
            data = person.evaluate_handle(
                "(names) => { const it = new DataTransfer();"
                " for (const name of names) it.items.add(new File([], name)); return it; }",
                names,
            )
            person.dispatch_event("h1", "drop", {"dataTransfer": data})
            expect(person.locator(SAID)).to_contain_text(said)
        assert person.url == address

    def test_two_people_at_once_get_their_own(
        self, browser: Browser, served: Served, bundle: Path, tmp_path: Path
    ) -> None:
        first, second = write_images(tmp_path, 2)
        second = second.rename(tmp_path / "other.png")
        with visit(browser, served) as one, visit(browser, served) as other:
            for page, path in ((one, first), (other, second)):
                give(page, path)
            tables = [read_table(page) for page in (one, other)]
            assert tables == [expect_table(bundle, path) for path in (first, second)]
            assert tables[0] != tables[1]
            one.get_by_label("Mass").check()
            one.get_by_role("img", name="Heatmap of Mass").wait_for()
            expect(other.locator(HEATMAP)).to_be_hidden()

    def test_what_is_chosen_next_takes_the_place_of_what_waits(
        self, browser: Browser, bundle: Path, tmp_path: Path
    ) -> None:
        first, second, third = write_images(tmp_path, 3)
        watched = Watched(load(bundle, "onnx"))
        with serve_here(watched, tmp_path) as page, visit(browser, page) as person:
            upload(person, first)
            watched.may_begin.clear()
            give(person, second)
            page.await_waiting(1)
            expect(person.locator(SAID)).to_have_text("001.png: waiting for its result …")
            expect_nothing(person)
            give(person, third)
            page.await_waiting(2)
            watched.may_begin.set()
            assert read_table(person) == expect_table(bundle, third, "onnx")
            expect(person.locator(SAID)).to_contain_text("002.png: ")

    def test_a_verdict_can_be_read_from_its_numbers(self, browser: Browser, bundle: Path, tmp_path: Path) -> None:
        class Close(Predictor):
            def predict_content(self, content: bytes, *, heatmaps: bool = False) -> Prediction:
                one = super().predict_content(content, heatmaps=heatmaps)
                return replace(one, calibrated={**one.calibrated, "Mass": 0.2106}, preds={**one.preds, "Mass": False})

        loaded = load(bundle, "onnx")
        close = Close(loaded.bundle, loaded.backend)
        close.thresholds["Mass"] = 0.2114
        (path,) = write_images(tmp_path, 1)
        with serve_here(close, tmp_path) as page, visit(browser, page) as person:
            upload(person, path)
            assert read_table(person)["Mass"][1:] == ["0.2106", "0.2114", "below threshold"]

    def test_a_service_that_has_ended_is_a_line(self, browser: Browser, bundle: Path, tmp_path: Path) -> None:
        (path,) = write_images(tmp_path, 1)
        context = browser.new_context()
        person = context.new_page()
        with serve_here(load(bundle, "onnx"), tmp_path) as page:
            person.goto(page.address)
        upload(person, path)
        expect(person.locator(SAID)).to_contain_text("there is no answer")
        context.close()

    def test_it_fits_a_phone_by_day_and_by_night(self, browser: Browser, served: Served) -> None:
        size = {"width": 390, "height": 844}
        with visit(browser, served, viewport=size, color_scheme="dark") as page:
            page.get_by_role("button", name="Drawn with effusion").click()
            page.locator("#findings summary").click()
            assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
            ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
            assert max(map(int, ground[4:-1].split(","))) < 60

    def test_it_is_served_to_this_machine_alone(self, served: Served) -> None:
        port = urlsplit(served.address).port
        listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        assert {part[1] for part in listening if part[1].endswith(f":{port:04X}") and part[3] == "0A"} == {
            f"0100007F:{port:04X}"
        }
