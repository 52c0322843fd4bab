"""What of a fine-tune lies beside a port's weights: added tokens, modules of sentence-transformers, letters of CTC."""

from pathlib import Path
from typing import Any

from hf_bico.families import PurposeKind
from hf_bico.families.hf import tokenizer_in
from hf_bico.families.sentences import HOLDS, sentence_of
from hf_bico.io.aside import write_tokens
from hf_bico.tasks.embeddings import Embedding
from hf_bico.tasks.requirements import TOKENIZERS
from hf_bico.workflows.session import Session


def write_companions(stage: Path, session: Session) -> None:
    """Write what of the fine-tune takes the place of the target's files."""
    models = session.plan.models
    if models.new:
        write_tokens(stage, models.new.join(tokenizer_in(session.folders[2])), models.new)
    _write_sentence(stage, session)
    if models.purpose.kind is PurposeKind.CTC:
        for name in (*TOKENIZERS, "special_tokens_map.json", "added_tokens.json"):
            (stage / name).unlink(missing_ok=True)
        session.target.loaded.tokenizer.save_pretrained(stage)


def _write_sentence(stage: Path, session: Session) -> None:
    """Write what sentence-transformers put behind the fine-tune, in place of what is behind the target; of one without
    such modules the target's stay, with the model at the top.
    """
    sentence, objective = session.plan.models.purpose.sentence, session.target.objective
    if not isinstance(objective, Embedding):
        return
    config: Any = session.target.model.config
    if sentence is None:
        own = sentence_of(session.folders[2]) if session.plan.lineage.target.above else None
        if own is not None:
            own.write(stage, config.hidden_size, own.layers(session.folders[2]))
        return
    for path in [path for path in stage.glob("*/*") if HOLDS.fullmatch(path.relative_to(stage).as_posix())]:
        path.unlink()
    sentence.write(stage, config.hidden_size, objective.dense)
