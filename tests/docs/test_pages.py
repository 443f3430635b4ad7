"""Every Python block of README and docs/ runs, page by page, or says beside it why it cannot.

`<!-- not run: REASON -->` on the line before a block leaves it out. `SETUP` says what a page takes for granted.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.paths import ROOT

NAMES = ["README.md", *(f"docs/{path.relative_to(ROOT / 'docs')}" for path in sorted(ROOT.glob("docs/**/*.md")))]
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]*) -->\n)?^```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="needs the repository")

A_MODULE = """
import torch, ebp_cuda
from torch import nn

class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU())
        self.layer3 = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 1000)

    def forward(self, x):
        return self.fc(self.avgpool(self.layer3(self.stem(x))).flatten(1))

model = my_module = Module().eval()
x = torch.rand(2, 3, 224, 224)
"""
SETUP = {"README.md": A_MODULE, "docs/backend.md": A_MODULE}


def blocks(name: str) -> list[tuple[str | None, str, int]]:
    """The reason for not running it, the code and the line of every Python block of a page."""
    text = (ROOT / name).read_text()
    return [(m["reason"], m["code"], text.count("\n", 0, m.start("code")) + 1) for m in BLOCK.finditer(text)]


@pytest.mark.usefixtures("tables_as_before")
@pytest.mark.parametrize("name", [name for name in NAMES if any(reason is None for reason, _, _ in blocks(name))])
def test_the_blocks_of_a_page_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "page"}
    exec(SETUP.get(name, ""), namespace)
    for reason, code, line in blocks(name):
        if reason is None:
            exec(compile("\n" * (line - 1) + code, str(ROOT / name), "exec"), namespace)


def test_every_reason_says_something() -> None:
    reasons = [reason for name in NAMES for reason, _, _ in blocks(name) if reason is not None]
    assert all(len(reason.split()) > 2 for reason in reasons)
