"""The page at / in every state, in both color schemes, on a desk and on a phone."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.looks import objections
from tests.serve.conftest import Live, make_video


@pytest.mark.needs("axe", "chromium")
def test_nothing_to_object_to(browser: Any, live: Live, clip: Path, tmp_path: Path):
    page = browser.new_page()
    page.set_default_timeout(60_000)
    page.goto(live.url)
    page.wait_for_selector("#card dd", state="attached")
    wrong = {"empty": objections(page)}
    page.click("summary")
    page.set_input_files("#file", make_video(tmp_path / "a long name.mp4", num_frames=40, size=(64, 96), seed=3))
    page.wait_for_selector("#timeline button")
    page.locator("#timeline button").first.click()
    page.click("#heat")
    page.wait_for_selector("#heat[aria-pressed=true]")
    wrong["timeline and heat maps"] = objections(page)
    alternative = page.locator("#frames img").first.get_attribute("alt")
    assert "a long name.mp4" in alternative
    assert page.locator("#labels .name span").first.inner_text() in alternative
    (tmp_path / "large.mp4").write_bytes(bytes(1_100_000))
    page.set_input_files("#file", tmp_path / "large.mp4")
    page.wait_for_selector("#problem:not([hidden])")
    wrong["problem"] = objections(page, widths=[390])
    # Held back, so that the page keeps waiting.
    page.route("**/v1/predict**", lambda route: None)
    page.set_input_files("#file", clip)
    page.wait_for_selector("#working:not([hidden])")
    wrong["working"] = objections(page, widths=[390])
    page.close()
    assert {state: texts for state, texts in wrong.items() if texts} == {}
