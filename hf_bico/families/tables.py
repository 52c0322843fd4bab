"""All families that are written down as a table."""

from hf_bico.families.bert import BERT, ROBERTA
from hf_bico.families.clip import CLIP, CLIP_TEXT, CLIP_VISION, SIGLIP, SIGLIP_TEXT, SIGLIP_VISION
from hf_bico.families.dinov2 import DINOV2
from hf_bico.families.distilbert import DISTILBERT
from hf_bico.families.gpt2 import GPT2
from hf_bico.families.llama import LLAMA
from hf_bico.families.modernbert import MODERNBERT
from hf_bico.families.t5 import T5
from hf_bico.families.table import Anatomy
from hf_bico.families.timm import TIMM
from hf_bico.families.vit import DEIT, VIT

TABLES: tuple[Anatomy, ...] = (
    VIT,
    DEIT,
    DINOV2,
    TIMM,
    CLIP,
    SIGLIP,
    CLIP_VISION,
    SIGLIP_VISION,
    CLIP_TEXT,
    SIGLIP_TEXT,
    BERT,
    ROBERTA,
    DISTILBERT,
    MODERNBERT,
    T5,
    GPT2,
    LLAMA,
)
