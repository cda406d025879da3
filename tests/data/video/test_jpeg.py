import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from vsn.data.video.jpeg import decode_jpeg, encode_jpeg


def smooth(height: int = 40, width: int = 56) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * x, 5 * y, 2 * (x + y)], axis=-1).astype(np.uint8)


def as_jpeg(image: np.ndarray, mode: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).convert(mode).save(stream, "JPEG", quality=95, **options)
    return stream.getvalue()


def refuse(data: bytes, **options: object) -> None:
    """As simplejpeg does for what it cannot decode."""
    raise ValueError


@pytest.fixture(params=["simplejpeg", "Pillow"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "Pillow":
        monkeypatch.setattr(simplejpeg, "decode_jpeg", refuse)
    return request.param


def test_there_and_back(decoder: str) -> None:
    image = smooth()
    read = decode_jpeg(encode_jpeg(image, quality=95))
    assert (read.dtype, read.shape, read.flags.writeable) == (np.uint8, image.shape, True)
    assert np.abs(read.astype(int) - image).mean() < 2
    coarse = decode_jpeg(encode_jpeg(image, quality=20))
    assert np.abs(coarse.astype(int) - image).mean() > np.abs(read.astype(int) - image).mean()


@pytest.mark.parametrize("shape", [(1, 1), (1, 17), (31, 2), (33, 47)])
def test_any_size(decoder: str, shape: tuple[int, int]) -> None:
    image = smooth(*shape)
    assert decode_jpeg(encode_jpeg(image, quality=90)).shape == image.shape


def test_into_an_array(decoder: str) -> None:
    image = smooth()
    data = encode_jpeg(image, quality=90)
    frames = np.zeros((2, *image.shape), np.uint8)
    out = frames[1]
    assert decode_jpeg(data, out) is out
    assert np.array_equal(frames[1], decode_jpeg(data))
    assert not frames[0].any()
    for wrong in (np.zeros((40, 55, 3), np.uint8), np.zeros((80, 56, 3), np.uint8)):
        with pytest.raises(ValueError, match=f"{wrong.shape[0]}x{wrong.shape[1]} .*40x56"):
            decode_jpeg(data, wrong)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_other_kinds_of_jpeg(decoder: str, mode: str, progressive: bool) -> None:
    image = smooth()
    expected = np.asarray(Image.fromarray(image).convert(mode).convert("RGB"))
    data = as_jpeg(image, mode, progressive=progressive)
    for read in (decode_jpeg(data), decode_jpeg(data, np.empty_like(image))):
        assert np.abs(read.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("data", [b"", b"not a picture", encode_jpeg(smooth(), quality=90)[:300]])
def test_damaged_bytes(decoder: str, data: bytes) -> None:
    for out in (None, np.empty((40, 56, 3), np.uint8)):
        with pytest.raises(ValueError, match="not a complete JPEG"):
            decode_jpeg(data, out)


def test_both_decoders_give_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (47, 61, 3)).astype(np.uint8)
    pictures = [
        encode_jpeg(noise, quality=90),
        as_jpeg(noise, "L"),
        as_jpeg(noise, "RGB", subsampling="4:2:2"),
    ]
    fast = [decode_jpeg(data) for data in pictures]
    monkeypatch.setattr(simplejpeg, "decode_jpeg", refuse)
    for data, image in zip(pictures, fast, strict=True):
        assert np.array_equal(decode_jpeg(data), image)
