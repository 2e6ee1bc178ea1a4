"""Build mlops_nb/data/names.ttf, the font of Chinese, Japanese and Korean names in pictures, from Droid Sans Fallback.

    python scripts/build_names.py DroidSansFallback.ttf

The original is Debian's package fonts-droid-fallback (1:6.0.1r16-1.1). Needs fontTools, which matplotlib brings.
"""

import sys
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

OUT = Path(__file__).resolve().parent.parent / "mlops_nb" / "data" / "names.ttf"
SPANS = [  # first and last: punctuation and kana, jamo, more kana, Han, Hangul, compatibility Han, full width
    (0x3000, 0x30FF), (0x3130, 0x318F), (0x31F0, 0x31FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF),
    (0xFF00, 0xFFEF),
]  # fmt: skip

font = TTFont(sys.argv[1], recalcTimestamp=False)
subset = Subsetter(Options(hinting=False, layout_features=[], glyph_names=False, notdef_outline=True))
subset.populate(unicodes=[code for first, last in SPANS for code in range(first, last + 1)])
subset.subset(font)
for record in font["name"].names:  # a name of its own: a system's Droid Sans Fallback may have fewer characters
    if record.nameID in (1, 3, 4, 6, 16):
        record.string = "mlops_nb-names" if record.nameID == 6 else "mlops_nb names"
font.save(OUT)
