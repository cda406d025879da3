"""Optical flow by OpenCV, for comparison with what others stored; an extra, `pip install "vsn[flow]"`.

TV-L1 is what TSN and the code bases after it extracted. DIS and Farneback are not the paper's: they are faster,
and a model trained on their flow is another model.
"""

from __future__ import annotations

import itertools
from typing import Any, Literal

import numpy as np

from vsn.config import ConfigError


def opencv_flow(frames: np.ndarray, method: Literal["tvl1-opencv", "dis", "farneback"]) -> np.ndarray:
    """The motion from each frame to the next: grey frames, uint8 `(n + 1, H, W)`, to float32 `(n, H, W, 2)`.

    OpenCV's own parameters. Of its threads it uses one: processes give the parallelism. Raises `ConfigError`
    where it is not installed.
    """
    cv2 = _opencv()
    cv2.setNumThreads(1)
    calc = _calculator(cv2, method)
    return np.stack([calc(first, second) for first, second in itertools.pairwise(frames)])


def _calculator(cv2: Any, method: str) -> Any:
    match method:
        case "tvl1-opencv":
            tvl1 = cv2.optflow.DualTVL1OpticalFlow_create()
            return lambda first, second: tvl1.calc(first, second, None)
        case "dis":
            dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
            return lambda first, second: dis.calc(first, second, None)
        case "farneback":
            # As in OpenCV's own samples: scale, levels, window, iterations, neighbourhood, its sigma, flags.
            return lambda first, second: cv2.calcOpticalFlowFarneback(
                first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0
            )
    raise ConfigError(f"{method!r} is no method of OpenCV's; there are tvl1-opencv, dis and farneback.")


def _opencv() -> Any:
    try:
        import cv2

        cv2.optflow  # noqa: B018 - only the contrib build has it
    except (ImportError, AttributeError):
        raise ConfigError(
            "this method of flow needs opencv-contrib-python-headless, which is not installed (the plain OpenCV lacks "
            'TV-L1): pip install "vsn[flow]". --method tvl1 needs nothing more.'
        ) from None
    return cv2
