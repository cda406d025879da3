"""Draw docs/embedded.png and docs/embedded-hard.png: a test video of each class, at the centers of eight segments.

python docs/scripts/embedded_picture.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vsn.data.embedded.scenes import CLASSES, LEVELS, NUM_SEGMENTS, group_of
from vsn.data.embedded.write import SPLITS, SynthSpec, render_video

GAP, GROUP_GAP, NAME_WIDTH = 4, 14, 480


def draw(level: str) -> Image.Image:
    """Names on the left, frames on the right, a wider gap between groups."""
    groups, difficulty = LEVELS[level]
    spec = SynthSpec(groups=groups, difficulty=difficulty)
    pitch = spec.size + GAP
    tops, top = [], GROUP_GAP
    for number, name in enumerate(spec.classes):
        if number and group_of(name) != group_of(spec.classes[number - 1]):
            top += GROUP_GAP
        tops.append(top)
        top += pitch
    image = Image.new("RGB", (NAME_WIDTH + NUM_SEGMENTS * pitch + GROUP_GAP, top + GROUP_GAP), (250, 250, 250))
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=15)
    for name, top in zip(spec.classes, tops, strict=True):
        middle = top + spec.size // 2
        pen.text((GROUP_GAP, middle - 10), name, fill=(30, 30, 30), font=font, anchor="lm")
        pen.text((GROUP_GAP, middle + 10), group_of(name), fill=(140, 140, 140), font=font, anchor="lm")
        frames, _ = render_video(name, (spec.seed, SPLITS.index("test"), CLASSES.index(name), 0), spec=spec)
        for column in range(NUM_SEGMENTS):
            center = int((column + 0.5) * len(frames) / NUM_SEGMENTS)
            image.paste(Image.fromarray(frames[center]), (NAME_WIDTH + column * pitch, top))
    return image


if __name__ == "__main__":
    for level, file in (("basic", "embedded.png"), ("hard", "embedded-hard.png")):
        picture = draw(level)
        small = picture.resize((760, picture.height * 760 // picture.width))
        small.quantize(256, dither=Image.Dither.NONE).save(Path(__file__).parents[1] / file)
