"""What the Hub's client raises, in one line that says what to do."""

from contextlib import contextmanager

from huggingface_hub import errors as hub_errors

from hf_bico.core.errors import PortError, setting

NO_HUB = "what {} answers is not what a Hub does (a page to log in, or a proxy's?): check the network or HF_ENDPOINT"


@contextmanager
def one_line(endpoint: str, what: str, repo: str | None, kind: str):
    """Turn the client's errors into one line that says what to do, while the block runs.

    Args:
        endpoint: the Hub's address.
        what: what to call the repo in errors.
        repo: its name, to ask for access at.
        kind: "model" or "dataset".
    """
    try:
        yield
    except hub_errors.GatedRepoError as error:  # a subclass of RepositoryNotFoundError, so it comes first
        prefix = "" if kind == "model" else f"{kind}s/"
        raise PortError(
            f"{what} is gated: ask for access at {endpoint}/{prefix}{repo}, then give "
            f"a token that has it ({setting('token')} or HF_TOKEN)"
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise PortError(f"{what}: no such revision") from error
    except hub_errors.RepositoryNotFoundError as error:
        hint = getattr(error, "hint", "")
        raise PortError(
            f"{what} was not found on {endpoint}{hint}; if it is private, give a token that may "
            f"read it ({setting('token')} or HF_TOKEN)"
        ) from error
    except hub_errors.OfflineModeIsEnabled as error:
        raise PortError(f"{what} is on the Hub, and HF_HUB_OFFLINE is set: give local folders, or unset it") from error
    except hub_errors.LocalEntryNotFoundError as error:
        raise PortError(f"{what} cannot be fetched: the network failed; try again") from error
    except (hub_errors.SafetensorsParsingError, hub_errors.NotASafetensorsRepoError) as error:
        raise PortError(f"{what}: its weights are not readable safetensors") from error
    except hub_errors.HFValidationError as error:
        raise PortError(f"{what}: {_line(error)}") from error
    except hub_errors.HfHubHTTPError as error:
        if error.response.status_code == 401:
            raise PortError(
                f"{endpoint} does not accept the token: run `hf auth login`, or give "
                f"another with {setting('token')} or HF_TOKEN"
            ) from error
        raise PortError(f"{what}: the Hub refused: {_line(error)}") from error
    except hub_errors.HTTPError as error:
        raise PortError(f"no answer from {endpoint} ({_line(error)}); check the network or HF_ENDPOINT") from error
    except hub_errors.FileMetadataError as error:
        raise PortError(f"{what}: {NO_HUB.format(endpoint)}") from error
    except OSError as error:
        raise PortError(f"{what} could not be saved on this machine: {_line(error)}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:  # JSON of another shape, or none
        raise PortError(f"{what}: {NO_HUB.format(endpoint)}") from error


def _line(error: Exception) -> str:
    """Return an error's text as one line."""
    return " ".join(str(error).split())
