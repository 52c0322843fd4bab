"""Images with texts go into a model as its own processor puts them, and rows meet by characters and by place."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from support.sights import COLOURS, KINDS, asked_of, model_of, processor_of, rows, write_rows

from hf_bico import PortError
from hf_bico.core.linalg import grid_resample
from hf_bico.families.feeding import UNASKED
from hf_bico.families.patches import Patches, Shown, meeting_of_images
from hf_bico.families.sights import Sight, Turn, encode_sights, joined
from hf_bico.tasks.batches import row_weights
from hf_bico.tasks.samples import Sample


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("task"))


def sample(question: str = "what is it?", answer: str | None = "a cat", shape=(16, 16)) -> Sample:
    image = rows("train")[0]["image"].resize(shape)
    return Sample(Sight((image,), (Turn("user", (None, question)),)), answer)


def encoded(kind: str, *samples: Sample, length: int | None = 256, **processor):
    made = processor_of(kind, **processor)
    return encode_sights(model_of(kind, made), made, samples, length), made.tokenizer


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_transformers_own_and_no_batch_changes_it(kind, task):
    processor = processor_of(kind)
    model = model_of(kind, processor)
    objective, samples = asked_of(model, processor, task)
    batch, alone = objective.encode(samples[:3]), [objective.encode([each]) for each in samples[:3]]
    asked = (batch.labels[:, 1:] != UNASKED).sum()
    with torch.no_grad():
        loss = objective.loss(model, batch)
        assert float(loss) == pytest.approx(float(model(**batch.inputs, labels=batch.labels).loss * asked), rel=1e-5)
        assert float(loss) == pytest.approx(sum(float(objective.loss(model, each)) for each in alone), rel=1e-5)
    said = processor.tokenizer.batch_decode([row[row != UNASKED] for row in batch.labels])
    assert [each.removesuffix("</s>").removesuffix("<|end|>\n") in COLOURS for each in said] == [True] * 3


def test_a_chat_is_asked_for_all_that_the_assistant_says_and_a_prompt_for_nothing():
    image = rows("train")[0]["image"]
    turns = Turn("user", (None, "what is it?")), Turn("assistant", ("a cat",)), Turn("user", ("where?",))
    whole, tokenizer = encoded("llava", Sample(Sight((image,), (*turns, Turn("assistant", ("at home",)))), None))
    last, _ = encoded("llava", Sample(Sight((image,), turns), (Turn("assistant", ("at home",)),)))
    said = [tokenizer.decode(each.labels[each.labels != UNASKED]) for each in (whole, last)]
    assert said == ["a cat<|end|>\nat home<|end|>\n", "at home<|end|>\n"]


IMAGES_FIRST = (
    "{% for m in messages %}{{ m.role | upper }}: {% for c in m.content if c.type == 'image' %}<image>\n{% endfor %}"
    "{% for c in m.content if c.type == 'text' %}{{ c.text + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def test_a_template_may_write_images_first_and_leave_the_beginning_to_the_tokenizer():
    """As LLaVA's does; models whose templates differ in that are not paired."""
    image = rows("train")[0]["image"]
    asked = Sample(Sight((image,), (Turn("user", ("what", None, "is it?")),)), "a cat")
    processor = processor_of("llava")
    processor.chat_template = IMAGES_FIRST
    found = encode_sights(model_of("llava", processor), processor, [asked], None)
    assert found.shown[0].order == (1, 0, 2, 3)
    labels, tokenizer = found.labels[0], processor.tokenizer
    assert tokenizer.decode(labels[labels != UNASKED]) == " a cat "
    with pytest.raises(PortError, match="in another order"):
        row_weights(found, encoded("llava", asked)[0])


def test_without_a_template_the_answer_and_the_end_are_asked_for():
    found, tokenizer = encoded("llava", sample(), template=False)
    text = tokenizer.decode(found.inputs["input_ids"][0])
    assert text == "<image>" * 16 + "\nwhat is it? a cat</s>"
    assert tokenizer.decode(found.labels[0][found.labels[0] != UNASKED]) == " a cat</s>"


@pytest.mark.parametrize("kind", ["llava", "gemma3", "idefics3"])
def test_rows_of_one_tokenizer_meet_themselves(kind):
    own, _ = encoded(kind, sample(), sample("a longer question, is it not?", "no"))
    met = row_weights(own, own)["text"]
    assert torch.equal(met, torch.diag_embed(own.inputs["attention_mask"].float()))


def test_rows_of_images_meet_by_place_and_those_of_texts_by_characters():
    a, words = encoded("llava", sample(), side=16)
    b, others = encoded("llava", sample(), side=24, other=True)
    met, x, y = row_weights(a, b)["text"][0], a.shown[0].images[0], b.shown[0].images[0]
    assert (x.grid, y.grid) == ((4, 4), (6, 6))
    assert torch.equal(met[y.first : y.last, x.first : x.last], grid_resample((4, 4), (6, 6), prefix=(0, 0)))
    assert torch.allclose(met.sum(-1), torch.ones(len(met)))
    assert not met[: y.first, x.first : x.last].any() and not met[y.last :, x.first : x.last].any()
    ends = [
        ids.tolist().index(tokenizer.convert_tokens_to_ids("<|end|>"))
        for ids, tokenizer in (
            (a.inputs["input_ids"][0], words),
            (b.inputs["input_ids"][0], others),
        )
    ]
    assert met[ends[1]].argmax() == ends[0]


def test_patches_meet_by_place_in_the_order_in_which_they_are_merged():
    """A map of the image that is linear in its coordinates stays that map, but at the edges."""
    a, b = Patches(0, 24, (4, 6), (8, 12)), Patches(0, 24, (4, 6), (8, 12))._replace(last=6, grid=(2, 3), cut=(4, 6))
    a_in, b_in = (_seen(each) for each in (a, b))
    text = torch.ones(1, 6, 24)
    sides = [_encoded([each]) for each in (a, b)]
    met = meeting_of_images({"text": text}, *sides)
    for name, own, theirs in (("patches", *(each[0] for each in (a_in, b_in))), ("merged patches", a_in[1], b_in[1])):
        small = F.interpolate(own[1][None, None], size=theirs[1].shape, mode="bilinear", align_corners=False)[0, 0]
        assert torch.allclose(met[name][0] @ own[0], _packed(small, theirs[2]), atol=1e-6)


def _seen(image: Patches):
    """(packed rows, the map itself, merge) of patches and of merged ones."""
    found = []
    for size, merge in ((image.cut, 2), (image.grid, 1)):
        whole = torch.randn(size, generator=torch.Generator().manual_seed(size[0]))
        found.append((_packed(whole, merge), whole, merge))
    return found


def _packed(whole: torch.Tensor, merge: int) -> torch.Tensor:
    """Patches as Qwen2VLImageProcessor lays them."""
    tall, wide = (side // merge for side in whole.shape)
    return whole.reshape(tall, merge, wide, merge).permute(0, 2, 1, 3).flatten()


def test_the_processor_lays_patches_in_that_order():
    numbers = torch.arange(24).reshape(4, 6)
    pixels = (10 * numbers).repeat_interleave(4, 0).repeat_interleave(4, 1).to(torch.uint8)
    image = Image.fromarray(pixels.numpy()).convert("RGB")
    found, _ = encoded("qwen2_vl", Sample(Sight((image,), (Turn("user", (None, "what?")),)), "a cat"))
    assert torch.equal(found.inputs["pixel_values"].mean(-1).argsort(), _packed(numbers, 2).argsort())


def _encoded(images: list[Patches]):
    made = encoded("qwen2_vl", sample())[0]
    return replace(made, shown=[Shown((0, 1), tuple(images))])


def test_images_cut_alike_need_no_map():
    own, _ = encoded("qwen2_vl", sample(shape=(24, 16)), sample())
    assert [each.images[0].cut for each in own.shown] == [(4, 6), (4, 4)]
    assert set(row_weights(own, own)) == {"text"}


def test_unlike_rows_that_lie_on_no_grid_are_refused():
    own, _ = encoded("llava", sample())
    odd = Patches(4, 9, None)
    with pytest.raises(PortError, match="an image is 16 tokens of the base's text and 5 of the target's"):
        meeting_of_images({"text": torch.zeros(1, 40, 40)}, own, replace(own, shown=[Shown((0, 1, 2), (odd,))]))
    with pytest.raises(PortError, match="put images and texts in another order"):
        meeting_of_images({"text": torch.zeros(1, 40, 40)}, own, replace(own, shown=[Shown((1, 0, 2), ())]))


def test_images_of_several_sizes_are_filled_with_zeros_at_their_ends():
    found = joined([torch.ones(1, 1, 2, 2), torch.ones(2, 3, 2, 1)])
    assert found.shape == (3, 3, 2, 2) and found.sum() == 4 + 12


def test_a_text_that_is_too_long_is_refused_not_cut():
    with pytest.raises(PortError, match=r"sample 0 has 2\d tokens beside those of its images"):
        encoded("llava", sample(), length=12)
