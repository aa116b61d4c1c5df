"""One thread a test: small networks gain nothing from more, and bytes depend on their number.

No test finds the images that another one has decoded.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
os.environ["GENMIX_CACHE"] = ""
