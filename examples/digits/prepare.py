"""The digits as images, with a table of each image's class and how much ink it holds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits

from workbench.lifecycle import Prepared, split_rows

LEVELS = ("low", "medium", "high")


def load(*, test: float = 0.2, held_back: float = 0.03, seed: int = 0) -> Prepared:
    """Return the digits; ``ink`` is binned at the terciles of the training rows.

    Args:
        test: Share of the test rows.
        held_back: Share of the rows kept for the check before deployment.
        seed: Of the split.
    """
    digits = load_digits()
    inputs = (digits.data / 16.0).astype(np.float32)  # pixels hold 0 to 16
    targets = digits.target.astype(np.int64)
    split = split_rows(targets, test=test, held_back=held_back, seed=seed)
    ink = digits.data.sum(axis=1)
    edges = np.quantile(ink[split == "train"], [1 / 3, 2 / 3])
    table = pd.DataFrame(
        {
            "digit": targets,
            "ink": pd.Series(np.take(LEVELS, np.searchsorted(edges, ink)), dtype="str"),
            "ink_total": ink,
        }
    )
    return Prepared(table=table, inputs=inputs.reshape(-1, 1, 8, 8), targets=targets, split=split)
