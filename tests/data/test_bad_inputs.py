"""A small run of the generated inputs of benchmarks/reliability: none is read wrongly, none crashes."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "reliability" / "bad_inputs.py"


@pytest.mark.filterwarnings("ignore")
def test_no_generated_input_is_read_wrongly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("bad_inputs", SCRIPT)
    script = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec.loader.exec_module(script)  # type: ignore[union-attr]
    out = tmp_path / "result.json"
    monkeypatch.setattr(sys, "argv", ["bad_inputs.py", "--count", "400", "--seed", "1", "--out", str(out)])
    script.main()
    result = json.loads(out.read_text())
    assert result["bad"] == []
    assert result["total"]["right"] > 100
    assert result["total"]["refused"] > 100
