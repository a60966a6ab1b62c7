"""A process that asks, to be killed: `python -m tests.unit.llm.asking ENDPOINT JOURNAL CALLS OUT`.

ENDPOINT is an endpoint's fields as JSON. When all calls are answered, OUT is written, a line for
each: what came back, and nothing that depends on when.
"""

import sys
from dataclasses import asdict
from pathlib import Path

import orjson
from pydantic import TypeAdapter

from megatron_msm.errors import MsmError
from megatron_msm.llm.call import Call
from megatron_msm.llm.endpoints import Endpoint
from megatron_msm.llm.journal import Journal
from megatron_msm.llm.pool import Pool


def numbered_calls(number: int) -> list[Call]:
    return [
        Call(address=f"documents/{index}", step="documents", prompt=f"write number {index}")
        for index in range(number)
    ]


def main() -> None:
    fields, journal_path, number, out = sys.argv[1:]
    endpoint: Endpoint = TypeAdapter(Endpoint).validate_json(fields)
    try:
        with (
            Journal(Path(journal_path)) as journal,
            Pool({"writer": endpoint}, journal=journal) as pool,
        ):
            answers = pool.answer(numbered_calls(int(number)), endpoint="writer")
    except MsmError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_status)
    lines = [orjson.dumps(asdict(answer), option=orjson.OPT_APPEND_NEWLINE) for answer in answers]
    Path(out).write_bytes(b"".join(lines))


if __name__ == "__main__":
    main()
