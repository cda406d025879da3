import re
import xml.etree.ElementTree as ElementTree

import pytest

from tests.helpers.made_scores import random_scores
from vsn.report.charts import PANEL_SIZE, reliability_chart
from vsn.scores.calibrate import ReliabilityBin, expected_calibration_error, reliability_curve
from vsn.system.numbers import percent

SVG = "{http://www.w3.org/2000/svg}"


def test_a_bar_is_as_high_as_its_accuracy():
    bins = [ReliabilityBin(0, 0.5, 3, 0.4, 0.25), ReliabilityBin(0.5, 1, 0, None, None)]
    page = ElementTree.fromstring(reliability_chart({"before": bins}, title="val"))
    (bar,) = (rect for rect in page.iter(f"{SVG}rect") if rect.get("class") == "bar-of")
    assert float(bar.attrib["height"]) == pytest.approx(0.25 * PANEL_SIZE)
    assert float(bar.attrib["width"]) == pytest.approx(PANEL_SIZE / 2 - 2)
    (gap,) = (path.attrib["d"] for path in page.iter(f"{SVG}path") if path.get("class") == "gap")
    start, end = (float(y) for y in re.findall(r" ([\d.]+)V([\d.]+)", gap)[0])
    assert start - end == pytest.approx((0.4 - 0.25) * PANEL_SIZE)
    assert [tip.text for tip in page.iter(f"{SVG}title")] == ["3 videos: confidence 40.0%, accuracy 25.0%"]
    assert "val. before: expected calibration error 15.0%." in page.attrib["aria-label"]


def test_a_panel_for_each_curve_and_hostile_names():
    scores = random_scores(1)
    curves = {f"T = {t}": reliability_curve(scores, temperature=t) for t in (1.0, 2.0)}
    drawn = reliability_chart(curves, title='<script>"&')
    page = ElementTree.fromstring(drawn)
    assert "<script>" not in drawn
    texts = [one.text for one in page.iter(f"{SVG}text")]
    for name, bins in curves.items():
        assert f"{name}: error {percent(expected_calibration_error(bins))}" in texts
    # It needs no other file, and nothing is outside of it.
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", drawn)
    width = float(page.attrib["width"])
    assert all(float(bar.attrib["x"]) < width for bar in page.iter(f"{SVG}rect") if bar.get("class") == "bar-of")
