"""Decode the text files of a data set: UTF-8, and what spreadsheets write."""

from __future__ import annotations

import codecs
from pathlib import Path

from vsn.config import ConfigError

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_BINARY = {
    b"PK\3\4": "an .xlsx or .ods workbook, or a ZIP archive",
    b"\xd0\xcf\x11\xe0": "an .xls workbook",
    b"\x1f\x8b": "compressed by gzip",
}
_SAVE = 'Save it as UTF-8 ("CSV UTF-8" in a spreadsheet).'


def read_text(file: Path) -> str:
    r"""Return the text of a file in UTF-8, or in the encoding of its byte order mark; lines end in ``\n``.

    Raises `ConfigError` for another encoding: it states the line, and the likely cause. Encodings are not guessed,
    because a wrong guess would rename classes.
    """
    return decode_file(file)[0]


def decode_file(file: Path) -> tuple[str, str]:
    """Do what `read_text` does; return the name of the encoding too."""
    data = file.read_bytes()
    for signature, kind in _BINARY.items():
        if data.startswith(signature):
            raise ConfigError(f"{file}: not text: {kind}. Save it as text in UTF-8.")
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding not in ("utf-8", "utf-8-sig"):
            raise ConfigError(f"{file}: its byte order mark states {encoding.upper()}, but {error}. {_SAVE}") from error
        if b"\0" in data:
            raise ConfigError(f"{file}: not text in UTF-8: it looks like UTF-16. {_SAVE}") from error
        raise ConfigError(f"{file}: not text in UTF-8: {_western_line(data, error.start)}. {_SAVE}") from error
    # UTF-16 without a mark is valid UTF-8 with zero bytes where all letters are ASCII.
    if "\0" in text:
        raise ConfigError(f"{file}: not text in UTF-8: it has zero bytes, as UTF-16 without a byte order mark. {_SAVE}")
    return text.replace("\r\n", "\n").replace("\r", "\n"), encoding


def _western_line(data: bytes, start: int) -> str:
    """Describe the line that holds the byte at `start`, as Windows-1252 reads it."""
    before = data[:start].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    line = data[start - len(before[-1]) :].splitlines()[0]
    return (
        f"line {len(before)} has the byte 0x{data[start]:02x}, and would read "
        f"{line[:80].decode('cp1252', errors='replace')!r} in Windows-1252 or Latin-1"
    )
