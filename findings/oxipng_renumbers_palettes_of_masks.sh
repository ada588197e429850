#!/usr/bin/env bash
# pyoxipng 9.1.1: making a palette mask smaller keeps its colours and changes its class ids.
#
# Expected of a "lossless" tool: the ids of a mask stay. Seen: the pixels keep their colours, and the indices, which
# are the class ids of PASCAL VOC's masks, are numbered anew: 0 1 15 255 become 0 1 2 3.
# Here: data/palettes.py reads VOC's colours where they disagree with the indices, or refuses the file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "pyoxipng==9.1.1" "pillow==13.0.0" "numpy==2.4.6"
cat >"$folder/program.py" <<'PYTHON'
import sys

import numpy as np
import oxipng
from PIL import Image

ids = np.repeat(np.array([0, 1, 15, 255], dtype=np.uint8), 64).reshape(16, 16)
image = Image.fromarray(ids)
image.putpalette([part for i in range(256) for part in (i, 255 - i, (7 * i) % 256)])
image.save(sys.argv[1])
before = Image.open(sys.argv[1]).convert("RGB").tobytes()
oxipng.optimize(sys.argv[1])
after = Image.open(sys.argv[1])
print("ids", *np.unique(np.array(after)), "colours kept", after.convert("RGB").tobytes() == before)
PYTHON
seen=$("$folder/venv/bin/python" "$folder/program.py" "$folder/mask.png")
echo "$seen"
test "$seen" = "ids 0 1 2 3 colours kept True"
