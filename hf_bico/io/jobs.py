"""Hugging Face Jobs: a command is submitted, and asked after."""

import warnings
from typing import Any, NamedTuple

from huggingface_hub import JobStage

from hf_bico.io.hub import Hub

ENDED = (JobStage.ERROR, JobStage.CANCELED, JobStage.DELETED)
"""Stages of a job that has failed."""


class Job(NamedTuple):
    """A job on the Hub."""

    id: str
    url: str
    stage: str
    message: str | None

    @property
    def is_done(self) -> bool:
        """Whether its command has ended well."""
        return self.stage == JobStage.COMPLETED

    @property
    def has_failed(self) -> bool:
        """Whether it has ended in another way."""
        return self.stage in ENDED


def submit(hub: Hub, request: dict[str, Any], secrets: dict[str, str]) -> Job:
    """Submit a job.

    Args:
        request: arguments of `huggingface_hub.run_uv_job`, but for the secrets.
        secrets: environment variables that are not shown.

    Raises:
        PortError: the Hub refuses.
    """
    with hub.hub_errors_as_one_line("a job", None, "model"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it is experimental
        return _job(hub.api.run_uv_job(**request, secrets=secrets))


def find(hub: Hub, namespace: str, id: str) -> Job:
    """Return how far a job is.

    Raises:
        PortError: the Hub does not say.
    """
    with hub.hub_errors_as_one_line(f"job {id}", None, "model"):
        return _job(hub.api.inspect_job(job_id=id, namespace=namespace))


def _job(info: Any) -> Job:
    return Job(info.id, info.url, str(getattr(info.status.stage, "value", info.status.stage)), info.status.message)
