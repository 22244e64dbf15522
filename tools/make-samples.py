#!/usr/bin/env python3
"""Makes the sample files of www/ that are not written by hand, and their list of sums.

    tools/make-samples.py           write them, then www/B3SUMS (needs b3sum)
    tools/make-samples.py --check   write nothing; fail if a file is not what this script makes

Only the standard library is used, and every value is computed from constants, so that the same
files come out everywhere. Pictures are compared by their pixels, because releases of zlib may
pack the same pixels differently.
"""

import hashlib
import math
import struct
import subprocess
import sys
import zlib
from pathlib import Path

WWW = Path(__file__).resolve().parent.parent / "www"

# Three chunks of 1 MiB and a short fourth one of an odd length.
BINARY_SIZE = 3 * 1024 * 1024 + 12_345

# The parts of the page and the list itself are not samples.
NOT_LISTED = {"B3SUMS", "index.html", "test.html", "style.css", "icon.svg", "favicon.ico"}


def binary() -> bytes:
    """Bytes that no compressor can shorten: the output of SHAKE256 (FIPS 202) for a fixed phrase."""
    return hashlib.shake_256(b"relay chain sample").digest(BINARY_SIZE)


def readings() -> bytes:
    """Two weeks of hourly readings of the station in `field notes.txt`, fox included."""
    lines = ["time,temperature_c,wind_m_s,battery_v"]
    noise = hashlib.shake_256(b"relay chain readings").digest(14 * 24 * 2)
    for hour in range(14 * 24):
        day, clock = divmod(hour, 24)
        daylight = max(0.0, math.sin((clock - 6) / 12 * math.pi))
        temperature = -9 - 0.3 * day + 7 * daylight + noise[2 * hour] / 64
        wind = 3 + 4 * noise[2 * hour + 1] / 255
        if day == 8 and clock in (2, 3, 4):
            wind += 21  # something with a tail was sitting on the mast
        battery = 12.2 + 1.3 * daylight - 0.02 * day
        lines.append(f"2024-02-{day + 1:02}T{clock:02}:00Z,{temperature:.1f},{wind:.1f},{battery:.2f}")
    return ("\n".join(lines) + "\n").encode()


PICTURE_WIDTH, PICTURE_HEIGHT = 640, 240

# Where the picture begins in an ICO file that has only one.
ICON_START = 22


def picture_rows() -> bytes:
    """A chain of five links as rows of RGB pixels, each row behind the filter byte that PNG wants."""
    background, shade = (245, 243, 238), (214, 221, 224)
    rows = bytearray()
    links = [((64 + 128 * n, 120), n % 2 == 0) for n in range(5)]
    for y in range(PICTURE_HEIGHT):
        rows.append(0)
        for x in range(PICTURE_WIDTH):
            pixel = background
            # A link that is seen from its edge is thin and lies over its flat neighbours.
            for (cx, cy), flat in sorted(links, key=lambda link: not link[1]):
                distance = flat_link(x - cx, y - cy, 46, 38, 11) if flat else bar(x - cx, y - cy, 74, 11)
                fallen = (x - cx - 5, y - cy - 9)
                fell = flat_link(*fallen, 46, 38, 11) if flat else bar(*fallen, 74, 11)
                pixel = blend(pixel, shade, coverage(fell))
                tone = 0.5 - 0.5 * max(-1.0, min(1.0, (y - cy) / 46))
                colour = tuple(round(low + (high - low) * tone) for low, high in ((8, 42), (70, 132), (98, 160)))
                pixel = blend(pixel, colour, coverage(distance))
            rows.extend(pixel)
    return bytes(rows)


def icon_rows() -> bytes:
    """The drawing of icon.svg as rows of 32 RGBA pixels, for browsers that ask for /favicon.ico on their own."""
    near, far = (11, 92, 122), (85, 112, 124)
    rows = bytearray()
    for y in range(32):
        rows.append(0)
        for x in range(32):
            dx, dy = x + 0.5 - 16, y + 0.5 - 16
            behind = coverage(min(flat_link(dx - 6.5, dy, 0.5, 6, 2), bar(dx, dy, 3, 2)))
            before = coverage(flat_link(dx + 5.5, dy, 1.5, 6, 2))
            opaque = before + behind * (1 - before)
            rows.extend(blend(far, near, before / opaque if opaque > 0 else 0))
            rows.append(round(255 * opaque))
    return bytes(rows)


def flat_link(dx: float, dy: float, half: float, radius: float, thickness: float) -> float:
    """How many pixels a point is outside (or, below zero, inside) a link that is seen from its flat side."""
    return abs(bar(dx, dy, half, radius)) - thickness


def bar(dx: float, dy: float, half: float, thickness: float) -> float:
    """The same for a bar with round ends, which is a link that is seen from its edge."""
    return math.hypot(dx - max(-half, min(half, dx)), dy) - thickness


def coverage(distance: float) -> float:
    return max(0.0, min(1.0, 0.5 - distance))


def blend(under: tuple, over: tuple, share: float) -> tuple:
    return tuple(round(u + (o - u) * share) for u, o in zip(under, over))


def picture() -> bytes:
    return png(PICTURE_WIDTH, PICTURE_HEIGHT, 2, picture_rows())


def icon() -> bytes:
    """An ICO file with one picture, which may be a PNG."""
    image = icon_png()
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 32, 32, 0, 0, 1, 32, len(image), ICON_START) + image


def icon_png() -> bytes:
    return png(32, 32, 6, icon_rows())


def png(width: int, height: int, colour_type: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, body) for kind, body in chunks)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def same_pixels(path: Path, start: int, rows: bytes) -> bool:
    """Whether the PNG that starts at a place in a file holds these rows."""
    if not path.exists():
        return False
    png = path.read_bytes()[start:]
    packed, at = b"", 8
    while at + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, at)
        if png[at + 4 : at + 8] == b"IDAT":
            packed += png[at + 8 : at + 8 + length]
        at += 12 + length
    try:
        return zlib.decompress(packed) == rows
    except zlib.error:
        return False


def listed() -> list[str]:
    found = (path for path in WWW.rglob("*") if path.is_file())
    names = (path.relative_to(WWW).as_posix() for path in found)
    return sorted(name for name in names if name not in NOT_LISTED and not name.startswith("."))


def make() -> None:
    (WWW / "sample.bin").write_bytes(binary())
    (WWW / "station").mkdir(exist_ok=True)
    (WWW / "station" / "readings.csv").write_bytes(readings())
    if not same_pixels(WWW / "chain.png", 0, picture_rows()):
        (WWW / "chain.png").write_bytes(picture())
    if not same_pixels(WWW / "favicon.ico", ICON_START, icon_rows()):
        (WWW / "favicon.ico").write_bytes(icon())
    sums = subprocess.run(["b3sum", "--", *listed()], cwd=WWW, stdout=subprocess.PIPE, check=True)
    (WWW / "B3SUMS").write_bytes(sums.stdout)


def check() -> list[str]:
    faults = []
    if (WWW / "sample.bin").read_bytes() != binary():
        faults.append("sample.bin is not what binary() makes")
    if (WWW / "station" / "readings.csv").read_bytes() != readings():
        faults.append("station/readings.csv is not what readings() makes")
    if not same_pixels(WWW / "chain.png", 0, picture_rows()):
        faults.append("chain.png does not hold the pixels that picture_rows() makes")
    if not same_pixels(WWW / "favicon.ico", ICON_START, icon_rows()):
        faults.append("favicon.ico does not hold the pixels that icon_rows() makes")
    names = [line.split("  ", 1)[1] for line in (WWW / "B3SUMS").read_text().splitlines()]
    if names != listed():
        faults.append(f"B3SUMS lists {names}, but the samples are {listed()}")
    if subprocess.run(["b3sum", "--quiet", "--check", "B3SUMS"], cwd=WWW).returncode != 0:
        faults.append("B3SUMS does not match the files")
    return faults


def main() -> int:
    if sys.argv[1:] == ["--check"]:
        faults = check()
        for fault in faults:
            print(f"make-samples: {fault}; run tools/make-samples.py if the change is meant", file=sys.stderr)
        return 1 if faults else 0
    if sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 2
    make()
    return 0


if __name__ == "__main__":
    sys.exit(main())
