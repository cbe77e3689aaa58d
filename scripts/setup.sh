#!/usr/bin/env bash
# Make a virtual environment and install whence into it: scripts/setup.sh VENV EXTRAS
#
# A torch that is already there is kept: one of the system's Python by making the environment see the system's packages,
# one of the environment by dropping torch from the constraints. pip's own settings (index, cache, find-links) are left alone.
set -euo pipefail
venv=$1
extras=$2
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "whence needs Python 3.11 or newer; $python is $("$python" --version 2>&1). Set PYTHON=/path/to/python3.11." >&2
    exit 2
}
if [ ! -x "$venv/bin/python" ]; then
    flags=()
    if "$python" -c 'import torch' 2>/dev/null; then flags+=(--system-site-packages); fi
    "$python" -m venv "${flags[@]}" "$venv"
fi
constraints="$venv/constraints.txt"
if "$venv/bin/python" -c 'import torch' 2>/dev/null; then
    grep -v '^torch==' constraints.txt >"$constraints"
else
    cp constraints.txt "$constraints"
fi
echo "installing whence[$extras] into $venv (a minute or two the first time)" >&2
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$constraints" -e ".[$extras]"
