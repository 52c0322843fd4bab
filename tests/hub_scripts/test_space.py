"""The page on a Space: a real browser checks, ports and pushes, agents call its tools, and visitors keep to bounds."""

import asyncio
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import yaml
from support.hub import client_env

FOLDER = Path(__file__).parents[2] / "hub_scripts" / "space"
PORT = {"source": "demo/vit64-digits", "target": "demo/vit96", "dataset": "demo/digits"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
pytest.importorskip("gradio", reason="the page needs the extra 'space'")


@pytest.fixture(scope="module")
def demo(hub, tmp_path_factory):
    """The demo's three models and its digits are on the Hub."""
    from hub_scripts.demo.publish import push, write_dataset, write_models

    root = tmp_path_factory.mktemp("demo")
    for name in write_models(root):
        push(root / name, f"demo/{name}", "model")
    push(write_dataset(root), "demo/digits", "dataset")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


@contextmanager
def app(hub, folder: Path, **env: str):
    """Run the page as a process of its own; yields its address. What it fetches and makes lies in `folder`."""
    port, log = free_port(), folder / "log"
    env = client_env(hub, folder / "home") | {
        "TMPDIR": str(folder),
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "SPACE_MODEL_MB": "20",
        "SPACE_KEPT": "1",
        **env,
    }
    with open(log, "wb") as out:
        process = subprocess.Popen([sys.executable, FOLDER / "app.py"], env=env, stdout=out, stderr=out)
    try:
        for _ in range(240):
            if process.poll() is not None:
                raise RuntimeError(log.read_text()[-3000:])
            if b"Running on" in log.read_bytes():
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("space")


@pytest.fixture(scope="module")
def address(hub, demo, place):
    with app(hub, place) as found:
        yield found


def call(address: str, name: str, *words) -> tuple[str, object]:
    """Call an endpoint of Gradio's API as any client does; return how it ended and what it said."""
    sent = Request(f"{address}/gradio_api/call/{name}", json.dumps({"data": words}).encode())
    sent.add_header("Content-Type", "application/json")
    id = json.load(urlopen(sent, timeout=60))["event_id"]
    told = urlopen(f"{address}/gradio_api/call/{name}/{id}", timeout=600).read().decode()
    event, data = re.findall(r"^event: (\w+)\ndata: (.*)$", told, re.MULTILINE)[-1]
    return event, json.loads(data)


def left(place: Path) -> list[Path]:
    return list((place / "hf-bico-space").glob("port-*"))


def test_its_page_says_what_a_space_wants():
    front = yaml.safe_load((FOLDER / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    wanted = (FOLDER / "requirements.txt").read_text()
    assert (front["sdk"], front["license"], front["hf_oauth"]) == ("gradio", "apache-2.0", True)
    assert front["hf_oauth_scopes"] == ["contribute-repos"]  # no more than a push needs
    assert (FOLDER / front["app_file"]).is_file() and f">={front['sdk_version'].rsplit('.', 1)[0]}" in wanted
    assert "hf-bico" in wanted.split() and len(front["short_description"]) <= 60


def test_a_check_says_what_the_command_says(address, demo, capsys, monkeypatch):
    from support.commands import json_of

    event, (found,) = call(address, "check", *PORT.values(), "", 50)
    assert event == "complete", found
    said = json_of(capsys, monkeypatch, "check", PORT["source"], "--to", PORT["target"], "--dataset", PORT["dataset"])
    assert found["verdict"] == said["verdict"]
    assert found["lineage"] == said["lineage"] and found["signs"] == pytest.approx(said["signs"])


def test_a_port_for_programs_is_scored_and_neither_pushed_nor_kept(address, place):
    from huggingface_hub import HfApi

    before = HfApi().repo_exists("demo/vit64-digits-on-vit96")
    event, (found,) = call(address, "port", *PORT.values(), "", 40, "bico", 100)
    assert event == "complete", found
    assert found["verdict"]["word"] == "works" and found["evaluation"]["ported"]["n"] == 100
    assert found["command"].startswith("hf-bico port demo/vit64-digits@") and "## How it was made" in found["card"]
    assert left(place) == [] and HfApi().repo_exists("demo/vit64-digits-on-vit96") == before


@pytest.fixture(scope="module")
def others(hub, demo, place):
    """A private repo of the token that the page runs with, a model that is too large, and adapters of folders."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()

    def put(repo: str, files: dict, **options) -> None:
        api.create_repo(repo, exist_ok=True, **options)
        api.create_commit(repo, [CommitOperationAdd(name, data) for name, data in files.items()], commit_message="x")

    put("demo/hidden", {"config.json": b"{}"}, private=True)
    put("demo/large", {"model.safetensors": b"\0" * 21_000_000, "config.json": b"{}"})
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(place), "r": 1}
    put("demo/of-a-folder", {"adapter_config.json": json.dumps(adapter).encode(), "adapter_model.safetensors": b"x"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": str(FOLDER)}, ["is no repo of the Hub"]),
        ({"source": "../space"}, ["is no repo of the Hub"]),
        ({"dataset": "/etc"}, ["is no repo of the Hub"]),
        ({"source": "demo/of-a-folder"}, ["is no repo of the Hub"]),
        ({"source": "demo/hidden"}, ["demo/hidden", "not found"]),
        ({"target": "demo/large"}, ["demo/large has 21 MB", "20 MB at most"]),
        ({"source": "demo/nothing"}, ["demo/nothing", "not found"]),
        ({"samples": 100_000}, ["100000 samples: this page takes 1 to 200"]),
        ({"scored": 100_000}, ["100000 scored samples: this page takes 1 to 500"]),
        ({"method": "nonsense"}, ["unknown method 'nonsense'"]),
        ({"dataset": ""}, ["“Dataset”"]),
    ],
)
def test_what_goes_beyond_the_bounds_is_refused_in_one_line(address, others, place, change, words):
    asked = PORT | {"base": "", "samples": 40, "method": "bico", "scored": 100} | change
    event, data = call(address, "port", *asked.values())
    assert event == "error"
    line = data["error"] if isinstance(data, dict) else data
    assert "\n" not in line
    for word in words:
        assert word in line, line
    assert left(place) == []


def test_what_takes_too_long_is_not_begun_or_stopped(hub, demo, tmp_path):
    asked = (("check", ("", 20), "stopped after 0 s"), ("port", ("", 20, "bico", 40), "would take"))
    with app(hub, tmp_path, SPACE_SECONDS="0") as slow:
        for name, words, said in asked:
            event, data = call(slow, name, *PORT.values(), *words)
            assert event == "error" and said in data["error"], data
    assert left(tmp_path) == []


def test_its_tools_for_agents(address):
    """Over MCP, with the protocol's own client: three tools, well described, one of them called."""
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def talk() -> tuple[dict, object]:
        async with (
            streamablehttp_client(f"{address}/gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            name = next(each for each in tools if each.endswith("methods"))
            return tools, await session.call_tool(name, {})

    tools, answer = asyncio.run(talk())
    assert set(json.load(urlopen(f"{address}/gradio_api/info"))["named_endpoints"]) == {"/check", "/port", "/methods"}
    short = {name.rsplit("_", 1)[-1]: tool for name, tool in tools.items()}
    assert short.keys() == {"check", "port", "methods"}
    for name, required in {"check": {"source", "target"}, "port": {"source", "target", "dataset"}}.items():
        schema = short[name].inputSchema
        assert set(schema["required"]) == required and len(short[name].description) > 100
        assert all(each["description"] for each in schema["properties"].values())
        assert schema["properties"]["samples"]["type"] in ("integer", "number")
    assert "bico" in answer.content[0].text and not answer.isError


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="a browser is driven by playwright")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"there is no browser: {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(params=[1280, 390])
def visit(browser, address, request):
    """The page in a window of this width."""
    page = browser.new_page(viewport={"width": request.param, "height": 900}, accept_downloads=True)
    page.set_default_timeout(120_000)
    page.goto(address, wait_until="domcontentloaded")
    page.get_by_role("button", name="Check", exact=True).wait_for()
    yield page
    page.close()


def picture(page, name: str) -> None:
    """Keep a picture of the page, if someone wants to look at it."""
    if folder := os.environ.get("SPACE_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}-{page.viewport_size['width']}.png", full_page=True)


def fill(page, label: str, text: str) -> None:
    """Type into a box."""
    box = page.get_by_label(label, exact=True)
    box.click()
    box.fill(text)
    box.press("Enter")
    assert box.input_value() == text


def choose(page, label: str, text: str) -> None:
    """Type a part of a repo's name, and take it from the list; again if the list changed under the hand."""
    box = page.get_by_label(label, exact=True)
    for _ in range(5):
        box.click()
        box.fill("")
        box.press_sequentially(text[:-2], delay=40)
        page.get_by_role("option", name=text, exact=True).first.wait_for()
        page.wait_for_timeout(1000)
        page.get_by_role("option", name=text, exact=True).first.click()
        if box.input_value() == text:
            return
    raise AssertionError(f"{text} was not taken from the list")


def test_a_visitor_checks_ports_downloads_and_pushes(visit, address):
    from huggingface_hub import HfApi

    width = visit.viewport_size["width"]
    repo = f"visitor/port-{width}"
    picture(visit, "start")
    assert visit.evaluate("document.documentElement.scrollWidth") <= width
    visit.get_by_text("Sign in with Hugging Face").click()
    visit.get_by_text("Logout (demo)").wait_for()

    for (name, text), label in zip(PORT.items(), ("Fine-tune", "New base", "Dataset"), strict=True):
        (fill if name == "dataset" else choose)(visit, label, text)
    visit.get_by_role("button", name="Check", exact=True).click()
    visit.locator("#told h2", has_text="demo/vit64-digits → demo/vit96: good").wait_for()
    assert "hf-bico port demo/vit64-digits --to demo/vit96" in visit.locator("#told").inner_text()
    picture(visit, "check")

    visit.get_by_text("More choices").click()
    fill(visit, "Method", "bico")
    visit.get_by_label("Push to").fill(repo)
    visit.get_by_role("button", name="Port", exact=True).click()
    visit.get_by_role("heading", name="How it was made").wait_for()
    told = visit.locator("#told").inner_text()
    assert "Verdict: works" in told and "target + ported" in told and "pipeline_tag" not in visit.inner_text("#card")
    picture(visit, "port")
    assert visit.evaluate("document.documentElement.scrollWidth") <= width

    with visit.expect_download() as started:
        visit.get_by_text("Download", exact=True).click()
    names = zipfile.ZipFile(io.BytesIO(Path(started.value.path()).read_bytes())).namelist()
    assert {"README.md", "hf_bico.json", "open_clip_model.safetensors"} <= set(names)

    assert not HfApi().repo_exists(repo)
    visit.get_by_role("button", name=f"Push to {repo}").click()
    visit.get_by_role("link", name=repo).wait_for()
    assert repo in Path(HfApi().hf_hub_download(repo, "README.md")).read_text()
    picture(visit, "pushed")


def test_without_a_log_in_nothing_can_be_pushed(visit, place):
    for text, label in zip(PORT.values(), ("Fine-tune", "New base", "Dataset"), strict=True):
        fill(visit, label, text)
    visit.get_by_text("More choices").click()
    fill(visit, "Method", "bico")
    visit.get_by_role("button", name="Port", exact=True).click()
    visit.get_by_role("heading", name="How it was made").wait_for()
    assert visit.get_by_role("button", name=re.compile("^Push to ")).count() == 0
    assert len(left(place)) == 1  # of all that were made


def test_a_mistake_is_shown_as_one_line(visit):
    fill(visit, "Fine-tune", "/etc/passwd")
    fill(visit, "New base", "demo/vit96")
    visit.get_by_role("button", name="Check", exact=True).click()
    visit.get_by_text("is no repo of the Hub: give a name such as org/name").wait_for()
    picture(visit, "mistake")
