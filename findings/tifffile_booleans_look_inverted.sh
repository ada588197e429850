#!/usr/bin/env bash
# tifffile 2026.3.3 and Pillow 13.0.0: a boolean mask written by tifffile comes back inverted from Pillow.
#
# Expected: True (the object) is read as white. Seen: tifffile declares booleans MINISWHITE (0 is white) without being
# asked to, and Pillow shows them accordingly: of 600 pixels, 50 were written True, and 550 come back True.
# Here: data/mask_decoding.py takes the stored value if tifffile wrote the file, and refuses other such files.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "tifffile==2026.3.3" "pillow==13.0.0" "numpy==2.4.6"
cat >"$folder/program.py" <<'PYTHON'
import sys

import numpy as np
import tifffile
from PIL import Image

mask = np.zeros((20, 30), dtype=bool)
mask[5:10, 5:15] = True
tifffile.imwrite(sys.argv[1], mask)
image = Image.open(sys.argv[1])
print(f"written {mask.sum()} photometric {image.tag_v2[262]} read {np.array(image).sum()}")
PYTHON
seen=$("$folder/venv/bin/python" "$folder/program.py" "$folder/mask.tif")
echo "$seen"
test "$seen" = "written 50 photometric 0 read 550"
