"""The roofline of a machine: its measured bandwidth and arithmetic, and the share of them that a run used.

``peaks_for`` and ``measure`` give peaks (kept per machine), ``roofline`` the shares of a result, ``impossible`` what no
machine can have done. The kernels run in a process of their own: ``python -m perjoule.roofline``.
"""

from __future__ import annotations

from perjoule.roofline.measured import NULL_ENGINE, measure, peaks_for
from perjoule.roofline.shares import NOT_MEASURED, TOLERANCE_SHARE, impossible, roofline

__all__ = ["NOT_MEASURED", "NULL_ENGINE", "TOLERANCE_SHARE", "impossible", "measure", "peaks_for", "roofline"]
