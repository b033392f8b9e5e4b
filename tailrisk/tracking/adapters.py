"""Adapters that a configuration names in MLflow: a registered model, or an artifact of a run.

``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` and ``runs:/RUN_ID/PATH`` stand wherever an adapter's folder may. They
are fetched once, into the folder of the runs, by the version that an alias means today; a resumed audit whose alias
has moved is refused as any other change of an adapter is.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tailrisk.config import Config
from tailrisk.errors import ConfigError
from tailrisk.tracking.uri import masked, resolve_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER = ".adapters"
_MODEL = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))")
_ARTIFACT = re.compile(r"runs:/(?P<run>[0-9a-zA-Z]+)/(?P<path>[^/].*)")


def fetch_adapters(config: Config) -> Config:
    """The configuration with everything that it names in MLflow on this machine.

    Errors: ConfigError for a reference that is not of these forms, that MLflow does not know, or that cannot be
    fetched; or where there is no ``tracking.uri``.
    """
    found = {}
    for reference in references(config):
        found[reference] = _fetched(config, reference)
    return config.with_places(found) if found else config


def references(config: Config) -> Iterator[str]:
    """Adapters named in MLflow, by the target and by proposals."""
    yield from (name for name in config.adapters if name.startswith(("models:", "runs:")))


def _fetched(config: Config, reference: str) -> Path:
    from tailrisk.tracking.client import connect

    model, artifact = _MODEL.fullmatch(reference), _ARTIFACT.fullmatch(reference)
    if model is None and artifact is None:
        raise ConfigError(
            f"adapter {reference!r}: write models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN_ID/PATH"
        )
    uri = resolve_uri(config)
    if uri is None:
        raise ConfigError(
            f"adapter {reference!r}: it is in MLflow, and tracking.uri is null; give its address"
        )
    try:
        client = connect(uri)
        if model is not None:
            version = model["version"] or _version(client, model["name"], model["alias"])
            place, source = (
                f"{model['name']}-{version}",
                client.get_model_version_download_uri(model["name"], version),
            )
        else:
            assert artifact is not None
            place, source = f"{artifact['run']}-{artifact['path']}", reference
        folder = config.run_dir / FOLDER / re.sub(r"[^A-Za-z0-9._-]", "_", place)
        if not folder.is_dir():
            _download(source, folder, uri)
    except Exception as error:  # whatever a server or its client raises
        reason = masked(" ".join(str(error).split()))[:300]
        raise ConfigError(
            f"adapter {reference!r}: MLflow at {masked(uri)} does not give it ({type(error).__name__}: {reason}); "
            "check the name and tracking.uri, or name the adapter's folder"
        ) from error
    return folder


def _version(client: MlflowClient, name: str, alias: str) -> str:
    return str(client.get_model_version_by_alias(name, alias).version)


def _download(source: str, folder: Path, uri: str) -> None:
    """By way of a neighbour, so that a folder is never half there."""
    from mlflow.artifacts import download_artifacts

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as scratch:
        got = Path(download_artifacts(artifact_uri=source, dst_path=scratch, tracking_uri=uri))
        # A scratch folder is its owner's alone; what is moved out of it should be like any other folder.
        whole = shutil.copytree(got, Path(scratch) / "whole", copy_function=shutil.copyfile)
        os.replace(whole, folder)
