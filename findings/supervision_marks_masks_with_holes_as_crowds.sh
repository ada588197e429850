#!/usr/bin/env bash
# supervision 0.31.2: exporting masks to COCO marks every mask with a hole as a crowd.
#
# Expected: iscrowd is 1 for groups of objects that were not told apart, as COCO defines it. Seen: one ring and one
# square, each one object, are written with iscrowd 1 and 0: evaluation and readers that leave crowds out lose the ring.
# Here: data/datasets counts the crowds that hide a class, and crowd="object" reads them as objects.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "supervision==0.31.2" "opencv-python-headless==5.0.0.93"
cat >"$folder/program.py" <<'PYTHON'
import json
import sys

import cv2
import numpy as np
import supervision as sv

folder = sys.argv[1]
square = np.zeros((64, 64), dtype=bool)
square[10:50, 10:50] = True
ring = square.copy()
ring[20:40, 20:40] = False
masks = {f"{folder}/ring.png": ring, f"{folder}/square.png": square}
for path in masks:
    cv2.imwrite(path, np.zeros((64, 64, 3), dtype=np.uint8))
annotations = {
    path: sv.Detections(xyxy=sv.mask_to_xyxy(mask[None]), mask=mask[None], class_id=np.array([0]))
    for path, mask in masks.items()
}
data = sv.DetectionDataset(classes=["cup"], images=list(masks), annotations=annotations)
data.as_coco(annotations_path=f"{folder}/coco.json")
content = json.load(open(f"{folder}/coco.json"))
names = {image["id"]: image["file_name"] for image in content["images"]}
print(*sorted(f"{names[each['image_id']]} iscrowd {each['iscrowd']}" for each in content["annotations"]), sep=", ")
PYTHON
seen=$("$folder/venv/bin/python" -W ignore "$folder/program.py" "$folder")
echo "$seen"
test "$seen" = "ring.png iscrowd 1, square.png iscrowd 0"
