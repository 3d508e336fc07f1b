"""A picture as a person holds it: it shows itself, and saves itself.

Law: drawing needs nothing but this package. Only `.png` asks for a converter, found when it is needed.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from agentflow.errors import InvalidConfig, MissingExtra
from agentflow.notebook.html import STYLE, escape, image

KINDS: Final = (".svg", ".html", ".png")
SECS: Final = 60.0
CHROME_LEAST: Final = 400
"""Pixels that a window of Chromium's is high at least."""
CHROMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Picture:
    """An SVG with a name.

    Parameters
    ----------
    draw : callable
        `draw(theme)` gives the SVG; `auto` follows the viewer.
    label : str
        What it shows, in a sentence.

    Examples
    --------
    >>> picture = Picture(lambda theme: "<svg xmlns='http://www.w3.org/2000/svg'/>", "nothing")
    >>> picture
    <Picture nothing>
    """

    __slots__ = ("_draw", "label")

    def __init__(self, draw: Callable[[str], str], label: str) -> None:
        self._draw = draw
        self.label = label

    def svg(self, theme: str = "auto") -> str:
        """The text of the SVG; `theme` is `auto`, `light` or `dark`."""
        if theme not in ("auto", "light", "dark"):
            raise InvalidConfig(f"theme={theme!r} is neither 'auto', 'light' nor 'dark'", field="theme")
        return self._draw(theme)

    def html(self) -> str:
        """The picture as a piece of HTML that survives an untrusted notebook."""
        return f"{STYLE}<div class='agentflow'>{image(self.svg(), self.label)}</div>"

    def save(self, path: str | os.PathLike[str], theme: str = "auto") -> Path:
        """Write the picture to a file.

        Parameters
        ----------
        path : str or path
            Ends in `.svg`, `.html` or `.png`. For `.png` one of cairosvg, rsvg-convert, Inkscape or Chromium
            must be installed.
        theme : {"auto", "light", "dark"}
            A `.png` cannot follow its viewer: `auto` makes it light.

        Returns
        -------
        pathlib.Path
            Where it was written.

        Raises
        ------
        InvalidConfig
            If the file's name ends in something else.
        MissingExtra
            If nothing on this machine can make a `.png`.
        """
        target = Path(path)
        kind = target.suffix.lower()
        if kind not in KINDS:
            raise InvalidConfig(
                f"a picture is saved as {', '.join(KINDS)}, not as {target.name!r}", field="path"
            )
        if kind == ".png":
            target.write_bytes(png(self.svg("light" if theme == "auto" else theme)))
        else:
            svg = self.svg(theme)
            target.write_text(
                svg if kind == ".svg" else page(self.label, image(svg, self.label)), encoding="utf-8"
            )
        return target

    def _repr_svg_(self) -> str:
        return self.svg()

    def _repr_html_(self) -> str:
        return self.html()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Mapping[str, Any]:
        return {"text/plain": repr(self), "text/html": self.html()}

    def __repr__(self) -> str:
        return f"<Picture {self.label}>"


def page(title: str, body: str) -> str:
    """A whole HTML page in both themes, which asks the network for nothing."""
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{escape(title)}</title>{STYLE}"
        "<style>:root{color-scheme:light dark}body{margin:24px auto;max-width:992px;padding:0 16px;"
        "font-family:system-ui,sans-serif;background:#f2f4f6;color:#1b2430}"
        "@media(prefers-color-scheme:dark){body{background:#0b1015;color:#e9eef3}}"
        "h1{font-size:20px;margin:0 0 4px}h2{font-size:15px;margin:22px 0 4px}</style></head>"
        f"<body><div class='agentflow'>{body}</div></body></html>"
    )


def png(svg: str, scale: float = 2.0) -> bytes:
    """Turn an SVG into a PNG by the first converter there is."""
    for convert in (_by_cairosvg, _by_program, _by_chrome):
        made = convert(svg, scale)
        if made:
            return made
    raise MissingExtra(
        "a .png needs a converter: pip install cairosvg, or install rsvg-convert, Inkscape or Chromium; "
        ".svg and .html need none",
        package="cairosvg",
    )


def _by_cairosvg(svg: str, scale: float) -> bytes | None:
    try:
        import cairosvg  # type: ignore[import-not-found, unused-ignore]

        made: bytes = cairosvg.svg2png(bytestring=svg.encode(), scale=scale)
    except Exception:
        # Not installed, without its C library, or not up to this picture: the next one may be.
        return None
    return made


def _by_program(svg: str, scale: float) -> bytes | None:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "picture.svg"), Path(folder, "picture.png")
        source.write_text(svg, encoding="utf-8")
        commands = (
            ["rsvg-convert", "--zoom", str(scale), "-o", str(target), str(source)],
            ["inkscape", str(source), f"--export-filename={target}", f"--export-dpi={96 * scale:g}"],
        )
        for command in commands:
            if shutil.which(command[0]) and _run(command) and target.exists():
                return target.read_bytes()
    return None


def _by_chrome(svg: str, scale: float) -> bytes | None:
    program = next(filter(None, map(shutil.which, CHROMES)), None)
    if program is None:
        return None
    width, height = size_of(svg)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        source, target = Path(folder, "picture.html"), Path(folder, "picture.png")
        source.write_text(
            f"<!doctype html><meta charset=utf-8><body style='margin:0'>{svg}", encoding="utf-8"
        )
        command = [
            *(program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
            *(
                "--hide-scrollbars",
                f"--user-data-dir={folder}/profile",
                f"--force-device-scale-factor={scale:g}",
            ),
            *("--default-background-color=00000000", f"--window-size={width},{max(height, CHROME_LEAST)}"),
            *(f"--screenshot={target}", source.as_uri()),
        ]
        made = target.read_bytes() if _run(command) and target.exists() else None
    return made if made is None or height >= CHROME_LEAST else cropped(made, round(height * scale))


def cropped(data: bytes, rows: int) -> bytes:
    """The first rows of a PNG that is not interlaced: a row depends on those above it alone.

    Chromium draws nothing where its own frame would be, so what is low is drawn in a window that is high enough.
    """
    parts, at = [data[:8]], 8
    header, pixels = b"", b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            header = body
        elif kind == b"IDAT":
            pixels += body
        at += 12 + size
    wide, high, depth, colour = struct.unpack(">IIBB", header[:10])
    stride = 1 + wide * depth * {0: 1, 2: 3, 6: 4}[colour] // 8
    kept = zlib.compress(zlib.decompress(pixels)[: stride * min(rows, high)], 9)
    header = struct.pack(">II", wide, min(rows, high)) + header[8:]
    for kind, body in ((b"IHDR", header), (b"IDAT", kept), (b"IEND", b"")):
        parts.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
    return b"".join(parts)


def _run(command: list[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def size_of(svg: str) -> tuple[int, int]:
    """Width and height of a picture of ours, in whole pixels.

    Examples
    --------
    >>> size_of("<svg width='10.5' height='20'>")
    (11, 20)
    """
    head = svg[: svg.index(">")].replace('"', "'")

    def read(name: str) -> int:
        return -int(-float(head.split(f" {name}='", 1)[1].split("'", 1)[0]) // 1)

    return read("width"), read("height")
