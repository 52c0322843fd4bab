"""All families that are written down as a table."""

from hf_bico.families.layout import FamilyLayout
from hf_bico.families.tables.bert import BERT, NOMIC, ROBERTA
from hf_bico.families.tables.clip import CLIP, CLIP_TEXT, CLIP_VISION, SIGLIP, SIGLIP_TEXT, SIGLIP_VISION
from hf_bico.families.tables.dinov2 import DINOV2
from hf_bico.families.tables.distilbert import DISTILBERT
from hf_bico.families.tables.gpt2 import GPT2
from hf_bico.families.tables.llama import COHERE, LLAMA, MIXTURE
from hf_bico.families.tables.modernbert import MODERNBERT
from hf_bico.families.tables.mpnet import MPNET
from hf_bico.families.tables.t5 import T5
from hf_bico.families.tables.timm import TIMM
from hf_bico.families.tables.vit import DEIT, VIT

TABLES: tuple[FamilyLayout, ...] = (
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
    NOMIC,
    DISTILBERT,
    MODERNBERT,
    MPNET,
    T5,
    GPT2,
    LLAMA,
    COHERE,
    MIXTURE,
)
