"""Make the pictures of README and docs anew: the top of a report, and the page of ``cxrlit demo`` on desktop and phone.

Needs Debian's chromium (apt-get install chromium):

python train.py evaluate=true
cxrlit export runs/default/finetune-<id> --out bundle
cxrlit demo bundle --port 7860
python docs/screenshots.py http://127.0.0.1:7860 runs/default/finetune-<id>/eval/report.html
"""

import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

FOLDER = Path(__file__).parent
SHOTS = {"desktop": (1280, 1000, "light"), "phone": (390, 1240, "dark")}
REPORT_SIZE = (1100, 1150)
N_COLORS = 256
EXAMPLE, LABEL = "Drawn with effusion", "Effusion"


def main(address: str, report: str) -> None:
    """Take all pictures."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        picture_report(browser, Path(report))
        for name in SHOTS:
            picture_page(browser, address, name)


def picture_report(browser: Browser, report: Path) -> None:
    """The top of a report."""
    width, height = REPORT_SIZE
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
    page.goto(report.resolve().as_uri())
    path = FOLDER / "report.png"
    page.screenshot(path=path)
    shrink(path)


def picture_page(browser: Browser, address: str, name: str) -> None:
    """The page with a drawn radiograph and the heatmap of a finding.

    Args:
        browser: Chromium.
        address: Of the running service.
        name: One of ``SHOTS``.
    """
    width, height, scheme = SHOTS[name]
    size = {"width": width, "height": height}
    page = browser.new_page(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    page.goto(address)
    page.get_by_role("button", name=EXAMPLE).click()
    page.get_by_role("img", name="The radiograph").wait_for()
    page.get_by_role("radio", name=LABEL).check()
    page.get_by_role("img", name=f"heatmap of {LABEL}").wait_for()
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    path = FOLDER / f"demo-{name}.png"
    page.screenshot(path=path)
    shrink(path)


def shrink(path: Path) -> None:
    """The same picture in fewer colours and bytes."""
    with Image.open(path) as image:
        few = image.convert("RGB").quantize(N_COLORS, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
