"""Where the example studies lie: inside an installed wheel, or beside a checkout's packages."""

from pathlib import Path


def examples_folder() -> Path:
    """Return the folder that holds `cheese/`."""
    packaged = Path(__file__).with_name("examples")
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "examples"
