"""The command line's commands, one function each: words in, words out."""

from hf_bico.commands.align import align
from hf_bico.commands.arithmetic import apply, extract
from hf_bico.commands.check import check
from hf_bico.commands.compare import compare
from hf_bico.commands.port import port

COMMANDS = (port, check, compare, align, extract, apply)
