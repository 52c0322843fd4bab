"""A Hub that does not answer for a moment is asked again, where asking twice does no harm; one line says that we wait.

`huggingface_hub` repeats its uploads and downloads by itself, but not what it asks about repos. Its own setting for
that is the factory of its HTTP client, which transformers and datasets use too.
"""

import logging
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
from huggingface_hub import set_client_factory
from huggingface_hub.utils import _http, get_session

logger = logging.getLogger(__name__)
WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before an attempt after the first, where the Hub does not say how long."""
AT_ONCE = 2
"""How often a connection that was closed is opened anew without a wait: the Hub closes those that lay idle."""
LONGEST = 300.0
"""Seconds that are waited at most if the Hub says so; a longer wait is told as an error."""
BUSY = (408, 429, 500, 502, 503, 504)
"""Statuses of a Hub that may answer later."""
LOST = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError)
"""What is raised where no answer came."""
ASKING = ("/paths-info/", "/api/validate-yaml")
"""Parts of the addresses of questions that are posted."""
QUIET = 60.0
"""Seconds in which what was given up is tried once: some callers ask again by themselves."""


class Patient(httpx2.Client):
    """A client that repeats what can be repeated."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.given_up: dict[str, float] = {}
        self.lock, self.waiting = threading.Lock(), 0

    def send(self, request: httpx2.Request, **how: Any) -> httpx2.Response:
        """Send a request, several times where the Hub is busy or the connection was lost, and nothing is changed."""
        place = f"{request.method} {request.url}"
        tries = _tries(request) if time.monotonic() - self.given_up.get(place, -QUIET) >= QUIET else 1
        reopened = 0
        while True:
            wait, why = WAITS[min(len(WAITS) - 1, len(WAITS) + 1 - tries)], ""
            try:
                response = super().send(request, **how)
                if response.status_code not in BUSY:
                    return response
                wait, why = asked_to_wait(response.headers, wait), f"it answered {response.status_code}"
                if tries == 1 or wait > LONGEST:
                    self._give_up(place)
                    return response
                response.close()
            except LOST as error:
                if isinstance(error, httpx2.ConnectError):  # there is no such Hub, or no network
                    raise
                if isinstance(error, httpx2.RemoteProtocolError | httpx2.ReadError) and reopened < AT_ONCE < tries:
                    reopened += 1
                    continue
                if tries == 1:
                    self._give_up(place)
                    raise
                why = " ".join(str(error).split()) or type(error).__name__
            tries -= 1
            self._wait(wait, f"The Hub at {request.url.host} is not reached ({why})")

    def _wait(self, seconds: float, why: str) -> None:
        """Wait, and say so unless another thread waits already."""
        with self.lock:
            first, self.waiting = not self.waiting, self.waiting + 1
        if first:
            logger.warning("%s; trying again in %.0f s …", why, seconds)
        time.sleep(seconds)
        with self.lock:
            self.waiting -= 1

    def _give_up(self, place: str) -> None:
        self.given_up[place] = time.monotonic()


def _tries(request: httpx2.Request) -> int:
    """Return how often a request may be sent; once, if it changes anything."""
    asks = request.method in ("GET", "HEAD") or any(part in request.url.path for part in ASKING)
    return 1 + len(WAITS) if asks else 1


def asked_to_wait(headers: Mapping[str, str], otherwise: float) -> float:
    """Return how many seconds the Hub asks to wait, by Retry-After, in seconds or as a date, or its rate limit."""
    said = headers.get("retry-after", "").strip()
    if said.isdigit():
        return float(said)
    try:
        until = parsedate_to_datetime(said)
        return max(0.0, (until - datetime.now(UTC if until.tzinfo else None)).total_seconds())
    except (TypeError, ValueError):
        limit = _http.parse_ratelimit_headers(headers)
        return float(limit.reset_in_seconds + 1) if limit is not None and limit.remaining == 0 else otherwise


def be_patient() -> None:
    """Have the Hub's client be a patient one, unless its owner has set another."""
    if _http._GLOBAL_CLIENT_FACTORY is _http.default_client_factory:
        hooks, timeout = get_session().event_hooks, httpx2.Timeout(LONGEST, connect=30)
        set_client_factory(lambda: Patient(event_hooks=hooks, follow_redirects=True, timeout=timeout))
