"""The page: a file in, its picture, findings and warnings out, each person's to themselves.

What was found is kept in the person's own session, and in no file: pictures are part of the page. The network takes one
image at a time, and who comes meanwhile waits.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI

from cxrlit.core.errors import DataError
from cxrlit.handoff.demo.asking import Events
from cxrlit.handoff.demo.examples import Example
from cxrlit.handoff.demo.gate import MAX_BYTES
from cxrlit.handoff.demo.uploads import MAX_UPLOADS
from cxrlit.handoff.demo.views import (
    describe_model,
    embed_thumbnail,
    say_findings,
    say_refusal,
    show_findings,
    show_picture,
)
from cxrlit.handoff.predictor import Prediction, Predictor

NOWHERE = "Nowhere"
STATE_SECONDS = 3600
"""A result that is no longer looked at is forgotten after this."""

TITLE = "<h1>Try the model on a chest radiograph</h1>"
NOTICE = '<p class="notice"><b>Research use only: not a medical device.</b></p>'
WELCOME = """\
<p class="said">Choose a radiograph, or try a drawn one. Files stay on this machine, and are deleted once they are read.
</p>"""

CHOSEN = '<p class="said">There is no result for the new file yet.</p>'

ASSIST = """() => {
  const [said, where, file] = ["#said", "#where", "#file"].map((one) => document.querySelector(one));
  said.setAttribute("role", "status");
  said.setAttribute("aria-live", "polite");
  where.setAttribute("role", "radiogroup");
  where.setAttribute("aria-label", "Show where");
  // The arrow keys go through radios of one name, and Gradio gives them others whenever it draws them.
  const join = () => where.querySelectorAll("input").forEach((one) => { one.name = "where"; });
  join();
  where.addEventListener("keydown", join, true);
  // A file that is too large, or that the gate refuses, comes to no event of Gradio's.
  for (const kind of ["change", "drop"])
    file.addEventListener(kind, () => document.querySelector("#forget").click(), true);
}"""
"""What Gradio leaves out for a screen reader and the keyboard, and for who gives a file that is refused."""

FORGET = f"() => {json.dumps([CHOSEN, '', NOWHERE, ''])}"
"""What was found in one file does not stand beside the name of the next, not even until that is read."""


def mount_page(page: gr.Blocks, examples: Sequence[Example]) -> FastAPI:
    """The page as an application that is not to be served without a gate before it.

    Args:
        page: The page.
        examples: That it has.
    """
    thumbnails = [
        f'#example-{number} {{ --drawn: url("{embed_thumbnail(example.path)}"); }}'
        for number, example in enumerate(examples)
    ]
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    app: FastAPI = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=MAX_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        # The default theme asks Google for its fonts.
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css="\n".join([style, *thumbnails]),
        js=ASSIST,
    )
    return app


def list_events(page: gr.Blocks) -> Events:
    """What may be asked of a page."""
    return {number: [_list_values(block) for block in event.inputs] for number, event in page.fns.items() if event.fn}


def _list_values(block: Any) -> frozenset[str] | None:
    if isinstance(block, gr.File):
        return None
    return frozenset(str(value) for _, value in block.choices) if isinstance(block, gr.Radio) else frozenset()


def build_page(predictor: Predictor, examples: Sequence[Example]) -> gr.Blocks:
    """Its parts, and what happens between them.

    Args:
        predictor: What answers.
        examples: To try it with.
    """
    page: gr.Blocks
    with gr.Blocks(title="Chest radiograph: try the model", analytics_enabled=False) as page:
        found = gr.State(time_to_live=STATE_SECONDS)
        gr.HTML(TITLE, apply_default_css=False)
        gr.HTML(NOTICE, elem_id="notice", apply_default_css=False)
        with gr.Row():
            with gr.Column(elem_id="give"):
                file = gr.File(label=f"PNG, JPEG or DICOM, up to {MAX_BYTES // 2**20} MB", elem_id="file", height=150)
                with gr.Row(elem_id="examples"):
                    buttons = [
                        gr.Button(example.caption, elem_id=f"example-{number}", size="sm")
                        for number, example in enumerate(examples)
                    ]
                forget = gr.Button(elem_id="forget")  # for ASSIST
                said = gr.HTML(WELCOME, elem_id="said", apply_default_css=False)
                with gr.Column(elem_id="seen"):
                    picture = gr.HTML(elem_id="picture", apply_default_css=False)
                    choice = gr.Radio(
                        [NOWHERE, *predictor.labels], value=NOWHERE, label="Show where", elem_id="where",
                        info="What the model looked at for a finding: coarse, and not why",
                    )  # fmt: skip
            with gr.Column(elem_id="read"):
                findings = gr.HTML(elem_id="findings", apply_default_css=False)
                gr.HTML(describe_model(predictor.bundle), elem_id="model", apply_default_css=False)

        def answer(prediction: Prediction, name: str) -> dict[Any, Any]:
            if prediction.reason:
                return refuse(prediction.reason, name)
            return {
                said: say_findings(prediction, name),
                found: prediction,
                picture: show_picture(prediction, None),
                choice: NOWHERE,
                findings: show_findings(prediction, predictor.thresholds),
            }

        def refuse(reason: str, name: str) -> dict[Any, Any]:
            return {said: say_refusal(reason, name), found: None, picture: "", choice: NOWHERE, findings: ""}

        def take_upload(upload: dict[str, Any]) -> dict[Any, Any]:
            path, name = Path(upload["path"]), upload["orig_name"]  # which the gate has checked
            try:
                return {file: None, **answer(predict(path), name)}
            except DataError:
                return {file: None, **refuse("it waited for too long: choose it again", name)}
            finally:
                path.unlink(missing_ok=True)

        def predict(path: Path) -> Prediction:
            return predictor.predict(path, heatmaps=True, batch_size=1)[0]

        network: dict[str, Any] = {
            "outputs": [file, said, found, picture, choice, findings],
            "concurrency_limit": 1,
            "concurrency_id": "network",
            "api_visibility": "private",
            "show_progress_on": said,
        }
        file.upload(take_upload, file, preprocess=False, **network)
        for button, example in zip(buttons, examples, strict=True):
            button.click(partial(lambda example: answer(predict(example.path), example.caption), example), **network)
        forget.click(None, outputs=[said, picture, choice, findings], js=FORGET)
        choice.input(
            lambda prediction, label: show_picture(prediction, label) if prediction else gr.skip(),
            [found, choice], picture,
            show_progress="hidden", api_visibility="private", trigger_mode="always_last",
        )  # fmt: skip
    page.queue(max_size=MAX_UPLOADS, api_open=False)
    return page
