"""Pictures from nothing: colours, shapes, settings, and an emoji laid on a background.

Everything is drawn at any side length and returns RGB images; `rng` alone decides what is random.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (214, 40, 40),
    "orange": (244, 140, 40),
    "yellow": (250, 214, 60),
    "green": (60, 170, 80),
    "blue": (50, 110, 225),
    "purple": (140, 70, 190),
    "pink": (245, 140, 190),
    "brown": (130, 85, 50),
    "black": (18, 18, 20),
    "gray": (140, 140, 145),
    "teal": (40, 170, 170),
    "white": (255, 255, 255),
}
TINTS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "teal")
SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "ring", "cross")
SETTINGS = ("grass", "night", "beach", "sea", "snow", "desert", "sunset", "sky", "forest", "city", "room")
FLOATING = ("night", "sky", "sea")  # settings without a floor to stand on

_FINE = 4  # shapes are drawn this much larger and scaled down


def shaded(colour: RGB, rng: random.Random, spread: float = 8) -> RGB:
    """The colour, a little off; white stays white, so that it means the white of the page."""
    if colour == COLOURS["white"]:
        return colour
    red, green, blue = (round(min(255, max(0, c + rng.uniform(-spread, spread)))) for c in colour)
    return red, green, blue


def plain(side: int, colour: RGB) -> Image.Image:
    """One colour."""
    return Image.new("RGB", (side, side), colour)


Numbers = Sequence[float] | np.ndarray


def gradient(side: int, start: Numbers, end: Numbers, angle: float = math.pi / 2) -> Image.Image:
    """From one colour to another along `angle` (default: from top to bottom)."""
    y, x = np.mgrid[0:side, 0:side] / max(1, side - 1) - 0.5
    along = x * math.cos(angle) + y * math.sin(angle)
    share = ((along - along.min()) / np.ptp(along))[..., None]
    pixels = np.asarray(start) * (1 - share) + np.asarray(end) * share
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGB")


def pastel(side: int, rng: random.Random) -> Image.Image:
    """A soft background of any hue, lighter on one side."""
    hue = np.array([rng.uniform(170, 250) for _ in range(3)])
    return gradient(side, hue, hue * 0.35 + 255 * 0.65, rng.uniform(0, 2 * math.pi))


def shape_mask(kind: str, side: int) -> Image.Image:
    """A shape filling a square, as an L mask. Raises ValueError for an unknown kind."""
    n = side * _FINE
    mask = Image.new("L", (n, n), 0)
    draw = ImageDraw.Draw(mask)
    w = n - 1

    def scaled(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x * w, y * w) for x, y in points]

    if kind in ("circle", "ring"):
        draw.ellipse([0, 0, w, w], fill=255)
        if kind == "ring":
            draw.ellipse([0.25 * w, 0.25 * w, 0.75 * w, 0.75 * w], fill=0)
    elif kind == "square":
        draw.rectangle([0.06 * w, 0.06 * w, 0.94 * w, 0.94 * w], fill=255)
    elif kind == "triangle":
        draw.polygon(scaled([(0.5, 0.05), (1, 0.93), (0, 0.93)]), fill=255)
    elif kind == "diamond":
        draw.polygon(scaled([(0.5, 0), (0.88, 0.5), (0.5, 1), (0.12, 0.5)]), fill=255)
    elif kind == "cross":
        draw.rectangle([0.34 * w, 0, 0.66 * w, w], fill=255)
        draw.rectangle([0, 0.34 * w, w, 0.66 * w], fill=255)
    elif kind == "star":
        radii = [0.5 if i % 2 == 0 else 0.21 for i in range(10)]
        angles = [i * math.pi / 5 for i in range(10)]
        points = [(0.5 + r * math.sin(a), 0.52 - r * math.cos(a)) for r, a in zip(radii, angles, strict=True)]
        draw.polygon(scaled(points), fill=255)
    elif kind == "heart":
        turns = np.linspace(0, 2 * math.pi, 80)
        x = 16 * np.sin(turns) ** 3
        y = 13 * np.cos(turns) - 5 * np.cos(2 * turns) - 2 * np.cos(3 * turns) - np.cos(4 * turns)
        draw.polygon(scaled([(0.5 + a / 34, 0.47 - b / 34) for a, b in zip(x, y, strict=True)]), fill=255)
    else:
        raise ValueError(f"no such shape: {kind}")
    return mask.resize((side, side), Image.Resampling.LANCZOS)


def paste_shape(canvas: Image.Image, kind: str, colour: RGB, centre: tuple[float, float], size: float) -> None:
    """Draw a shape; centre and size in shares of the side."""
    side = max(4, round(size * canvas.width))
    corner = [round(c * canvas.width - side / 2) for c in centre]
    canvas.paste(colour, (corner[0], corner[1]), shape_mask(kind, side))


def tinted(emoji: Image.Image, colour: RGB) -> Image.Image:
    """The emoji in shades of one colour: dark parts darker, light parts towards white."""
    pixels = np.asarray(emoji).astype(np.float32)
    light = pixels[..., :3] @ np.array([0.3, 0.59, 0.11], np.float32) / 255
    seen = pixels[..., 3] > 128
    if seen.any():
        low, high = np.percentile(light[seen], [2, 98])
        light = np.clip((light - low) / max(float(high - low), 0.1), 0, 1)
    light = (0.18 + 0.72 * light)[..., None]
    base = np.array(colour, np.float32) / 255
    shades = np.where(light < 0.5, base * light * 2, base + (1 - base) * (light - 0.5) * 1.55)
    pixels[..., :3] = shades.clip(0, 1) * 255
    return Image.fromarray(pixels.astype(np.uint8), "RGBA")


def lit(emoji: Image.Image, rng: random.Random) -> Image.Image:
    """The emoji in another light: brighter or darker, warmer or cooler, stronger or weaker in colour."""
    alpha = emoji.getchannel("A")
    picture = ImageEnhance.Brightness(emoji.convert("RGB")).enhance(rng.uniform(0.86, 1.1))
    picture = ImageEnhance.Color(picture).enhance(rng.uniform(0.85, 1.15))
    warmth = rng.uniform(-0.06, 0.06)
    pixels = np.asarray(picture).astype(np.float32) * np.array([1 + warmth, 1, 1 - warmth], np.float32)
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGB")
    picture.putalpha(alpha)
    return picture


def paste_emoji(
    canvas: Image.Image,
    emoji: Image.Image,
    centre: tuple[float, float],
    size: float,
    *,
    turn: float = 0,
    flip: bool = False,
    shadow: bool = False,
) -> None:
    """Lay an emoji on the canvas; centre and size in shares of the side, turn in degrees."""
    width = canvas.width
    side = max(8, round(size * width))
    if flip:
        emoji = emoji.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if turn:
        emoji = emoji.rotate(turn, Image.Resampling.BICUBIC)
    emoji = emoji.resize((side, side), Image.Resampling.LANCZOS)
    left, top = (round(c * width - side / 2) for c in centre)
    if shadow:
        dark = Image.new("L", canvas.size, 0)
        ellipse = [left + 0.15 * side, top + 0.9 * side, left + 0.85 * side, top + side]
        ImageDraw.Draw(dark).ellipse(ellipse, fill=90)
        canvas.paste((0, 0, 0), (0, 0), dark.filter(ImageFilter.GaussianBlur(width / 64)))
    canvas.paste(emoji, (left, top), emoji)


def setting(kind: str, side: int, rng: random.Random) -> Image.Image:
    """A simple backdrop, drawn in units of 1/128 of the side. Raises ValueError for an unknown kind."""
    if kind not in _BACKDROPS:
        raise ValueError(f"no such setting: {kind}")
    return _BACKDROPS[kind](side, rng)


class _Brush:
    """Draws on an image in units of 1/128 of its side."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self._unit = image.width / 128
        self._draw = ImageDraw.Draw(image)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: RGB) -> None:
        u = self._unit
        self._draw.ellipse([(x - rx) * u, (y - ry) * u, (x + rx) * u, (y + ry) * u], fill=colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: RGB) -> None:
        u = self._unit
        self._draw.rectangle([left * u, top * u, right * u, bottom * u], fill=colour)

    def polygon(self, points: Sequence[tuple[float, float]], colour: RGB) -> None:
        self._draw.polygon([(x * self._unit, y * self._unit) for x, y in points], fill=colour)


def _grass(side: int, rng: random.Random) -> Image.Image:
    brush = _Brush(gradient(side, (120, 190, 250), (205, 235, 255)))
    brush.ellipse(30 + rng.uniform(-10, 10), 150, 110, 62, (110, 190, 80))
    brush.ellipse(100 + rng.uniform(-10, 10), 160, 110, 68, (90, 175, 70))
    return brush.image


def _night(side: int, rng: random.Random) -> Image.Image:
    brush = _Brush(gradient(side, (10, 14, 50), (40, 40, 100)))
    for _ in range(26):
        radius = rng.uniform(0.6, 1.5)
        brush.ellipse(rng.uniform(0, 128), rng.uniform(0, 128), radius, radius, (255, 250, 215))
    return brush.image


def _beach(side: int, rng: random.Random) -> Image.Image:
    brush = _Brush(gradient(side, (130, 205, 250), (200, 235, 250)))
    shore = 86 + rng.uniform(-3, 3)
    brush.box(0, 60, 128, shore + 4, (40, 140, 205))
    brush.box(0, shore, 128, 128, (240, 215, 150))
    brush.ellipse(40 + rng.uniform(-20, 20), shore + 4, 90, 7, (240, 215, 150))
    return brush.image


def _sea(side: int, rng: random.Random) -> Image.Image:
    brush = _Brush(gradient(side, (160, 215, 250), (225, 242, 252)))
    brush.box(0, 70, 128, 128, (30, 110, 190))
    offset = rng.uniform(0, 20)
    for row, y in enumerate((72, 90, 108)):
        for i in range(-1, 8):
            brush.ellipse(i * 20 + offset + row * 9, y, 11, 4, (60 + row * 12, 140 + row * 8, 215))
    return brush.image


def _snow(side: int, rng: random.Random) -> Image.Image:
    brush = _Brush(gradient(side, (150, 180, 215), (215, 228, 240)))
    brush.ellipse(64 + rng.uniform(-15, 15), 165, 130, 75, (248, 250, 255))
    for _ in range(22):
        radius = rng.uniform(0.8, 1.8)
        brush.ellipse(rng.uniform(0, 128), rng.uniform(0, 110), radius, radius, (255, 255, 255))
    return brush.image


def _desert(side: int, rng: random.Random) -> Image.Image:
    brush = _Brush(gradient(side, (250, 200, 120), (255, 235, 190)))
    brush.ellipse(100 + rng.uniform(-12, 12), 150, 100, 60, (220, 165, 90))
    brush.ellipse(10 + rng.uniform(-12, 12), 165, 110, 75, (232, 180, 105))
    return brush.image


def _sunset(side: int, rng: random.Random) -> Image.Image:
    brush = _Brush(gradient(side, (90, 50, 130), (255, 150, 70)))
    brush.ellipse(64 + rng.uniform(-25, 25), 100, 22, 22, (255, 225, 130))
    brush.box(0, 104, 128, 128, (80, 40, 80))
    return brush.image


def _sky(side: int, rng: random.Random) -> Image.Image:
    brush = _Brush(gradient(side, (80, 160, 240), (175, 220, 252)))
    for _ in range(4):
        x, y = rng.uniform(0, 128), rng.uniform(10, 118)
        for shift, radius in ((-12, 8), (0, 11), (12, 8)):
            brush.ellipse(x + shift, y, radius, radius * 0.8, (255, 255, 255))
    return brush.image


def _forest(side: int, rng: random.Random) -> Image.Image:
    brush = _Brush(gradient(side, (170, 215, 200), (200, 230, 200)))
    for row, (y, colour) in enumerate(((70, (70, 130, 90)), (84, (45, 105, 65)))):
        for i in range(-1, 8):
            x = i * 20 + rng.uniform(-3, 3) + row * 9
            brush.polygon([(x, y - 46 + row * 8), (x - 14, y + 25), (x + 14, y + 25)], colour)
    brush.box(0, 104, 128, 128, (85, 120, 60))
    return brush.image


def _city(side: int, rng: random.Random) -> Image.Image:
    brush = _Brush(gradient(side, (150, 190, 230), (230, 225, 220)))
    x = -4.0
    while x < 128:
        width, height = rng.uniform(14, 22), rng.uniform(45, 95)
        brush.box(x, 112 - height, x + width - 2, 112, shaded((100, 110, 130), rng, 14))
        for top in np.arange(112 - height + 5, 106, 9):
            for left in np.arange(x + 3, x + width - 5, 6):
                brush.box(left, top, left + 2.5, top + 4, (250, 230, 150))
        x += width
    brush.box(0, 110, 128, 128, (85, 85, 92))
    return brush.image


def _room(side: int, rng: random.Random) -> Image.Image:
    brush = _Brush(gradient(side, (240, 222, 195), (232, 210, 180)))
    brush.box(0, 92, 128, 128, (165, 110, 65))
    brush.box(0, 90, 128, 93, (250, 245, 235))
    left = rng.choice((14, 78))
    brush.box(left, 18, left + 36, 58, (250, 248, 240))
    brush.box(left + 3, 21, left + 33, 55, (150, 205, 245))
    brush.box(left + 17, 21, left + 19, 55, (250, 248, 240))
    return brush.image


_BACKDROPS = {
    "grass": _grass,
    "night": _night,
    "beach": _beach,
    "sea": _sea,
    "snow": _snow,
    "desert": _desert,
    "sunset": _sunset,
    "sky": _sky,
    "forest": _forest,
    "city": _city,
    "room": _room,
}
