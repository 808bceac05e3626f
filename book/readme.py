"""README.zh.md's table of lessons: the rows of README.md, with titles and outcomes from the catalogues. To write it:

python -m book.readme
"""

from __future__ import annotations

import re

from book.translate import words_of
from instructlab_utils import files
from instructlab_utils.project import find_root, text_of

ROW = re.compile(
    r"^\| \[(?P<title>(?P<id>\d\d) .+)\]\((?P<link>.+)\) \| (?P<outcome>.+) \| (?P<minutes>\S+) \|$", re.M
)
BLOCK = re.compile(r"(?<=<!-- generated:lessons-zh -->\n).*?(?=<!-- /generated -->)", re.DOTALL)


def chinese() -> str:
    """README.zh.md as it should be now. What has no translation stays English."""
    lines = ["| 课程 | 学完之后，你能够 | 分钟 |", "| --- | --- | ---: |"]
    for row in ROW.finditer(text_of(find_root() / "README.md")):
        title = words_of("zh", row["id"]).get(f"# {row['title']}", row["title"]).removeprefix("# ")
        outcome = words_of("zh", "site").get(row["outcome"], row["outcome"])
        lines.append(f"| [{title}]({row['link']}) | {outcome} | {row['minutes']} |")
    return BLOCK.sub(lambda _: "\n".join(lines) + "\n", text_of(find_root() / "README.zh.md"))


if __name__ == "__main__":
    files.write_text(find_root() / "README.zh.md", chinese())
