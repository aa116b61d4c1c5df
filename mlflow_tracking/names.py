"""Every metric, tag, parameter and artifact name that is written to MLflow, in one place."""

from __future__ import annotations

import hashlib
import re
import unicodedata

PREFIX = "genmix."
"""Begins every tag of this project."""

SEARCH = "genmix.search"
SEARCH_ID = "genmix.search_id"
TRIAL = "genmix.trial"
KIND = "genmix.kind"
STATE = "genmix.state"
ERROR = "genmix.error"
PROGRESS = "genmix.progress"
"""Of a search's run: how far it is, in words."""
WRITTEN = "genmix.written"
"""Of a search's run: when it was written last; renewed every minute while the search runs."""
FOLDS_LOGGED = "genmix.folds_logged"
SHEET = "genmix.sheet"
MAP = "genmix.feature_map"
CONFIRMATION = "genmix.confirmation"
CONFIRMS = "genmix.confirms"
VERDICT = "genmix.verdict"
DATA_DIGEST = "genmix.data_digest"
SPACE_DIGEST = "genmix.space_digest"
PHANTOM = "genmix.phantom"
BUDGET = "genmix.budget"
MODEL = "genmix.model"
"""Of a logged model: the key of its training."""
CLINICAL_USE = "genmix.clinical_use"
"""Of models: that they are not for it."""

KIND_SEARCH = "search"
KIND_TRIAL = "trial"
KIND_CONFIRM = "confirm"
PARENT = "mlflow.parentRunId"

TRIALS_ONLY = f"tags.`{KIND}` = '{KIND_TRIAL}'"
"""Filter of the runs page."""

REFERENCE = "reference"
"""Parameter: the reference policy that a trial is, or ``NO_REFERENCE``."""
NO_REFERENCE = "-"

FOLD_GROUP = "fold"
"""The UI groups metrics by what stands before the slash."""
LOCKED = "locked"
"""Begins the scores on the locked test set."""
FOLDS_DONE = "folds_done"
SECONDS = "seconds"
"""What a trial took itself, without what it reused."""
COST_SECONDS = "cost_seconds"
"""What a trial's stages cost when they were computed, whoever computed them."""
GENERATOR_SECONDS = "generator_seconds"
"""The part of it that was a generator's training."""
PEAK_MIB = "peak_mib"
TRIALS_COMPLETED = "trials_completed"
TRIALS_PRUNED = "trials_pruned"
TRIALS_FAILED = "trials_failed"

NOTE = "mlflow.note.content"
EXPERIMENT_KIND = "mlflow.experimentKind"
VIEW_KEY = "genmix"
VIEW = f"mlflow.sharedViewState.{VIEW_KEY}"
"""Experiment tag: the saved view of the runs page."""

EXPERIMENT_PREFIX = "genmix-search/"
CONFIRMATION_FILE = "confirmation.json"
"""A confirmation's verdict, in the search's folder."""
TABLE_FILE = "table.md"
"""A paper's table beside the search's own, in Markdown."""
REPORT_FILE = "report.html"
FIGURES_FOLDER = "figures"
"""The report's figures, as PNG files; in the search's folder and among its run's artifacts."""
COMMANDS_FILE = "reproduce.txt"
"""In the search's folder: the commands that run the search, and its best configuration, again."""
RATIO_FILE = "score_by_ratio.png"
PARETO_FILE = "pareto_front.png"
SHEET_FILE = "real_and_synthetic.png"
CURVES_FILE = "generator_training.png"
SAMPLES_FILE = "samples_over_training.png"
PAIRS_FILE = "closest_pairs.png"
MAP_FILE = "feature_map.png"
MIXED_FILE = "real_synthetic_mixed.png"

MAX_NAME = 200
"""MLflow takes 250 characters; this leaves room for prefixes."""
MAX_PARAMETER = 6000
MAX_TAG = 5000
"""MLflow 3.17 takes 8,000 characters, older servers 5,000."""

_WITHIN_FOLD = {"kid_std": "kid_subset_std"}
"""Measures that are a spread within a fold, and their names here."""
_VALID = re.compile(r"[A-Za-z0-9_.\- ]+")


def score(name: str) -> str:
    """The metric that holds a score's mean over folds: the score's own name, made valid."""
    return valid_name(name)


def spread(name: str) -> str:
    """The metric that holds a score's sample standard deviation over folds."""
    return valid_name(f"{name}_std")


def low(name: str) -> str:
    """The metric that holds the lower end of a score's 95 % interval over patients."""
    return valid_name(f"{name}_low")


def high(name: str) -> str:
    """The metric that holds the upper end of a score's 95 % interval over patients."""
    return valid_name(f"{name}_high")


def per_fold(name: str) -> str:
    """The metric that holds a score in each fold, the step being the fold."""
    return f"{FOLD_GROUP}/{valid_name(name)}"


def locked(name: str) -> str:
    """The metric that holds a score's mean over the trainings that were scored on the locked test set."""
    return valid_name(f"{LOCKED}_{name}")


def per_training(name: str) -> str:
    """The metric that holds a score on the locked test set of each training, the step being its number."""
    return f"{LOCKED}/{valid_name(name)}"


def fidelity(measure: str) -> str:
    """The metric that holds how good a trial's synthetic images are, its mean over folds.

    The measures, each of the synthetic images against the training images of the fold: ``fidelity_kid`` (kernel
    inception distance: 0 is best, small values below 0 are chance; it has no unit), ``fidelity_precision``,
    ``fidelity_recall``, ``fidelity_coverage`` and ``fidelity_copy_rate`` (shares, 0 to 1; the last is best at 0),
    ``fidelity_density`` (about 1 is best), and some of them for a class alone (``fidelity_coverage_CLASS``).

    Args:
        measure: as a fold's record calls it. ``kid_std``, the spread over the random subsets whose mean a fold's KID
            is, becomes ``fidelity_kid_subset_std``, as ``fidelity_kid_std`` is the spread over folds.

    Returns:
        A name with a prefix that keeps precision and recall of images apart from those of a classifier.
    """
    return valid_name(f"fidelity_{_WITHIN_FOLD.get(measure, measure)}")


def fidelity_spread(measure: str) -> str | None:
    """The metric that holds a measure's sample standard deviation over folds; None for what is a spread itself."""
    return None if measure in _WITHIN_FOLD else spread(f"fidelity_{measure}")


def best(metric: str) -> str:
    """The search run's metric that holds the best score so far."""
    return valid_name(f"best_{metric}")


def version(package: str) -> str:
    """The tag that holds the version of a package or tool."""
    return f"{PREFIX}version.{valid_name(package)}"


def valid_name(name: str) -> str:
    """A name that MLflow accepts for metrics, parameters and tags.

    Args:
        name: any text, for instance a score with a class name in it.

    Returns:
        ``name`` itself where it is valid. Otherwise letters lose their accents, other characters become ``_`` and six
        hexadecimal digits of the original are appended, so that different names stay different. A slash counts as
        invalid: MLflow takes it for a group of metrics.
    """
    if _VALID.fullmatch(name) and name == name.strip() and name.strip(".") and len(name) <= MAX_NAME:
        return name
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    cleaned = re.sub(r"[^A-Za-z0-9_.\- ]+", "_", plain).strip(" ._")
    digest = hashlib.blake2b(name.encode(), digest_size=3).hexdigest()
    return f"{cleaned[: MAX_NAME - 7]}-{digest}"


def parameter_value(value: object) -> str:
    """A parameter's value as text, at most as long as MLflow takes; numbers keep every digit."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return shortened(str(value), MAX_PARAMETER)


def shortened(text: str, limit: int = MAX_TAG) -> str:
    """``text``, cut to ``limit`` characters with an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
