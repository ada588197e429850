#!/usr/bin/env bash
# Pillow 13.0.0: class ids in grey PNG files of 2 and 4 bits come back stretched to 0..255.
#
# Expected by who reads masks: the stored ids, as palette PNGs of as many bits give them. Seen: 0 1 2 3 of 2 bits come
# back as 0 85 170 255 (3 becomes 255, which PASCAL VOC's masks use for void); the palette file gives 0 1 2 3.
# Here: data/decoding.py reads the depth from the header, and data/mask_decoding.py undoes it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "pillow==13.0.0" "pypng==0.20220715.0"
cat >"$folder/program.py" <<'PYTHON'
import sys

import png
from PIL import Image

grey, palette = sys.argv[1:]
png.Writer(4, 1, greyscale=True, bitdepth=2).write(open(grey, "wb"), [[0, 1, 2, 3]])
png.Writer(4, 1, palette=[(i, 0, 0) for i in range(4)], bitdepth=2).write(open(palette, "wb"), [[0, 1, 2, 3]])
for path in (grey, palette):
    print(*Image.open(path).tobytes())
PYTHON
seen=$("$folder/venv/bin/python" "$folder/program.py" "$folder/grey.png" "$folder/palette.png")
echo "$seen"
test "$seen" = $'0 85 170 255\n0 1 2 3'
