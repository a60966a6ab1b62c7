"""What of a reply is thought, and what is said."""

import re

_THOUGHTS = re.compile(r"<(scratchpad|think)>.*?(?:</\1>|\Z)", flags=re.DOTALL | re.IGNORECASE)


def without_thoughts(reply: str) -> str:
    """Return what is said. A thought that is not closed goes on to the end.

    Templates that open a thought in the prompt leave only its end in the reply.
    """
    return _THOUGHTS.sub("", reply.rpartition("</think>")[2])
