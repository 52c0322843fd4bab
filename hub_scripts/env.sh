# Sourced by demo.sh and test.sh: an environment of our own in .venv, made once and again when its list changes.
# PYTHON names the interpreter (3.11 or newer) to make it with.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Error: Python 3.11 or newer is needed; name one with PYTHON=" >&2
    exit 2
}
extra=${1:?the extra to install}
stamp=.venv/installed-$extra
if ! [ -f "$stamp" ] || [ setup.cfg -nt "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    echo "Installing hf_bico with the extra '$extra' into .venv; the first time takes some minutes"
    .venv/bin/python -m pip install --quiet --editable ".[$extra]"
    touch "$stamp"
fi
PATH=$PWD/.venv/bin:$PATH
