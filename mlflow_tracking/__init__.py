"""How results become runs, figures and reports in MLflow; the driver alone writes them.

MLflow sends usage statistics to its makers unless it is told not to. Nothing about a search should leave the machine
unasked, so this is switched off before MLflow is first imported; set ``MLFLOW_DISABLE_TELEMETRY=false`` to allow it.
"""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
