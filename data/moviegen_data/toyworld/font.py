"""A bitmap font of 3 × 5 cells per glyph, for words inside the picture."""

import numpy as np

# The glyph, then one octal digit per row, top to bottom; its bits are the three cells of the row.
_TABLE = (
    "A25755 B65656 C34443 D65556 E74647 F74644 G34553 H55755 I72227 J11152 K55655 L44447 "
    "M57755 N65555 O25552 P65644 Q25573 R65655 S34216 T72222 U55557 V55552 W55775 X55255 "
    "Y55222 Z71247 075557 126227 271747 371717 455711 574717 674757 771111 875757 975717 "
)
_GLYPHS = {" ": "00000"} | {glyph[0]: glyph[1:] for glyph in _TABLE.split()}


def draw_word(word: str, *, cell_px: int) -> np.ndarray:
    """The word as a boolean picture, `cell_px` pixels per cell."""
    unknown = sorted(set(word.upper()) - set(_GLYPHS))
    if unknown:
        raise ValueError(f"no glyph for {' '.join(unknown)} in {word!r}; the built-in font has A-Z, 0-9 and space; use these")
    rows = [[int(_GLYPHS[letter][row]) for letter in word.upper()] for row in range(5)]
    cells = np.array([[bool(digit & bit) for digit in line for bit in (4, 2, 1, 0)][:-1] for line in rows])
    return cells.repeat(cell_px, axis=0).repeat(cell_px, axis=1)
