"""Training that watches its own gradients, and one record of what was decided and why.

Floor 1: the words (facts, signals, decisions, records), the maths and the lifecycle.
"""

from workbench._version import __version__
from workbench.decision import (
    Applied,
    Decision,
    Deferred,
    Keep,
    Outcome,
    Refused,
    Resize,
    SetBatchSize,
    SetLearningRate,
    SetSync,
    Stop,
)
from workbench.facts import StepFacts
from workbench.policy import Policy, StatefulPolicy, View
from workbench.record import Record, Tracker
from workbench.signal import Signal, Signals

__all__ = [
    "Applied",
    "Decision",
    "Deferred",
    "Keep",
    "Outcome",
    "Policy",
    "Record",
    "Refused",
    "Resize",
    "SetBatchSize",
    "SetLearningRate",
    "SetSync",
    "Signal",
    "Signals",
    "StatefulPolicy",
    "StepFacts",
    "Stop",
    "Tracker",
    "View",
    "__version__",
]
