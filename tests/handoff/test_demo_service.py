"""The HTTP interface of ``cxrlit demo``: what it answers, to whom, and what it refuses."""

import base64
import io
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from browsing import Page as ReadPage
from bundles import make_images, write_bundle, write_images
from PIL import Image

from cxrlit import Predictor
from cxrlit.evaluation.localisation.overlays import overlay
from cxrlit.handoff.backends.backend import Output
from cxrlit.handoff.predictor import count_digits

pytest.importorskip("starlette")
pytest.importorskip("playwright")

from demos import Served, check_described, make_bad, serve_here
from dicoms import SECRET, make_dicom

from cxrlit.handoff.card_text import SECTIONS, read_sections
from cxrlit.handoff.demo.answers import make_answer
from cxrlit.handoff.demo.examples import draw_examples
from cxrlit.handoff.demo.openapi import describe_service
from cxrlit.handoff.demo.page import make_page

CARD = """# A model

## Limits

- Only `adults` &lt;18 it never saw.

It is coarse.

## Training

- No limit.
"""


def read_picture(address: str, mode: str) -> Any:
    begin, _, coded = address.partition(",")
    assert begin == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(coded))) as image:
        return np.asarray(image.convert(mode))


class TestPredict:
    def test_a_file_gets_what_the_predictor_says(self, served: Served, predictor: Predictor, tmp_path: Path) -> None:
        (path,) = write_images(tmp_path, 1)
        wanted = predictor.predict(path, heatmaps=True)[0]
        assert wanted.image is not None
        answered = served.predict(path.read_bytes())
        check_described(answered, "/predict")
        assert answered.body["bundle"] == predictor.bundle.digest
        assert answered.body["warnings"] == list(wanted.warnings)
        found = answered.body["findings"]
        assert [one["label"] for one in found] == list(predictor.labels)
        for name, values in (
            ("prob", wanted.probs),
            ("calibrated", wanted.calibrated),
            ("present", wanted.preds),
            ("threshold", predictor.thresholds),
        ):
            assert [one[name] for one in found] == list(values.values())
        assert [one["digits"] for one in found] == [count_digits(one["calibrated"], one["threshold"]) for one in found]
        assert np.array_equal(read_picture(answered.body["image"], "L"), wanted.image)
        assert len([one for one in found if one["heatmap"]]) > 4
        for one in found:
            heatmap = wanted.heatmaps[one["label"]]
            assert (one["heatmap"] is not None) == heatmap.any()
            if one["heatmap"]:
                top = read_picture(one["heatmap"], "RGBA") / 255.0
                laid = (1 - top[..., 3:]) * wanted.image[..., None] + 255 * top[..., 3:] * top[..., :3]
                side = len(wanted.image)
                assert np.abs(laid - overlay(wanted.image, heatmap, side)).max() < 4

    def test_without_pictures_the_numbers_are_the_same(self, served: Served, png: bytes) -> None:
        whole, bare = (served.predict(png, query).body for query in ("?pictures=true", "?pictures=false"))
        assert served.predict(png).body == whole
        assert whole["image"]
        whole["findings"] = [{**finding, "heatmap": None} for finding in whole["findings"]]
        assert {**whole, "image": None} == bare

    def test_decimals_are_enough_to_see_the_decision(self, predictor: Predictor, png: bytes) -> None:
        one = predictor.predict_content(png)
        close = replace(one, calibrated={**one.calibrated, "Mass": 0.40004})
        digits = {finding.label: finding.digits for finding in make_answer(predictor, close).findings}
        assert digits == {**dict.fromkeys(predictor.labels, 3), "Mass": 5}

    def test_jpeg_and_dicom_are_read_and_no_tag_is_told(
        self, served: Served, predictor: Predictor, tmp_path: Path
    ) -> None:
        pixels = make_images(1, 40)[0]
        for content in (cv2.imencode(".jpg", pixels)[1].tobytes(), make_dicom(np.uint16(16) * pixels)):
            (path := tmp_path / "file").write_bytes(content)
            answered = served.predict(content)
            assert [one["prob"] for one in answered.body["findings"]] == list(predictor.predict(path)[0].probs.values())
            assert SECRET not in json.dumps(answered.body)

    def test_what_cannot_be_used_gets_its_reason(
        self, served: Served, predictor: Predictor, png: bytes, tmp_path: Path
    ) -> None:
        canary = tmp_path / "canary"
        for name, content in make_bad(png, canary).items():
            (path := tmp_path / name).write_bytes(content)
            answered = served.predict(content)
            check_described(answered, "/predict")
            assert (answered.status, answered.body) == (422, {"error": predictor.predict(path)[0].reason})
        assert not canary.exists()

    def test_many_at_once_get_their_own(self, served: Served, predictor: Predictor, tmp_path: Path) -> None:
        paths = write_images(tmp_path, 8)
        with ThreadPoolExecutor(len(paths)) as pool:
            for _ in range(3):
                answers = list(pool.map(lambda path: served.predict(path.read_bytes()).body["findings"], paths))
                wanted = [list(one.probs.values()) for one in predictor.predict(paths, batch_size=1)]
                assert [[one["prob"] for one in findings] for findings in answers] == wanted

    def test_a_network_without_finite_numbers_is_a_line(self, predictor: Predictor, png: bytes, tmp_path: Path) -> None:
        class Broken:
            description, precision, batch_size, reads_ahead = "broken", "fp32", 1, False

            def run(self, images: Any, with_features: bool) -> Output:
                return Output(np.full((1, len(images), len(predictor.labels)), np.nan, np.float32), None)

        with serve_here(Predictor(predictor.bundle, Broken()), tmp_path) as service:
            answered = service.predict(png)
        check_described(answered, "/predict")
        assert answered.status == 500
        assert answered.body["error"].endswith("its network computes no finite numbers: get the bundle anew")

    @pytest.mark.parametrize("query", ["?pictures=0", "?pictures=", "?picture=true", "?pictures=true&pictures=true"])
    def test_a_query_that_is_not_understood_is_refused(self, served: Served, png: bytes, query: str) -> None:
        answered = served.predict(png, query)
        check_described(answered, "/predict")
        assert answered.status == 400


class TestDescription:
    def test_what_it_refers_to_is_there(self, served: Served) -> None:
        described = served.ask("/openapi.json").body
        assert described == json.loads(json.dumps(describe_service()))
        named = {f'"#/components/schemas/{name}"' for name in described["components"]["schemas"]}
        referred = {part.split("}")[0].strip() for part in json.dumps(described).split('"$ref":')[1:]}
        assert referred == named

    def test_the_health_says_which_model(self, served: Served, predictor: Predictor) -> None:
        answered = served.ask("/health")
        check_described(answered, "/health")
        assert answered.body["labels"] == list(predictor.labels)
        assert answered.body["bundle"] == predictor.bundle.digest


class TestPage:
    def test_names_of_labels_are_text(self, tmp_path: Path) -> None:
        bundle = write_bundle(tmp_path / "bundle", change=lambda config: config["data"].update(name="<u>nih"))
        predictor = Predictor.load(bundle, "onnx", n_threads=1)
        predictor.labels = ("<i>Mass",)
        page = ReadPage(make_page(predictor, 2**20))
        assert page.find("i") == page.find("u") == []
        assert "<i>Mass" in page.texts
        policy = page.find("meta")[1]["content"]
        digest = "'sha256-[A-Za-z0-9+/=]{44}'"
        assert re.fullmatch(
            f"default-src 'none'; script-src {digest}; connect-src 'self'; img-src data:; style-src {digest}; "
            "base-uri 'none'; form-action 'none'",
            policy,
        )

    def test_the_card_is_read_by_its_sections(self) -> None:
        misuses, limits = read_sections(CARD).values()
        assert limits == ["Only adults <18 it never saw.", "It is coarse."]
        assert misuses == [text.replace("`", "") for text in SECTIONS["What it must not be used for"]]

    def test_examples_are_the_same_each_time(self) -> None:
        assert draw_examples() == draw_examples.__wrapped__()
        assert len({example.content for example in draw_examples()}) == 4


class TestCommand:
    @pytest.mark.parametrize("package", ["starlette", "uvicorn"])
    def test_a_package_that_is_not_installed_is_a_line(self, predictor: Predictor, package: str) -> None:
        outcome = run(predictor.bundle.folder, missing=package)
        assert outcome.returncode == 2
        assert outcome.stderr.strip() == f"error: cxrlit demo needs {package}: pip install 'cxrlit[demo]'"

    def test_a_port_that_is_taken_is_a_line(self, served: Served, predictor: Predictor) -> None:
        outcome = run(predictor.bundle.folder, "--port", str(urlsplit(served.address).port))
        assert outcome.returncode == 2
        assert "address already in use: take another, or 0 for any" in outcome.stderr
        assert "Traceback" not in outcome.stderr


def run(bundle: Path, *options: str, missing: str = "") -> "subprocess.CompletedProcess[str]":
    """The command, where a package is missing."""
    program = f"import sys; sys.modules[{missing!r}] = None; from cxrlit.commands.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, "demo", str(bundle), *options], capture_output=True, text=True, timeout=120
    )
