"""A tiny search that is computed once, and copied for each test that works on it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from search.console import open_console
from search.refit_command import train
from search.winner import chosen_trial
from tests.search.tiny_search import GENMIX, MIXUP, compute, finish, moved, new_search
from trainables.ledger import Ledger
from trainables.model_folder import MODEL


@pytest.fixture(scope="session")
def computed_search(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """Trials t0000 (genmix with a dcgan, the best) and t0001 (mixup), and the model of the best."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ledger = new_search(tmp_path_factory.mktemp("tiny"))
    for config in (GENMIX, MIXUP):
        compute(ledger, config)
    finish(ledger, best="t0000")
    assert train(ledger, chosen_trial(ledger, None), ledger.folder / MODEL, open_console())
    torch.set_num_threads(threads)
    return ledger


@pytest.fixture
def tiny_search(computed_search: Ledger, tmp_path: Path) -> Ledger:
    shutil.copytree(computed_search.storage, tmp_path / "searches")
    return moved(computed_search, tmp_path)
