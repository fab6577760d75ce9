"""A hook of mkdocs: pages that lie outside docs/ become pages of the site, from where they are, so that no text stands twice.

In the site the pages of docs/ lie at the root, beside README.md; links are turned accordingly.
"""

import re
from pathlib import Path

from mkdocs.structure.files import File

PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "vissl/README.md", "weights/README.md")
PICTURES = "benchmarks/results/*.png"


def on_files(files, config):
    root = Path(config.config_file_path).parent
    for page in PAGES:
        text = (root / page).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=re.sub(r"\]\(((?:\.\./)?)docs/", r"](\1", text)))
    for picture in root.glob(PICTURES):
        files.append(File.generated(config, str(picture.relative_to(root)), abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown, page, config, files):
    return markdown if page.file.src_uri in PAGES else markdown.replace("](../", "](")
