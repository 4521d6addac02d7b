"""The data: the first paragraph of each docstring in five libraries that are installed with Batteries."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from zlib import crc32

import polars as pl

LIBRARIES = ("matplotlib", "numpy", "polars", "scipy", "sklearn")
DOCSTRING = re.compile(r'^ *(?:def|class) (\w+)[^\n]*?(?:\n[^"#]*?)?:\n +r?"""(.*?)"""', re.MULTILINE | re.DOTALL)


@cache
def docstrings(*, test: bool) -> pl.DataFrame:
    """Docstrings of 4 in 5 files to train on, or of the others to test on: id, library, file, text."""
    rows = []
    for library in LIBRARIES:
        root = Path(find_spec(library).origin).parent
        for path in sorted(root.rglob("*.py")):
            file = path.relative_to(root.parent).as_posix()
            if "test" not in file:
                found = DOCSTRING.finditer(path.read_text(encoding="utf-8"))
                rows += [(f"{file}:{each.start(1)}", library, file, paragraph(each[2])) for each in found]
    table = pl.DataFrame(rows, schema=["id", "library", "file", "text"], orient="row")
    table = table.filter(pl.col("text").str.count_matches(r"\w+").is_between(5, 60))
    table = table.unique("text", keep="none", maintain_order=True)  # what two functions say alike tells nothing
    return table.filter([(crc32(file.encode()) % 5 == 0) == test for file in table["file"]])


def paragraph(text: str) -> str:
    """The first paragraph on one line, without the names of the libraries, which would give the answer away."""
    return re.sub("|".join(LIBRARIES), "it", " ".join(text.strip().split("\n\n")[0].split()), flags=re.IGNORECASE)
