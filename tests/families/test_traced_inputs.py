"""Models that read more than one text, live: every tower's rows meet their own, under masks."""

import torch
import transformers

from hf_bico import BiCo, port

VISION = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {"intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 60}
IMAGE = 59


def llava(seed: int, width: int):
    torch.manual_seed(seed)
    vision = transformers.CLIPVisionConfig(**VISION, image_size=16, patch_size=8)
    text = transformers.LlamaConfig(**TEXT, hidden_size=width)
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE)
    return transformers.LlavaForConditionalGeneration(config).eval()


def whisper(seed: int, width: int):
    torch.manual_seed(seed)
    sides = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 2), ("ffn_dim", 20))}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes = {"max_source_positions": 20, "max_target_positions": 20, "num_mel_bins": 8, "vocab_size": 60}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = transformers.WhisperConfig(d_model=width, **sides, **heads, **sizes, **special)
    return transformers.WhisperForConditionalGeneration(config).eval()


def ported(base, target, batch, loss=None):
    generator = torch.Generator().manual_seed(0)
    tuned = {key: x + 0.01 * torch.randn(x.shape, generator=generator) for key, x in base.state_dict().items()}
    return port(tuned=tuned, base=base, target=target, calibration=[batch], loss=loss, method=BiCo())


def test_images_and_masked_texts_meet_in_their_towers():
    """LLaVA takes its features from the block before the last: what nothing depends on is not waited for."""
    ids = torch.randint(3, 50, (4, 9), generator=torch.Generator().manual_seed(0))
    ids[:, 1:5] = IMAGE
    mask = torch.ones_like(ids)
    mask[2:, 7:] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}
    batch["pixel_values"] = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = ported(llava(0, 24), llava(1, 32), batch, lambda model, some: 4 * model(**some).loss)
    blocks = {(row["tower"], row["target"]): len(row["sites"]) for row in found.report["layers"]}
    assert blocks == {("", 0): 6, ("text", 0): 7, ("text", 1): 7, ("", None): 2}  # and the projector
    assert any("vision_tower" in left["key"] and "layers.1." in left["key"] for left in found.report["left"])


def test_sound_and_its_text_meet_in_encoder_and_decoder():
    labels = torch.randint(3, 50, (4, 5), generator=torch.Generator().manual_seed(0))
    labels[2:, 3:] = -100
    sound = torch.randn(4, 8, 40, generator=torch.Generator().manual_seed(0))
    found = ported(whisper(0, 16), whisper(1, 24), {"input_features": sound, "labels": labels})
    towers = {row["tower"] for row in found.report["layers"]}
    assert (len(found.moved), towers) == (32, {"", "decoder"})
