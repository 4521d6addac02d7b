"""The demo, as a user runs it, and the README's script."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def batteries(*arguments: str) -> str:
    """Run the command in a process of its own; return what it printed."""
    done = subprocess.run([sys.executable, "-m", "batteries", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_demo_walks_the_whole_flow_and_a_second_time_makes_nothing_new() -> None:
    out = batteries("demo", "first")
    rows = {row["name"]: row for row in json.loads(batteries("-C", "first", "scores", "--json"))}
    assert set(rows) == {"digits-001", "mlp-001", "average-001", "blend-001", "blend-002", "blend-003"}
    assert rows["digits-001"]["valid"] > 0.97
    assert rows["mlp-001"]["valid"] > 0.97
    assert all(row["test"] > 0.97 and row["folds"] == "5/5" for row in rows.values())
    assert "The whole flow took" in out
    assert "first/runs/report.html" in out
    made = sorted(path.name for path in Path("first/runs").iterdir())
    batteries("demo", "first")
    assert sorted(path.name for path in Path("first/runs").iterdir()) == made


def test_the_same_seed_in_another_folder_gives_the_same_bytes() -> None:
    for folder in ("one", "two"):
        batteries("new", folder)
        batteries("-C", folder, "train", "--fold", "2")
    for name in ("oof.parquet", "test.parquet", "fold2/metrics.jsonl"):
        assert (Path("one/runs/digits-001") / name).read_bytes() == (Path("two/runs/digits-001") / name).read_bytes()


def test_the_script_in_the_readme_runs() -> None:
    script = re.search(r"<!-- test: script -->\n```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert script is not None
    done = subprocess.run([sys.executable, "-W", "error", "-c", script.group(1)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = dict(re.findall(r"^(\S.*\S) +(0\.\d+)$", done.stdout, flags=re.MULTILINE))
    assert set(printed) == {"best", "average of 3", "rank blend"}
    assert all(float(score) > 0.85 for score in printed.values())
