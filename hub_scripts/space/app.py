"""A page that checks and ports small models of the Hub; its `check`, `port` and `methods` are tools for agents too.

    HF_TOKEN=... python hub_scripts/space/app.py

On a Space visitors log in by Hugging Face OAuth; elsewhere Gradio wants a token to play that, and uses its name alone.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import bounds  # first: it says where the libraries below find the Hub's files
import gradio as gr
import ports
import words
from huggingface_hub import HfApi
from huggingface_hub.utils import disable_progress_bars

from hf_bico.core.errors import PortError, spelling

BOUNDS = bounds.BOUNDS
LABELS = {
    "source": "Fine-tune",
    "target": "New base",
    "dataset": "Dataset",
    "base": "Old base",
    "method": "Method",
    "n": "Samples",
    "push_to": "Push to",
}
"""What settings are called on the page, errors included."""
STYLE = """
.prose table { display: block; margin-left: 0; overflow-x: auto; word-break: normal; overflow-wrap: normal; }
.prose th, .prose td { border-color: var(--border-color-primary) !important; padding: 0.3em 0.7em !important; }
.prose table, .prose tr { border: none !important; }
.prose td { min-width: 4em; }
"""
"""Wide tables scroll by themselves, and words in them are not cut."""
ALONE: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "work"}
"""Checks and ports run one at a time."""
WIDE = 260
"""Pixels of a box, at least: on a telephone they stand below one another."""
TOOLS = ("check", "port", "methods")
SHOWN = 10
"""Repos in a list of suggestions."""


@contextmanager
def as_an_error() -> Iterator[None]:
    """Show a visitor the one line of what they can mend, and nothing of what went wrong inside."""
    with spelling(lambda name: f"“{LABELS[name]}”" if name in LABELS else f"--{name.replace('_', '-')}"):
        try:
            yield
        except PortError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from error
        except Exception as error:
            logging.exception("a visit failed")
            raise gr.Error("This page failed; what happened is in its log", print_exception=False) from error


def shown(progress: gr.Progress) -> ports.Show:
    """Return what moves the progress bar."""
    return lambda done, total, what: progress((done, total), desc=what, unit="steps")


def check(
    source: str,
    target: str,
    dataset: str = "",
    base: str = "",
    samples: int = 50,
) -> dict[str, Any]:
    """Say what carrying a fine-tune over to a new base model would move and cost, and whether it is worth making.

    Nothing is written. The answer's verdict has a grade (good, uncertain, poor or impossible), the reasons for it, and
    the command to run next. Only small public repos are taken.

    Args:
        source: The fine-tune or LoRA, a Hugging Face model repo such as org/name or org/name@revision.
        target: The new base model to carry it over to, a Hugging Face model repo.
        dataset: A Hugging Face dataset repo with samples of the task. Without it the check says less.
        base: The model that the fine-tune was made from. Leave it out if the fine-tune's card names it.
        samples: How many samples to look at.

    Returns:
        All that was found: verdict, lineage with pinned commits, models, task vector, cost.
    """
    with as_an_error():
        return ports.checked(ports.Asked(source, target, dataset, base, samples))


def port(
    source: str,
    target: str,
    dataset: str,
    base: str = "",
    samples: int = 100,
    method: str = "auto",
    scored: int = 200,
) -> dict[str, Any]:
    """Carry what a fine-tune learned over to a new base model, without training, and score the result.

    Only small public repos are taken, it takes minutes, and nothing is pushed or kept: the answer has the command that
    makes the same port elsewhere. Run check first.

    Args:
        source: The fine-tune or LoRA, a Hugging Face model repo such as org/name or org/name@revision.
        target: The new base model to carry it over to, a Hugging Face model repo.
        dataset: A Hugging Face dataset repo with samples of the task.
        base: The model that the fine-tune was made from. Leave it out if the fine-tune's card names it.
        samples: How many calibration samples to draw from the split train.
        method: How it is carried over: auto tries several and takes the best; the tool methods lists them.
        scored: How many samples of the test or validation split to score on.

    Returns:
        verdict (word, reason, next step), evaluation (scores with 95 % intervals of the source, the new base without
        the port, the naive copy and the port), the model card in Markdown, and the command that makes the port again.
    """
    with as_an_error():
        made = ports.ported(ports.Asked(source, target, dataset, base, samples, method, scored))
        report = made.outcome.report
        found = {name: report[name] for name in ("verdict", "evaluation", "command", "lineage")} | {"card": made.card}
        made.drop()
        return found


def methods() -> list[dict[str, str]]:
    """List the methods by which a fine-tune can be carried over to a new base model.

    Returns:
        The name of every method, and what it does.
    """
    return ports.methods()


def nothing() -> tuple[Any, ...]:
    """Return the parts of the page that show results as they are at first."""
    return None, "", "", gr.Accordion(visible=False), gr.DownloadButton(visible=False), gr.Button(visible=False), ""


def check_on_page(
    source: str,
    target: str,
    dataset: str,
    base: str,
    samples: int,
    progress: gr.Progress = gr.Progress(),  # noqa: B008
) -> str:
    """Return what a check says, for the page."""
    with as_an_error():
        return words.of_check(ports.checked(ports.Asked(source, target, dataset, base, samples), shown(progress)))


def port_on_page(
    source: str,
    target: str,
    dataset: str,
    base: str,
    samples: int,
    method: str,
    scored: int,
    push_to: str,
    token: gr.OAuthToken | None,
    progress: gr.Progress = gr.Progress(),  # noqa: B008
) -> tuple[Any, ...]:
    """Return a port, what is told of it, its file, and the button that pushes it."""
    with as_an_error():
        asked = ports.Asked(source, target, dataset, base, samples, method, scored, push_to)
        made = ports.keep(ports.ported(asked, shown(progress), token and token.token))
        to = made.held.repo if made.held else ""
        return (
            made,
            words.of_port(made),
            made.card,
            gr.Accordion(visible=True),
            gr.DownloadButton(value=made.zipped(), visible=True),
            gr.Button(f"Push to {to}", visible=bool(to)),
            "",
        )


def push_on_page(made: ports.Made | None, token: gr.OAuthToken | None) -> str:
    """Push the port that is shown with the visitor's own token, and return where it is."""
    with as_an_error():
        if made is None or made.held is None or token is None:
            raise PortError("log in, and port it again: a push needs your own token")
        return f"Pushed: [{made.held.repo}]({made.held.send(token.token)})"


def drop(made: ports.Made | None) -> None:
    """Throw away what a visitor left."""
    if made is not None:
        made.drop()


def search(kind: str) -> Callable[[gr.KeyUpData], Any]:
    """Return what suggests repos of a kind for what is being typed."""

    def suggest(typed: gr.KeyUpData) -> Any:
        text, api = typed.input_value.strip(), HfApi(token=False)
        if len(text) < 2:
            return gr.skip()
        listed = api.list_models if kind == "model" else api.list_datasets
        try:
            return gr.Dropdown(choices=[each.id for each in listed(search=text, limit=SHOWN)])
        except Exception:  # suggestions are a courtesy
            return gr.skip()

    return suggest


def repo_box(name: str, info: str, kind: str = "model") -> gr.Dropdown:
    """Return a text box that suggests repos."""
    box = gr.Dropdown([], label=LABELS[name], info=info, allow_custom_value=True, value=None, min_width=WIDE)
    box.key_up(search(kind), None, box, queue=False, show_progress="hidden", trigger_mode="always_last")
    return box


with gr.Blocks(title="hf_bico", analytics_enabled=False, delete_cache=(1800, 3600)) as demo:
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=280):
            gr.Markdown(words.HEAD)
        with gr.Column(scale=1, min_width=200):
            gr.LoginButton()
    with gr.Row():
        source = repo_box("source", "a fine-tune or a LoRA: org/name or org/name@revision")
        target = repo_box("target", "the model to carry it over to")
        dataset = repo_box("dataset", "samples of the task; a check can do without", "dataset")
    with gr.Accordion("More choices", open=False):
        with gr.Row():
            base = gr.Textbox("", label=LABELS["base"], info="if the fine-tune's card does not name it", min_width=WIDE)
            method = gr.Dropdown(
                [each["name"] for each in ports.methods()],
                value="auto",
                label=LABELS["method"],
                info="of a port; auto takes the best of several",
                min_width=WIDE,
            )
            push_to = gr.Textbox(
                "", label=LABELS["push_to"], info="a repo of yours, if you have logged in", min_width=WIDE
            )
        with gr.Row():
            samples = gr.Slider(
                4, BOUNDS.samples, 50, step=1, label=LABELS["n"], info="to look at and to port with", min_width=WIDE
            )
            scored = gr.Slider(
                10, BOUNDS.scored, 200, step=10, label="Scored", info="samples to score a port on", min_width=WIDE
            )
    gr.Markdown(words.LIMITS)
    with gr.Row():
        check_button = gr.Button("Check")
        port_button = gr.Button("Port", variant="primary")
    told = gr.Markdown(elem_id="told", min_height=100)
    state = gr.State(None, time_to_live=3600, delete_callback=drop)
    with gr.Row():
        download = gr.DownloadButton("Download", visible=False)
        push = gr.Button("Push", visible=False, variant="primary")
    pushed = gr.Markdown()
    with gr.Accordion("Its card", visible=False) as card_part:
        card = gr.Markdown(elem_id="card")
    with gr.Accordion("Methods", open=False):
        gr.Markdown(words.of_methods())
    with gr.Accordion("For programs and agents", open=False):
        gr.Markdown(words.PROGRAMS)

    asked = [source, target, dataset, base, samples]
    results = [state, told, card, card_part, download, push, pushed]
    check_button.click(nothing, None, results, queue=False).then(check_on_page, asked, told, **ALONE)
    port_button.click(nothing, None, results, queue=False).then(
        port_on_page, [*asked, method, scored, push_to], results, show_progress_on=told, **ALONE
    )
    push.click(push_on_page, state, pushed)
    gr.api(check, api_name="check", **ALONE)
    gr.api(port, api_name="port", **ALONE)
    gr.api(methods, api_name="methods")

for each in demo.fns.values():  # those of the page, and of Gradio's own button, are no tools
    if each.api_name not in TOOLS:
        each.api_visibility = "private"

if __name__ == "__main__":
    disable_progress_bars()
    demo.queue(max_size=16).launch(mcp_server=True, show_error=True, css=STYLE)
