"""The saved view of the runs page: which columns and charts a browser shows, without a click, of a search's trials.

MLflow keeps views that users share in tags of the experiment, and an address can name one. Without it the table shows
the runs' names and no score.
"""

from __future__ import annotations

import json
from typing import Any

from mlflow_tracking import names
from spaces.parameter import Choice
from trainables.ledger import SearchRecord
from trainables.metrics.catalogue import WITH_INTERVALS, maximizes

_MAX_PARAMETERS = 24
_MAX_AXES = 8
_MEASURES = ("kid", "coverage", "copy_rate")
"""Of the synthetic images, where a space has any."""
_OWN = "genmix"
"""The section of charts that stands first; the page adds the others, one for each group of metrics."""


def runs_view(search: SearchRecord) -> str:
    """The view as MLflow stores it: trials only, best first, with score, fidelity and searched parameters.

    Parameters for which a tag has no room have no column.
    """
    view = ""
    for parameters in range(_MAX_PARAMETERS, -1, -1):
        view = json.dumps(_view(search, parameters))
        if len(view) <= names.MAX_TAG:
            break
    return view


def _view(search: SearchRecord, most_parameters: int) -> dict[str, Any]:
    mean, spread = names.score(search.metric), names.spread(search.metric)
    ends = [names.low(search.metric), names.high(search.metric)] if search.metric in WITH_INTERVALS else []
    metrics = [mean, spread, *ends, names.FOLDS_DONE, names.COST_SECONDS]
    if any(each.name.startswith("generator.") for each in search.space.dimensions):
        metrics += [names.GENERATOR_SECONDS, *(names.fidelity(measure) for measure in _MEASURES)]
    parameters = [names.valid_name(each.name) for each in search.space.dimensions[:most_parameters]]
    columns = {f"metrics.`{name}`": name for name in metrics}
    columns[f"tags.`{names.STATE}`"] = names.STATE
    columns |= {f"params.`{name}`": name for name in parameters}
    return {
        "searchFilter": names.TRIALS_ONLY,
        "orderByKey": f"metrics.`{mean}`",
        "orderByAsc": not maximizes(search.metric),
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(columns),
        "columnOrder": list(columns),
        "columnWidths": {column: 30 + 7 * len(name) for column, name in columns.items()},
        "runsHiddenMode": "FIRST_20_RUNS",
        "isAccordionReordered": True,
        "compareRunSections": [
            {**_section(_OWN, "Settings and scores"), "isGenerated": False, "columns": 1},
            _section("scores", "Model metrics"),
            _section("folds", names.FOLD_GROUP),
        ],
        "compareRunCharts": [_parallel(search, mean), _bars(mean)],
    }


def _section(identity: str, name: str) -> dict[str, Any]:
    return {"uuid": identity, "name": name, "display": True, "isReordered": True, "deleted": False, "isGenerated": True}


def _bars(metric: str) -> dict[str, Any]:
    return {
        "uuid": "bars",
        "type": "BAR",
        "runsCountToCompare": 20,
        "metricSectionId": _OWN,
        "deleted": False,
        "isGenerated": False,
        "displayName": metric,
        "metricKey": metric,
    }


def _parallel(search: SearchRecord, metric: str) -> dict[str, Any]:
    """Parallel coordinates over the parameters that every run has: runs that lack one would not be drawn."""
    always = [each for each in search.space.dimensions if each.when is None or each.otherwise is not None]
    ordered = sorted(always, key=lambda each: not isinstance(each.parameter, Choice))
    return {
        "uuid": "parallel",
        "type": "PARALLEL",
        "runsCountToCompare": 20,
        "metricSectionId": _OWN,
        "deleted": False,
        "isGenerated": False,
        "selectedParams": [names.valid_name(each.name) for each in ordered[:_MAX_AXES]],
        "selectedMetrics": [metric],
        "showAllRuns": True,
    }
