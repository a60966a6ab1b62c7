"""Files that several processes write at once."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from megatron_msm.formats.files import write_text_atomic


def _write_often(path: Path, letter: str) -> None:
    for _ in range(200):
        write_text_atomic(path, letter * 1000)


def test_processes_that_write_the_same_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "shared.json"
    with ProcessPoolExecutor(4) as pool:
        for written in [pool.submit(_write_often, path, letter) for letter in "abcd"]:
            written.result()
    assert path.read_text() in {letter * 1000 for letter in "abcd"}
    assert [file.name for file in tmp_path.iterdir()] == ["shared.json"]
