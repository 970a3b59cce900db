"""Fairness audit: metrics by group, disparities with intervals, gates with three verdicts."""

from .audit import audit, audit_file
from .gates import Gate, gate_from
from .report import save_report, to_html
from .results import (
    AttributeResult,
    AuditReport,
    Disparity,
    Estimate,
    GateResult,
    GroupResult,
    LeftOut,
    Verdict,
)

__all__ = [
    "AttributeResult",
    "AuditReport",
    "Disparity",
    "Estimate",
    "Gate",
    "GateResult",
    "GroupResult",
    "LeftOut",
    "Verdict",
    "audit",
    "audit_file",
    "gate_from",
    "save_report",
    "to_html",
]
