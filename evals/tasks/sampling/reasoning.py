"""What of a reply is reasoning, and what is said."""

import re

_REASONING = re.compile(r"<(scratchpad|think)>.*?(?:</\1>|\Z)", flags=re.DOTALL | re.IGNORECASE)


def without_reasoning(reply: str) -> str:
    """Return what is said. Reasoning that is not closed goes on to the end.

    Templates that open it in the prompt leave only its end in the reply.
    """
    return _REASONING.sub("", reply.rpartition("</think>")[2])
