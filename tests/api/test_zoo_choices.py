"""What is chosen for every architecture of docs/models.md, as its table says."""

from __future__ import annotations

import pytest
import torch
from support.choice_table import NETWORKS, PAGE, row

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
torch.set_num_threads(1)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_table_says_what_is_chosen(name: str) -> None:
    assert row(name) in PAGE.read_text()
