"""Registered models, their versions and aliases in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import UsageError

from .mlflow_client import connect, mlflow_module, talking
from .stored import MODEL_ID_TAG, StoredVersion, stored_version

if TYPE_CHECKING:
    from mlflow import MlflowClient


class ModelRegistry:
    """The registry of one tracking server.

    Args:
        tracking_uri: Its address.

    Attributes:
        tracking_uri: Its address.

    Example:
        >>> ModelRegistry("http://127.0.0.1:5000").tracking_uri  # nothing is asked of it yet
        'http://127.0.0.1:5000'
    """

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri
        self._client: MlflowClient = connect(tracking_uri)

    @property
    def client(self) -> MlflowClient:
        """MLflow's own client, for what is not offered here."""
        return self._client

    def register_model(
        self,
        name: str,
        source: str,
        *,
        run_id: str | None = None,
        model_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        description: str | None = None,
    ) -> StoredVersion:
        """Add a version to a registered model, which is made when missing.

        Args:
            name: The model's name.
            source: Address of the model's files, such as ``models:/m-...``.
            run_id: Run that made it.
            model_id: MLflow's logged model; taken from a source ``models:/m-...`` if not given.
            tags: Noted with the version.
            description: A sentence for people.
        """
        if model_id is None and source.startswith("models:/m-"):
            model_id = source.removeprefix("models:/")
        noted = texts(tags or {})
        with self._talking(f"registering {name}"):
            if model_id:
                noted[MODEL_ID_TAG] = model_id
                run_id = run_id or self._client.get_logged_model(model_id).source_run_id
            if not self._client.search_registered_models(f"name = {quoted(name)}"):
                self._client.create_registered_model(name)
            version = self._client.create_model_version(
                name,
                self._location(source),
                run_id,
                tags=noted,
                description=description,
                model_id=model_id,
            )
        return stored_version(version)

    def model_folder(self, uri: str, to: str | Path | None = None) -> Path:
        """Return a local folder with a model's files.

        Args:
            uri: Such as ``models:/income/2``, ``models:/income@champion`` or ``models:/m-...``.
            to: Where to copy them; files on this machine are used in place when not given.
        """
        mlflow = mlflow_module()
        with self._talking(f"fetching {uri}"):
            uri = self._location(uri)
            path = mlflow.artifacts.download_artifacts(
                artifact_uri=uri,
                dst_path=None if to is None else str(to),
                tracking_uri=self.tracking_uri,
                registry_uri=self.tracking_uri,
            )
        return Path(path)

    def _location(self, uri: str) -> str:
        # MLflow itself looks such addresses up on the process-wide tracking server.
        if not uri.startswith("models:/"):
            return uri
        name = uri.removeprefix("models:/")
        if "@" in name:
            found = self._client.get_model_version_by_alias(*name.split("@", 1))
        elif "/" in name:
            found = self._client.get_model_version(*name.split("/", 1))
        else:
            return str(self._client.get_logged_model(name).artifact_location)
        return self._location(str(found.source))

    def models(self) -> list[str]:
        """Return the names of all registered models."""
        with self._talking("listing models"):
            return [model.name for model in self._client.search_registered_models()]

    def versions(self, name: str) -> list[StoredVersion]:
        """Return a model's versions, the newest first, with their aliases."""
        with self._talking(f"listing versions of {name}"):
            numbers = [
                int(found.version)
                for found in self._client.search_model_versions(f"name = {quoted(name)}")
            ]
        return [self.get_version(name, number) for number in sorted(numbers, reverse=True)]

    def get_version(self, name: str, version: int) -> StoredVersion:
        """Return one version; raises :class:`UsageError` when there is none."""
        with self._talking(f"reading version {version} of {name}"):
            return stored_version(self._client.get_model_version(name, str(version)))

    def set_version_tags(self, name: str, version: int, tags: Mapping[str, str]) -> None:
        """Note tags with a version."""
        with self._talking(f"noting tags of version {version} of {name}"):
            for key, value in texts(tags).items():
                self._client.set_model_version_tag(name, str(version), key, value)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Let an alias point at a version."""
        with self._talking(f"setting alias {alias} of {name}"):
            self._client.set_registered_model_alias(name, alias, str(version))

    def get_alias(self, name: str, alias: str) -> StoredVersion | None:
        """Return the version an alias points at, ``None`` when there is no such alias."""
        try:
            with self._talking(f"reading alias {alias} of {name}"):
                found = self._client.get_model_version_by_alias(name, alias)
        except UsageError:
            return None
        return stored_version(found)

    def delete_alias(self, name: str, alias: str) -> None:
        """Remove an alias."""
        with self._talking(f"removing alias {alias} of {name}"):
            self._client.delete_registered_model_alias(name, alias)

    def _talking(self, doing: str) -> AbstractContextManager[None]:
        return talking(self.tracking_uri, doing)


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the values as texts."""
    return {key: str(value) for key, value in values.items()}


def quoted(text: str) -> str:
    """Return the text as MLflow's queries quote it."""
    if "'" not in text:
        return f"'{text}'"
    if '"' not in text:
        return f'"{text}"'
    raise UsageError(f"{text!r} has both kinds of quotes; use a name without quotes")
