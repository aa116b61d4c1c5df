"""What MLflow has of a search, compared with the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from mlflow_tracking import names, records
from trainables.ledger import Ledger
from trainables.results import TrialResult


def all_runs(tracking_uri: str) -> list[Run]:
    """Every run of every experiment."""
    client, runs = MlflowClient(tracking_uri=tracking_uri), []
    for experiment in client.search_experiments():
        page = client.search_runs([experiment.experiment_id], max_results=1000)
        runs += page
        while page.token:
            page = client.search_runs([experiment.experiment_id], max_results=1000, page_token=page.token)
            runs += page
    return runs


def running(tracking_uri: str) -> int:
    """How many runs say that they are running."""
    return sum(run.info.status == "RUNNING" for run in all_runs(tracking_uri))


def runs_broken(tracking_uri: str, ledger: Ledger) -> list[str]:
    """Where runs differ from one for each trial, and one for the search, all ended as the trials have."""
    runs = all_runs(tracking_uri)
    kinds = Counter(run.data.tags[names.KIND] for run in runs)
    by_trial: dict[str, list[Run]] = {}
    for run in runs:
        if run.data.tags[names.KIND] == names.KIND_TRIAL:
            by_trial.setdefault(run.data.tags[names.TRIAL], []).append(run)
    broken = [] if kinds[names.KIND_SEARCH] == 1 else [f"the search has {kinds[names.KIND_SEARCH]} runs"]
    expected = {"completed": "FINISHED", "pruned": "FINISHED", "failed": "FAILED", "unfinished": "KILLED"}
    for trial in ledger.trials():
        found = [run.info.status for run in by_trial.pop(trial.id, [])]
        if found != [expected[trial.state]]:
            broken.append(f"{trial.id}, {trial.state}, has runs that are {found}")
    return broken + [f"{trial} has runs and is not on record" for trial in by_trial]


def metrics_broken(tracking_uri: str, ledger: Ledger) -> list[str]:
    """Where the metrics of trials differ from the record: missing, another value, more than once, out of order."""
    client = MlflowClient(tracking_uri=tracking_uri)
    runs = {run.data.tags.get(names.TRIAL): run for run in all_runs(tracking_uri)}
    broken = []
    for trial in ledger.trials():
        run = runs.get(trial.id)
        if run is None:
            broken.append(f"{trial.id} has no run")
            continue
        wanted = _expected(trial)
        for name in sorted(set(wanted) | set(run.data.metrics)):
            found = [_point(metric) for metric in client.get_metric_history(run.info.run_id, name)]
            if sorted(found) != wanted.get(name, []) or [each[0] for each in found] != sorted(
                each[0] for each in found
            ):
                broken.append(f"{trial.id}: {name} is {found}, on record {wanted.get(name, [])}")
    return broken


def _expected(trial: TrialResult) -> dict[str, list[tuple[int, int, float]]]:
    metrics: Sequence[Metric] = [
        *(metric for fold in trial.folds for metric in records.fold_metrics(trial, fold)),
        *records.summary(trial),
    ]
    found: dict[str, list[tuple[int, int, float]]] = {}
    for metric in metrics:
        found.setdefault(metric.key, []).append(_point(metric))
    return {name: sorted(points) for name, points in found.items()}


def _point(metric: Metric) -> tuple[int, int, float]:
    return metric.step, metric.timestamp, metric.value
