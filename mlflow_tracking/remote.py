"""What a tracking server has of one search: its experiment and its runs, as read once and written since."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from mlflow_tracking import names
from mlflow_tracking.connect import sqlite_path
from mlflow_tracking.view import runs_view
from spaces.space import digest_of
from trainables.ledger import SearchRecord

_METRICS_PER_CALL = 1000
_PARAMETERS_PER_CALL = 100
_RUNS_PER_PAGE = 500


@dataclass(slots=True, kw_only=True)
class Written:
    """What has been written so far: runs created, values of metrics, files, and runs whose status was changed."""

    runs: int = 0
    values: int = 0
    files: int = 0
    statuses: int = 0


class RemoteRun:
    """One run on the server, with what is known to have been logged to it.

    Args:
        client: writes to the server.
        run: the run as the server described it.
        is_new: whether it was created just now, so that nothing can have been logged to it.
        written: counts what is written to it.
    """

    def __init__(self, client: MlflowClient, run: Run, *, is_new: bool, written: Written) -> None:
        tags, inputs = run.data.tags, run.inputs
        self._client = client
        self._written = written
        self._known = set() if is_new else set(run.data.metrics)
        self._steps: dict[str, set[int]] = {}
        self.id: str = run.info.run_id
        self.status: str = run.info.status
        self.trial: str | None = tags.get(names.TRIAL)
        self.kind: str | None = tags.get(names.KIND)
        self.state: str | None = tags.get(names.STATE)
        self.confirmation: str | None = tags.get(names.CONFIRMATION)
        self.pictures = {tag for tag in (names.SHEET, names.MAP) if tag in tags}
        self.note: str | None = tags.get(names.NOTE)
        self.written: str | None = tags.get(names.WRITTEN)
        self.folds = {int(each) for each in tags.get(names.FOLDS_LOGGED, "").split(",") if each}
        self.has_parameters = bool(run.data.params)
        self.has_data = bool(inputs and inputs.dataset_inputs)

    def log(
        self,
        metrics: Sequence[Metric] = (),
        *,
        parameters: Sequence[Param] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log in one call (more where there is more than MLflow takes), but no metric at a step that it has already."""
        new = [metric for metric in metrics if metric.step not in self._logged(metric.key)]
        calls = max(1, -(-len(new) // _METRICS_PER_CALL), -(-len(parameters) // _PARAMETERS_PER_CALL))
        for call in range(calls):
            part = new[call * _METRICS_PER_CALL : (call + 1) * _METRICS_PER_CALL]
            given = parameters[call * _PARAMETERS_PER_CALL : (call + 1) * _PARAMETERS_PER_CALL]
            # Tags come with the last part: what they say of the metrics is true then.
            last = tags if tags and call == calls - 1 else {}
            run_tags = [RunTag(key, names.shortened(value)) for key, value in last.items()]
            self._client.log_batch(self.id, metrics=part, params=list(given), tags=run_tags)
            self._written.values += len(part)
            for metric in part:
                self._logged(metric.key).add(metric.step)
        self.has_parameters = self.has_parameters or bool(parameters)

    def _logged(self, key: str) -> set[int]:
        """The steps that a metric has been logged at; asked of the server once, and only for metrics that it has."""
        if key not in self._steps:
            history = self._client.get_metric_history(self.id, key) if key in self._known else []
            self._steps[key] = {metric.step for metric in history}
        return self._steps[key]

    def log_data(self, search: SearchRecord) -> None:
        """Name the search's data as the run's data set; the UI shows it as a column."""
        if self.has_data:
            return
        name = "phantom" if search.data.is_phantom else Path(search.data.source).name or "images"
        data = Dataset(
            name=name[:500],
            digest=search.data.digest[:36],
            source_type="local",
            source=names.shortened(search.data.source),
        )
        tag = InputTag(key="mlflow.data.context", value="cross-validation")
        self._client.log_inputs(self.id, datasets=[DatasetInput(dataset=data, tags=[tag])])
        self.has_data = True

    def set_status(self, status: str, *, ended: int) -> None:
        """Set RUNNING, or end the run at a time (milliseconds since the epoch); nothing if it is so already."""
        if status == self.status:
            return
        if status == "RUNNING":
            self._client.update_run(self.id, status=status)
        else:
            self._client.set_terminated(self.id, status, end_time=ended)
        self._written.statuses += 1
        self.status = status

    def log_file(self, path: Path) -> None:
        """Store a file as an artifact at the top of the run."""
        self._client.log_artifact(self.id, str(path))
        self._written.files += 1

    def log_folder(self, path: Path) -> None:
        """Store a folder of files under its name."""
        self._client.log_artifacts(self.id, str(path), path.name)
        self._written.files += sum(1 for _ in path.iterdir())


class Remote:
    """A search's experiment on the server, and the runs in it of the search or of one of its confirmations.

    ``search`` is the run of the search itself, ``trials`` those of the trials by id. ``strays`` are runs that no
    driver will ever go on with, such as a second one of a trial; ``others`` are runs of the search's other parts that
    are shown as running: trials of its confirmations, or those of the search where a confirmation is meant.

    Args:
        client: reads and writes the server.
        experiment_id: the search's experiment.
        confirmation: the confirmation whose trials are meant; None for those of the search itself.
        written: counts what is written.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, *, confirmation: str | None, written: Written) -> None:
        self._client = client
        self._written = written
        self._kind = names.KIND_TRIAL if confirmation is None else names.KIND_CONFIRM
        self._confirmation = confirmation
        self.experiment_id = experiment_id
        self.search: RemoteRun | None = None
        self.trials: dict[str, RemoteRun] = {}
        self.strays: list[RemoteRun] = []
        self.others: list[RemoteRun] = []

    def load(self) -> None:
        """Read the runs from the server; the oldest one counts where there are several of the same."""
        for run in _runs(self._client, self.experiment_id):
            found = RemoteRun(self._client, run, is_new=False, written=self._written)
            if found.kind == names.KIND_SEARCH and self.search is None:
                self.search = found
            elif found.kind == self._kind and found.confirmation == self._confirmation:
                if found.trial and found.trial not in self.trials:
                    self.trials[found.trial] = found
                else:
                    self.strays.append(found)
            elif found.kind == names.KIND_SEARCH:
                self.strays.append(found)
            elif found.status == "RUNNING" and found.kind in (names.KIND_TRIAL, names.KIND_CONFIRM):
                self.others.append(found)

    def create_run(self, name: str, tags: Mapping[str, str], *, created: float) -> RemoteRun:
        """Create a run that started at ``created`` (seconds since the epoch)."""
        run = self._client.create_run(
            self.experiment_id,
            start_time=round(created * 1000),
            tags={key: names.shortened(value) for key, value in tags.items()},
            run_name=name,
        )
        self._written.runs += 1
        return RemoteRun(self._client, run, is_new=True, written=self._written)


def open_remote(
    client: MlflowClient, uri: str, search: SearchRecord, *, written: Written, confirmation: str | None = None
) -> Remote:
    """Find the search's experiment and runs on the server, or create the experiment.

    Args:
        client: reads and writes the server.
        uri: the tracking address; next to an SQLite file lie its artifacts.
        search: the search.
        written: counts what is written.
        confirmation: see ``Remote``.
    """
    identity = search_id(search)
    found = client.search_experiments(filter_string=f"tags.`{names.SEARCH_ID}` = '{identity}'", max_results=1)
    if found:
        experiment_id = str(found[0].experiment_id)
        if found[0].tags.get(names.VIEW) != runs_view(search):
            client.set_experiment_tag(experiment_id, names.VIEW, runs_view(search))
    else:
        experiment_id = _create_experiment(client, uri, search, identity)
    remote = Remote(client, experiment_id, confirmation=confirmation, written=written)
    remote.load()
    return remote


def search_id(search: SearchRecord) -> str:
    """Sixteen hexadecimal digits that tell a search from another one of the same name, wherever it is moved.

    They tell a confirmation from other ones of the same search too.
    """
    return digest_of([search.name, search.created, search.seed, search.data.digest, search.space.digest])


def _create_experiment(client: MlflowClient, uri: str, search: SearchRecord, identity: str) -> str:
    """Create the experiment under the first name that is free; deleted experiments keep theirs."""
    tags = {
        names.SEARCH: search.name,
        names.SEARCH_ID: identity,
        names.EXPERIMENT_KIND: "custom_model_development",
        names.VIEW: runs_view(search),
        names.NOTE: f"Search '{search.name}' of the space '{search.space.name}', by {search.metric}.",
    }
    number = 1
    while True:
        name = f"{names.EXPERIMENT_PREFIX}{search.name}" + (f" ({number})" if number > 1 else "")
        try:
            location = _artifact_location(uri, identity)
            return str(client.create_experiment(name, artifact_location=location, tags=tags))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        number += 1


def _artifact_location(uri: str, identity: str) -> str | None:
    """Beside an SQLite file: MLflow would put artifacts below whatever folder is the current one. Else the server's."""
    database = sqlite_path(uri)
    return None if database is None else (database.parent / "mlartifacts" / identity).as_uri()


def _runs(client: MlflowClient, experiment_id: str) -> Iterator[Run]:
    """All active runs of an experiment, oldest first."""
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment_id], order_by=["attributes.start_time ASC"], max_results=_RUNS_PER_PAGE, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return
