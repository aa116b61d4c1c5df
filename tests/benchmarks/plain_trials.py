"""A user's own function trainable over this project's trial core: every trial computes all its stages for itself.

In a module of its own, so that Ray's processes can import it however the benchmark was started.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from ray import tune

from spaces.config import trial_config
from trainables.files import read_json, write_json
from trainables.fold import Environment
from trainables.session import Session, use_threads
from trainables.stages import StageStore
from trainables.trial import best_device, run_trial

CONFIGS = "configs.json"
RESULTS = "results"


def cross_validate(config: dict[str, Any]) -> None:
    """Compute the folds of one trial over an empty store, which is removed, and write what they gave.

    ``config``: ``search``, the folder of a recorded search that says on what, and ``trial``, a name in its
    ``configs.json``.
    """
    folder, began = Path(config["search"]), time.time()
    session = Session.open(folder)
    use_threads(session.record.threads)
    settings = trial_config(read_json(folder / CONFIGS)[config["trial"]], session.budget)
    results = []
    with tempfile.TemporaryDirectory(prefix="stages-", dir=folder) as stages:
        environment = Environment(
            cohort=session.cohort,
            store=StageStore(Path(stages)),
            seed=session.record.seed,
            positive=session.record.data.positive,
            device=best_device(0.0),
            threads=session.record.threads,
            report=lambda stage, done, total: None,
        )
        for outcome in run_trial(settings, session.splits, environment):
            results.append(outcome.result.to_dict())
            tune.report({session.record.metric: outcome.result.scores[session.record.metric]})
    (folder / RESULTS).mkdir(exist_ok=True)
    write_json(folder / RESULTS / f"{config['trial']}.json", {"began": began, "ended": time.time(), "folds": results})
