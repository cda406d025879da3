"""Draw docs/embedded.png: one test video of each class of the embedded data set, at the centers of eight segments.

python docs/scripts/embedded_picture.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vsn.data.embedded.scenes import CLASSES, NUM_SEGMENTS, group_of
from vsn.data.embedded.write import SPLITS, SynthSpec, render_video

GAP, GROUP_GAP, NAME_WIDTH = 4, 14, 420


def draw() -> Image.Image:
    """Names on the left, frames on the right, a wider gap between groups."""
    spec = SynthSpec()
    pitch = spec.size + GAP
    tops, top = [], GROUP_GAP
    for number, name in enumerate(CLASSES):
        if number and group_of(name) != group_of(CLASSES[number - 1]):
            top += GROUP_GAP
        tops.append(top)
        top += pitch
    image = Image.new("RGB", (NAME_WIDTH + NUM_SEGMENTS * pitch + GROUP_GAP, top + GROUP_GAP), (250, 250, 250))
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=15)
    for class_id, (name, top) in enumerate(zip(CLASSES, tops, strict=True)):
        middle = top + spec.size // 2
        pen.text((GROUP_GAP, middle - 10), name, fill=(30, 30, 30), font=font, anchor="lm")
        pen.text((GROUP_GAP, middle + 10), group_of(name), fill=(140, 140, 140), font=font, anchor="lm")
        frames, _ = render_video(name, (spec.seed, SPLITS.index("test"), class_id, 0), spec=spec)
        for column in range(NUM_SEGMENTS):
            center = int((column + 0.5) * len(frames) / NUM_SEGMENTS)
            image.paste(Image.fromarray(frames[center]), (NAME_WIDTH + column * pitch, top))
    return image


if __name__ == "__main__":
    picture = draw()
    picture.resize((760, picture.height * 760 // picture.width)).save(Path(__file__).parents[1] / "embedded.png")
