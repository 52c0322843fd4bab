"""What other libraries say when they are given a repo that they cannot open."""


def reason(error: BaseException) -> str:
    """Return an error as a part of one line; the kinds whose words say nothing by themselves are named."""
    said = " ".join(str(error).split())[:300]
    named = isinstance(error, ArithmeticError | LookupError | MemoryError | RecursionError) or not said
    return f"{type(error).__name__}: {said}".rstrip(": ") if named else said
