"""The reliability diagram of a calibration, as an SVG file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vsn.report.parts import percent, text
from vsn.scores.calibrate import ReliabilityBin, expected_calibration_error

_SIZE, _LEFT, _TOP = 240, 52, 44
_STYLE = (
    "svg{font:12px system-ui,sans-serif;--ink:#222;--paper:#fff;--grid:#ddd;--bar:#2a6fbb;--gap:#d9822b}"
    "@media(prefers-color-scheme:dark){svg{--ink:#ddd;--paper:#181a1b;--grid:#444;--bar:#6aa8ea;--gap:#e8a25c}}"
    "text{fill:var(--ink)}.paper{fill:var(--paper)}.grid{stroke:var(--grid);fill:none}"
    ".even{stroke:var(--ink);stroke-dasharray:4 3;fill:none}.bar{fill:var(--bar)}.gap{stroke:var(--gap);stroke-width:2}"
)


def reliability_chart(curves: Mapping[str, Sequence[ReliabilityBin]], *, title: str) -> str:
    """An SVG document: accuracy against confidence, a panel for each of ``curves``.

    Bars are the accuracy of the videos of a bin, the line at a bar's side leads from there to their mean
    confidence, and the dashed diagonal is where both agree. A bar's tip says how many videos it holds.
    """
    panels = [_panel(name, bins, _LEFT + index * (_SIZE + 70)) for index, (name, bins) in enumerate(curves.items())]
    width, height = _LEFT + len(curves) * (_SIZE + 70) - 40, _TOP + _SIZE + 56
    said = "; ".join(
        f"{name}: expected calibration error {percent(expected_calibration_error(bins))}"
        for name, bins in curves.items()
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{text(f"{title}. {said}.")}"><style>{_STYLE}</style>'
        f'<rect class="paper" width="{width}" height="{height}"/>'
        f'<text x="{_LEFT}" y="18" font-weight="600">{text(title)}</text>{"".join(panels)}</svg>\n'
    )


def _panel(name: str, bins: Sequence[ReliabilityBin], left: int) -> str:
    bottom = _TOP + _SIZE

    def up(share: float) -> float:
        return bottom - _SIZE * share

    parts = [f'<text x="{left}" y="{_TOP - 8}">{text(name)}: error {percent(expected_calibration_error(bins))}</text>']
    parts += [
        f'<path class="grid" d="M{left} {up(tick):.1f}h{_SIZE}"/>'
        f'<text x="{left - 6}" y="{up(tick) + 4:.1f}" text-anchor="end">{tick:.0%}</text>'
        f'<text x="{left + _SIZE * tick:.1f}" y="{bottom + 18}" text-anchor="middle">{tick:.0%}</text>'
        for tick in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    for one in bins:
        if one.accuracy is None or one.confidence is None:
            continue
        x, wide = left + _SIZE * one.low, _SIZE * (one.high - one.low)
        tip = f"{one.count} videos, confidence {percent(one.confidence)}, accuracy {percent(one.accuracy)}"
        parts.append(
            f'<g><title>{text(tip)}</title><rect class="bar" x="{x + 1:.1f}" y="{up(one.accuracy):.1f}" '
            f'width="{wide - 2:.1f}" height="{_SIZE * one.accuracy:.1f}"/>'
            f'<path class="gap" d="M{x + wide / 2:.1f} {up(one.accuracy):.1f}V{up(one.confidence):.1f}"/></g>'
        )
    parts.append(f'<path class="even" d="M{left} {bottom}L{left + _SIZE} {_TOP}"/>')
    parts.append(
        f'<text x="{left + _SIZE / 2}" y="{bottom + 38}" text-anchor="middle">confidence; bars: accuracy</text>'
    )
    return "".join(parts)
