"""`sbatch:` and `srun:` of a site file: options of SLURM that have no field of their own.

A name has the form of a long option. What this package sets itself is refused, as is what a field
asks for already. Whether an option exists only SLURM knows: sites add their own. Values are one
word each, and quoted.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

# Values end up in `#SBATCH` lines: a line break in one would start a line of shell.
Word = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f]+$")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
Options = dict[Name, bool | int | Word]
"""Values by long option, without dashes; true for an option that takes none."""

_SET_HERE = frozenset(
    {
        *("array", "chdir", "dependency", "error", "input", "job-name", "nodes", "ntasks"),
        *("ntasks-per-node", "no-requeue", "open-mode", "output", "parsable", "requeue", "signal"),
        *("test-only", "wait", "wrap", "help", "version", "kill-on-invalid-dep"),
    }
)
_SET_HERE_FOR_SRUN = frozenset(
    {
        *("chdir", "error", "export", "help", "input", "kill-on-bad-exit", "nodes", "ntasks"),
        *("ntasks-per-node", "output", "unbuffered", "version"),
    }
)
_FIELDS: Mapping[str, str] = {
    **{name: name for name in ("partition", "account", "qos", "constraint", "reservation")},
    **{name: name for name in ("nodelist", "exclude", "exclusive")},
    "time": "time_min",
    "cpus-per-task": "cpus_per_task",
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), "mem_gib"),
    **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-task", "gres"), "gpus"),
}
"""Fields that ask for what an option asks for."""


def _checked(options: Options, reserved: frozenset[str]) -> Options:
    for name, value in options.items():
        if name in reserved:
            raise ValueError(f"{name}: is set by megatron-msm; remove it")
        if value is False:
            raise ValueError(f"{name}: false asks for nothing; leave it out")
    return options


SbatchOptions = Annotated[Options, AfterValidator(lambda found: _checked(found, _SET_HERE))]
SrunOptions = Annotated[Options, AfterValidator(lambda found: _checked(found, _SET_HERE_FOR_SRUN))]


def asked_twice(options: Options, fields: Mapping[str, object]) -> str | None:
    """Return what is wrong where a field asks for the same as an option, or None.

    Args:
        options: Of sbatch.
        fields: The resources' fields by name; those that ask for nothing are None or false.
    """
    for name in options:
        field = _FIELDS.get(name, "")
        is_other_gres = name == "gres" and not asks_for_gpus(name, options[name])
        if fields.get(field) and not is_other_gres:
            return f"sbatch.{name} and {field} ask for the same; remove one of them"
    return None


def asks_for_gpus(name: str, value: object) -> bool:
    """Whether an option of sbatch asks for GPUs."""
    return _FIELDS.get(name) == "gpus" and (name != "gres" or "gpu" in str(value))


def gpus_asked_for(options: Options, num_nodes: int, num_tasks: int) -> int:
    """Return how many GPUs the options of sbatch ask for: `gpu:h100:8` on each node are 8 times."""
    times = {"gpus": 1, "gpus-per-node": num_nodes, "gres": num_nodes, "gpus-per-task": num_tasks}
    found = 0
    for name, value in options.items():
        if name in times and asks_for_gpus(name, value):
            parts = [part for part in str(value).split(",") if name != "gres" or "gpu" in part]
            found += times[name] * sum(_count(part) for part in parts)
    return found


def _count(asked: str) -> int:
    """Return the number at the end of `gpu:h100:8`; a kind without a number asks for one."""
    last = asked.partition("(")[0].split(":")[-1]
    return int(last) if last.isdigit() else 1


def as_arguments(options: Options) -> list[str]:
    """Return options as arguments of a command, not quoted."""
    return [
        f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()
    ]
