"""A Hub that fails: asked again where that does no harm, a commit is made once, and every error is one line."""

import logging
from itertools import count

import pytest
from huggingface_hub import HfApi, constants
from support.faulty import Fault, faulty

from hf_bico import PortError
from hf_bico.io import patience
from hf_bico.io.hub import Hub

NUMBERS = count()


@pytest.fixture
def proxy(hub):
    with faulty(hub.url) as found:
        yield found


@pytest.fixture
def through(proxy, world, monkeypatch):
    """Our Hub by way of the proxy, with waits that take no time; `waited` is what it waited."""
    waited = []
    monkeypatch.setattr(patience.time, "sleep", waited.append)
    made = Hub()
    made.api.endpoint = proxy.url
    monkeypatch.setattr(constants, "ENDPOINT", proxy.url)
    template = proxy.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    made.waited = waited
    return made


@pytest.fixture
def folder(tmp_path):
    """A result to push: a small file, and weights that go by LFS."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("{}")
    (tmp_path / "out" / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    return tmp_path / "out"


def push(hub, folder, repo, parent=None, **more):
    return hub.push(folder, repo, parent=parent, message="A port", **more)


def fresh() -> str:
    return f"demo/faulty-{next(NUMBERS)}"


def log_of(repo: str, revision: str | None = None) -> list[str]:
    return [each.title for each in HfApi().list_repo_commits(repo, revision=revision)]


ASKED = [
    Fault("reset", "GET", "/api/models/demo/ft$", 3),
    Fault("lost", "GET", "/api/models/demo/ft$", 2),
    Fault("status", "GET", "/api/models/demo/ft$", 2, 502),
    Fault("status", "GET", "/api/models/demo/ft$", 1, 429, {"Retry-After": "7"}),
    Fault("status", "GET", "/api/models/demo/ft$", 1, 429, {"ratelimit": '"api";r=0;t=7'}),
]


@pytest.mark.parametrize("fault", ASKED, ids=lambda fault: f"{fault.what}-{fault.status}-{fault.times}")
def test_questions_are_asked_again(through, proxy, fault, caplog):
    proxy.faults.append(Fault(**vars(fault)))
    with caplog.at_level(logging.WARNING, "hf_bico"):
        assert through.resolve("demo/ft").commit == Hub().resolve("demo/ft").commit
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("hf_bico")]
    assert all("trying again in" in line and line.endswith(" …") for line in lines)
    assert len(lines) == len(through.waited)
    if fault.headers:
        assert through.waited[0] in (7, 8)


def test_a_connection_that_was_closed_while_idle_is_opened_anew_in_silence(through, proxy, caplog):
    proxy.faults.append(Fault("idle", times=3))
    for _ in range(3):
        through.resolve("demo/ft")
    assert through.waited == []
    assert "trying again" not in caplog.text


def test_a_hub_that_stays_away_is_given_up_in_one_line(through, proxy):
    proxy.faults.append(Fault("status", times=100, status=500))
    with pytest.raises(PortError) as refused:
        through.resolve("demo/ft")
    assert "\n" not in str(refused.value)
    assert through.waited == list(patience.WAITS)
    with pytest.raises(PortError):
        through.resolve("demo/ft")
    assert through.waited == list(patience.WAITS)  # who asks again at once is not kept waiting again


def test_a_wait_that_is_too_long_is_told(through, proxy):
    proxy.faults.append(Fault("status", times=9, status=429, headers={"Retry-After": "86400"}))
    with pytest.raises(PortError, match="429"):
        through.resolve("demo/ft")
    assert through.waited == []


def test_files_come_through_faults(through, proxy):
    proxy.faults += [Fault("reset", "HEAD", "/resolve/"), Fault("status", "GET", "/resolve/", 1, 503)]
    HfApi().create_repo(repo := fresh())
    HfApi().upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id=repo)
    pinned = through.resolve(repo)
    assert (through.fetch(pinned, ("config.json",)) / "config.json").read_text() == "{}"


PLACES = {
    "whoami": ("GET", "/api/whoami-v2"),
    "info": ("GET", "/api/models/demo/"),
    "create": ("POST", "/api/repos/create"),
    "preupload": ("POST", "/preupload/"),
    "batch": ("POST", "/info/lfs/objects/batch"),
    "commit": ("POST", "/commit/"),
}


@pytest.mark.parametrize("answer", ["login", "json"])
@pytest.mark.parametrize("place", PLACES)
def test_a_page_where_json_belongs_is_one_line(through, proxy, folder, place, answer):
    repo = fresh()
    proxy.faults.append(Fault(answer, *PLACES[place], times=100))
    with pytest.raises(PortError, match=r"not what a Hub does") as refused:
        through.writer()
        push(through, folder, repo)
        through.existing(repo)
    assert "\n" not in str(refused.value)
    proxy.faults.clear()
    assert not HfApi().repo_exists(repo) or log_of(repo)[0] != "A port"


def test_a_page_where_a_header_of_weights_belongs(through, proxy, world):
    from hf_bico.io.checkpoints import Shapes

    proxy.faults.append(Fault("login", "GET", "/resolve/", times=100))
    with pytest.raises(PortError) as refused:
        Shapes(through, through.resolve("demo/ft"), ("open_clip_model.safetensors",))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("what", ["lost", "reset", "status"])
@pytest.mark.parametrize("place", ["/api/repos/create", "/commit/main", "/preupload/", "/lfs/"])
def test_a_push_is_made_once_whatever_is_lost(through, proxy, folder, what, place):
    repo = fresh()
    proxy.faults.append(Fault(what, "POST|PUT", place))
    url = push(through, folder, repo)
    assert log_of(repo).count("A port") == 1
    assert url.endswith(HfApi().repo_info(repo).sha)
    assert proxy.count("POST", "/commit/main") == 1
    assert set(HfApi().list_repo_files(repo)) >= {"config.json", "model.safetensors"}


@pytest.mark.parametrize("what", ["lost", "reset"])
def test_a_pull_request_is_opened_once(through, proxy, folder, what):
    repo = fresh()
    HfApi().create_repo(repo)
    proxy.faults.append(Fault(what, "POST", "/commit/main"))
    url = push(through, folder, repo, HfApi().repo_info(repo).sha, create_pr=True)
    pulls = HfApi().list_repo_refs(repo, include_pull_requests=True).pull_requests
    assert [pull.ref for pull in pulls] == ["refs/pr/1"]
    assert url.endswith("/discussions/1")
    assert proxy.count("POST", "/commit/main") == 1


def test_another_commit_is_not_taken_for_ours(through, proxy, folder):
    repo = fresh()
    HfApi().create_repo(repo)
    parent = HfApi().repo_info(repo).sha
    HfApi().upload_file(path_or_fileobj=b"other", path_in_repo="config.json", repo_id=repo, commit_message="A port")
    proxy.faults.append(Fault("reset", "POST", "/commit/main"))
    with pytest.raises(PortError, match="has moved since"):
        push(through, folder, repo, parent)
    assert log_of(repo).count("A port") == 1


def test_an_owner_s_own_client_is_left_alone(monkeypatch):
    from huggingface_hub.utils import _http

    monkeypatch.setattr(_http, "_GLOBAL_CLIENT_FACTORY", own := lambda: None)
    patience.be_patient()
    assert _http._GLOBAL_CLIENT_FACTORY is own


def test_dates_to_wait_for():
    assert patience.asked_to_wait({"retry-after": "12"}, 1) == 12
    assert patience.asked_to_wait({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 1) == 0
    assert patience.asked_to_wait({"retry-after": "soon"}, 1) == 1
