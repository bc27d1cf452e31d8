"""The confusion matrix as a PNG. Uses Pillow to draw only, never to open a file: photos belong to `pipeline.intake`.

Pillow's built-in font has no Hangul, so names are English.
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cli.evaluation.matrix import Matrix

CELL = 72
MARGIN = 16
TEXT_SIZE = 15

PAPER = (255, 255, 255)
INK = (30, 34, 40)
RIGHT = (24, 120, 84)
WRONG = (190, 52, 40)


def draw_matrix(matrix: Matrix, title: str, path: Path) -> None:
    """The colour of a cell shows its share of the row: green where truth and prediction agree, red elsewhere."""
    font = ImageFont.load_default(TEXT_SIZE)
    left = MARGIN + max(round(font.getlength(name)) for name in matrix.truths) + MARGIN
    labels = [_vertical_label(name, font) for name in matrix.said]
    top = MARGIN + 2 * TEXT_SIZE + max(label.height for label in labels) + MARGIN
    width = left + CELL * len(matrix.said) + MARGIN
    width = max(width, 2 * MARGIN + round(font.getlength(title)))
    image = Image.new("RGB", (width, top + CELL * len(matrix.truths) + MARGIN), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, MARGIN), title, INK, font)
    for column, label in enumerate(labels):
        image.paste(label, (left + CELL * column + (CELL - label.width) // 2, top - MARGIN // 2 - label.height))
    for row, truth in enumerate(matrix.truths):
        middle = top + CELL * row + CELL // 2
        draw.text((left - MARGIN // 2, middle), truth, INK, font, anchor="rm")
        total = sum(matrix.counts[row])
        for column, count in enumerate(matrix.counts[row]):
            x, share = left + CELL * column, count / total
            tint = RIGHT if matrix.hits[row][column] else WRONG
            draw.rectangle((x, middle - CELL // 2, x + CELL - 2, middle + CELL // 2 - 2), fill=_mixed(tint, share))
            if count:
                draw.text((x + CELL // 2, middle), str(count), PAPER if share > 1 / 2 else INK, font, anchor="mm")
    image.save(path, "PNG", optimize=True)


def _vertical_label(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    """A column's name, rotated by 90°."""
    label = Image.new("RGB", (round(font.getlength(name)) + 2, TEXT_SIZE + 6), PAPER)
    ImageDraw.Draw(label).text((0, 0), name, INK, font)
    return label.transpose(Image.Transpose.ROTATE_90)


def _mixed(tint: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    """White mixed with a share of the tint; at least 4 %, so that the grid is visible."""
    part = 0.04 + 0.96 * share
    red, green, blue = (round(p + (t - p) * part) for p, t in zip(PAPER, tint, strict=True))
    return red, green, blue
