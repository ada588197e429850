#!/usr/bin/env bash
# jsonargparse 4.53.0: a config file with a misspelt section is refused if the section holds a setting, and accepted
# without a word if it is empty.
#
# Seen: modle: {lr: 3} -> error: Option 'modle.lr' is not accepted; modle: {} -> accepted, lr=1; modle: (no value) ->
# error: Unexpected config.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "jsonargparse==4.53.0" "PyYAML==6.0.3"
cat >"$folder/program.py" <<'PYTHON'
from jsonargparse import ArgumentParser

parser = ArgumentParser(prog="program")
parser.add_argument("--config", action="config")
parser.add_argument("--model.lr", type=int, default=1)
print(f"accepted, lr={parser.parse_args().model.lr}")
PYTHON
run() {
  printf '%s\n' "$1" >"$folder/config.yaml"
  "$folder/venv/bin/python" "$folder/program.py" --config "$folder/config.yaml" 2>&1 || true
}
filled=$(run 'modle: {lr: 3}')
empty=$(run 'modle: {}')
none=$(run 'modle:')
printf 'modle: {lr: 3} -> %s\nmodle: {}      -> %s\nmodle:         -> %s\n' "$filled" "$empty" "$none"
grep -q "modle" <<<"$filled"
test "$empty" = "accepted, lr=1"
grep -q "Unexpected config" <<<"$none"
