"""The pictures of ``cxrlit demo`` in the README, anew: a drawn radiograph, as a desktop and as a phone show it.

cxrlit demo BUNDLE --port 7860
python docs/screenshots.py http://127.0.0.1:7860
"""

import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).parent
SHOTS = {"desktop": (1280, 1000, "light"), "phone": (390, 1240, "dark")}
N_COLORS = 256
EXAMPLE, LABEL = "Drawn with effusion", "Effusion"


def main(address: str) -> None:
    """Take them."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (width, height, scheme) in SHOTS.items():
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
    main(sys.argv[1])
