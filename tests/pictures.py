"""Images of the kinds that people upload, and of those that are made to do harm."""

import struct
import zlib
from functools import cache
from io import BytesIO

from PIL import ExifTags, Image

JPEG, PNG = "image/jpeg", "image/png"
BROKEN = "The image is broken, and cannot be decoded to its end."
TOO_LARGE = "The image has more than 50,000,000 pixels."
REPEATS = "The image repeats a part more than 100 times."


def encoded(image, form, **settings):
    """Return an image of Pillow as the bytes of a file."""
    file = BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()


def plain(width, height, mode="RGB"):
    """Return an image with a red left and a green right half, so that one sees how it is turned."""
    image = Image.new("RGB", (width, height), (200, 30, 30))
    image.paste((30, 200, 30), (width // 2, 0, width, height))
    return image.convert(mode)


def photo(width, height):
    """Return an image with as much detail as a photo."""
    noise = Image.effect_noise((width // 64 + 1, height // 64 + 1), 90).resize((width, height))
    return Image.merge("RGB", [noise, noise.transpose(0), noise.transpose(1)])


def exif(orientation):
    """Return EXIF that says how an image is turned, and where it was taken."""
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (12.0, 34.0, 56.0)
    return tags


# --- PNG, chunk by chunk (W3C, "PNG Specification", 5.3)


def chunk(kind, data=b""):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *chunks, depth=8, colour=2):
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IEND")


def pixels(row, height):
    return chunk(b"IDAT", zlib.compress((b"\0" + row) * height, 9))


BLACK = pixels(bytes(40 * 3), 30)


@cache
def inflates(size=200_000_000):
    """Return few bytes that zlib makes many of."""
    return zlib.compress(bytes(size), 9)


# --- JPEG, segment by segment (ITU-T T.81, annex B)


def segment(marker, data):
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def with_segments(jpeg, segments):
    return jpeg[:2] + segments + jpeg[2:]


def with_scans(times):
    """Return a JPEG whose last pass over its 49 million pixels comes so many times more, in 26 or 98 bytes each."""
    jpeg = encoded(Image.new("RGB", (7000, 7000), (200, 30, 30)), "JPEG", progressive=True)
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + last * times + jpeg[-2:]


SMALL = encoded(plain(40, 30), "JPEG")


@cache
def noise(form):
    return encoded(Image.effect_noise((400, 300), 50).convert("RGB"), form)


# --- What is no image, or should be none: (type, what makes the bytes, reason)

HOSTILE = {
    "nothing": (PNG, lambda: b"\0", "The bytes are not image/png."),
    "HTML": (JPEG, lambda: b"<script>alert(1)</script>", "The bytes are not image/jpeg."),
    "text with the head of a PNG": (PNG, lambda: b"\x89PNG\r\n\x1a\nHello", "The bytes are not image/png."),
    "GIF": (PNG, lambda: encoded(plain(40, 30), "GIF"), "The bytes are not image/png."),
    "SVG": (
        PNG,
        lambda: b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        "The bytes are not image/png.",
    ),
    "PNG called JPEG": (JPEG, lambda: encoded(plain(40, 30), "PNG"), "The bytes are not image/jpeg."),
    "JPEG called PNG": (PNG, lambda: SMALL, "The bytes are not image/png."),
    "GIF before a JPEG": (JPEG, lambda: encoded(plain(40, 30), "GIF") + SMALL, "The bytes are not image/jpeg."),
    "JPEG cut off": (JPEG, lambda: noise("JPEG")[:-1000], BROKEN),
    "JPEG without its end": (JPEG, lambda: noise("JPEG")[:-2], BROKEN),
    "JPEG, only its head": (JPEG, lambda: noise("JPEG")[:700], BROKEN),
    "PNG cut off": (PNG, lambda: noise("PNG")[:-1000], BROKEN),
    "PNG without pixels": (PNG, lambda: png(40, 30), BROKEN),
    "PNG whose pixels do not inflate": (PNG, lambda: png(40, 30, chunk(b"IDAT", b"x" * 99)), BROKEN),
    "PNG without width": (PNG, lambda: png(0, 30, BLACK), "The bytes are not image/png."),
    "PNG of 60,000 x 60,000": (PNG, lambda: png(60_000, 60_000, BLACK), TOO_LARGE),
    "PNG of 10,000 x 10,000": (PNG, lambda: png(10_000, 10_000, BLACK), TOO_LARGE),
    "PNG of 2^31 - 1 squared": (PNG, lambda: png(2**31 - 1, 2**31 - 1, BLACK), TOO_LARGE),
    "PNG of 1 x 49,999,999": (
        PNG,
        lambda: png(1, 49_999_999, pixels(b"\0", 49_999_999), colour=0),
        "A side of the image has more than 65,535 pixels.",
    ),
    "JPEG of 65,500 x 65,500": (
        JPEG,
        lambda: SMALL.replace(struct.pack(">HH", 30, 40), struct.pack(">HH", 65500, 65500)),
        TOO_LARGE,
    ),
    "text that inflates": (PNG, lambda: png(40, 30, chunk(b"zTXt", b"a\0\0" + inflates()), BLACK), BROKEN),
    "text in UTF-8 that inflates": (
        PNG,
        lambda: png(40, 30, chunk(b"iTXt", b"a\0\1\0\0\0" + inflates()), BLACK),
        BROKEN,
    ),
    "profile that inflates": (PNG, lambda: png(40, 30, chunk(b"iCCP", b"a\0\0" + inflates()), BLACK), BROKEN),
    "9,000 profiles that inflate": (
        PNG,
        lambda: png(40, 30, chunk(b"iCCP", b"a\0\0" + inflates(1_000_000)) * 9000, BLACK),
        REPEATS,
    ),
    "9,000 texts that inflate": (
        PNG,
        lambda: png(40, 30, chunk(b"zTXt", b"a\0\0" + inflates(1_000_000)) * 9000, BLACK),
        BROKEN,
    ),
    "100,000 scans of 49 million pixels": (JPEG, lambda: with_scans(100_000), REPEATS),
    "500,000 segments of EXIF": (
        JPEG,
        lambda: with_segments(
            SMALL, segment(0xE1, b"Exif\0\0" + bytes(60_000)) * 70 + segment(0xE1, b"Exif\0\0x") * 500_000
        ),
        REPEATS,
    ),
}

# --- What looks odd, and is an image: (type, what makes the bytes)

ODD = {
    "CMYK": (JPEG, lambda: encoded(plain(300, 200, "CMYK"), "JPEG")),
    "grey JPEG": (JPEG, lambda: encoded(plain(300, 200, "L"), "JPEG")),
    "progressive JPEG": (JPEG, lambda: encoded(plain(300, 200), "JPEG", progressive=True)),
    "two pictures in one (MPO)": (
        JPEG,
        lambda: encoded(plain(300, 200), "MPO", save_all=True, append_images=[plain(300, 200)]),
    ),
    "MPO whose table is broken": (JPEG, lambda: with_segments(SMALL, segment(0xE2, b"MPF\0broken"))),
    "profile of 9 MB": (JPEG, lambda: encoded(plain(300, 200), "JPEG", icc_profile=bytes(9_000_000))),
    "broken EXIF": (
        JPEG,
        lambda: with_segments(SMALL, segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 99)),
    ),
    "EXIF that is none": (JPEG, lambda: with_segments(SMALL, segment(0xE1, b"Exif\0\0nothing"))),
    "JPEG with a page behind it": (JPEG, lambda: SMALL + b"<script>alert(1)</script>" * 99),
    "JPEG with 89 scans more": (JPEG, lambda: with_scans(89)),
    "two million comments": (JPEG, lambda: with_segments(SMALL, segment(0xFE, b"") * 2_000_000)),
    "one bit": (PNG, lambda: encoded(plain(300, 200, "1"), "PNG")),
    "grey of 16 bits": (PNG, lambda: encoded(Image.new("I;16", (300, 200), 40_000), "PNG")),
    "RGB of 16 bits": (PNG, lambda: png(40, 30, pixels(struct.pack(">HHH", 40_000, 256, 65_535) * 40, 30), depth=16)),
    "grey with alpha": (PNG, lambda: encoded(plain(300, 200, "LA"), "PNG")),
    "palette": (PNG, lambda: encoded(plain(300, 200, "P"), "PNG")),
    "palette with transparency": (PNG, lambda: encoded(plain(300, 200, "P"), "PNG", transparency=0)),
    "transparent colour": (PNG, lambda: encoded(plain(300, 200), "PNG", transparency=(200, 30, 30))),
    "animated PNG": (PNG, lambda: encoded(plain(300, 200), "PNG", save_all=True, append_images=[plain(300, 200)])),
    "more data than pixels": (PNG, lambda: png(40, 30, chunk(b"IDAT", inflates()))),
    "800,000 chunks of nothing": (PNG, lambda: png(40, 30, chunk(b"IDAT") * 800_000, BLACK)),
    "65,500 x 1": (JPEG, lambda: encoded(plain(65_500, 1), "JPEG")),
    "1 x 1": (PNG, lambda: encoded(plain(1, 1), "PNG")),
}
