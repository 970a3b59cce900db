"""The parameters that a job knows, and those that would be trained without its knowledge."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from workbench.errors import ConfigurationError


class Roster:
    """Looks, before each step, for trained parameters that were not there when the job began.

    Their gradients would not be added over workers and micro-batches: weights would drift apart
    between workers, and no norm would contain them.

    Args:
        model: The plain module.
        optimizer: Whose parameters are trained.
        parameters: The trainable parameters of the model that the job knows.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> Roster(model, optimizer, list(model.parameters())).check()
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        parameters: Sequence[torch.nn.Parameter],
    ) -> None:
        self._optimizer = optimizer
        self._known = {id(parameter) for parameter in parameters}
        self._frozen = [each for each in model.parameters() if id(each) not in self._known]
        self._count = self._counted()

    def check(self) -> None:
        """Look whether all that is trained is known.

        Raises:
            ConfigurationError: A parameter was unfrozen, or given to the optimizer, after
                ``attach()``.
        """
        thawed = sum(parameter.requires_grad for parameter in self._frozen)
        if thawed:
            raise ConfigurationError(
                f"{thawed} parameters need a gradient that were frozen at attach(); allowed: freeze "
                "and unfreeze those that needed one then; attach first and freeze after it, or "
                "close the job and attach anew"
            )
        if self._counted() != self._count:
            self._check_new()

    def _check_new(self) -> None:
        groups = self._optimizer.param_groups
        new = [each for group in groups for each in group["params"] if id(each) not in self._known]
        if any(parameter.requires_grad for parameter in new):
            raise ConfigurationError(
                f"the optimizer was given {len(new)} parameters that the job does not know; allowed: "
                "those of the model at attach(); close the job and attach anew"
            )
        self._count = self._counted()

    def _counted(self) -> int:
        return sum(len(group["params"]) for group in self._optimizer.param_groups)
