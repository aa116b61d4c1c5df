"""``best.yaml`` holds all that a configuration's scores depend on, and a file that is not one is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from search.config_file import best_text
from search.flags import search_parser
from search.new_search import new_search
from search.settings import NewSearch
from spaces.errors import InputError
from spaces.protocol import Protocol
from spaces.space import Assignment
from tests.trainables.test_ledger import made_up_record
from trainables.data.source import Source
from trainables.ledger import SearchRecord
from trainables.results import TrialResult

CONFIG: Assignment = {
    "mixer.name": "genmix",
    "mixer.genmix_alpha": 0.3,
    "generator.name": "dcgan",
    "synthetic.ratio": 1.5,
    "affine": True,
}


def written(folder: Path, record: SearchRecord | None = None) -> Path:
    trial = TrialResult(
        id="t0003", config=CONFIG, reference=None, state="completed", folds=(), error=None, created=0.0, ended=1.0
    )
    file = folder / "best.yaml"
    file.write_text(best_text(record or made_up_record(), trial))
    return file


def settings(*flags: str) -> NewSearch:
    return new_search(search_parser({}).parse_args(list(flags)))[0]


def test_the_file_of_a_search_asks_for_that_one_configuration_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    record = replace(
        made_up_record(),
        protocol=Protocol(folds=4, repeats=2),
        source=Source(data=str(data), slice_rule="middle"),
        lock_test=0.25,
        further_metrics=("seconds",),
    )
    found = settings("--config", str(written(tmp_path, record)))
    assert (found.config, found.trials, found.confirm) == (CONFIG, 1, False)
    assert (found.seed, found.metric, found.further_metrics) == (record.seed, "auroc", ("seconds",))
    assert (found.protocol, found.lock_test, found.positive) == (record.protocol, 0.25, "b")
    assert (found.data, found.slice_rule, found.resources.cpus_per_trial) == (data, "middle", record.threads)
    assert found.space.contains(CONFIG)


@pytest.mark.parametrize("shown", [True, False])
def test_a_search_that_keeps_images_out_of_tracking_does_so_again(tmp_path: Path, shown: bool) -> None:
    file = written(tmp_path, replace(made_up_record(), show_images=shown))
    assert settings("--config", str(file)).show_images is shown
    assert not settings("--config", str(file), "--no-images").show_images


def test_what_is_given_beside_the_file_goes_before(tmp_path: Path) -> None:
    found = settings("--config", str(written(tmp_path)), "--seed", "9", "--budget", "standard", "--folds", "5")
    assert (found.seed, found.budget.name, found.protocol.folds) == (9, "standard", 5)


@pytest.mark.parametrize("flag", ["--space=genmix", "--set=affine=on", "--trials=3", "--sampler=tpe"])
def test_a_file_and_a_search_exclude_each_other(tmp_path: Path, flag: str) -> None:
    with pytest.raises(InputError, match="evaluates one configuration, and --"):
        settings("--config", str(written(tmp_path)), flag)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config": None}, "is no best.yaml"),
        ({"options": {"budget": 3}}, "the option 'budget' cannot be '3'"),
        ({"options": {"seed": True}}, "the option 'seed' cannot be 'True'"),
        ({"options": {"storage": "/"}}, "the option 'storage' cannot be"),
        ({"config": {"mixer.name": ["genmix"]}}, "expected one plain value"),
        ({"config": {"mixer.name": "genmx"}}, "holds no configuration that can be computed"),
        ({"options": {"data": "/nowhere/at/all"}}, "names images at /nowhere/at/all, which are not there"),
    ],
)
def test_a_file_that_is_not_one_is_refused(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    file = written(tmp_path)
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **changes}))
    with pytest.raises(InputError, match=words):
        settings("--config", str(file))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        settings("--config", str(tmp_path / "missing.yaml"))
