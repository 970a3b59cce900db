"""The stages from data to deployment: each a small function, values in and values out."""

from __future__ import annotations

from collections.abc import Mapping

from .audit import AUDIT
from .contract import CONTRACT
from .deploy import DEPLOY
from .evaluate import EVALUATE
from .prepare import PREPARE
from .register import REGISTER
from .stage import Earlier, Stage, Task
from .train import TRAIN

ALL_STAGES: Mapping[str, Stage] = {
    stage.name: stage for stage in (PREPARE, CONTRACT, TRAIN, EVALUATE, AUDIT, REGISTER, DEPLOY)
}

__all__ = ["ALL_STAGES", "Earlier", "Stage", "Task"]
