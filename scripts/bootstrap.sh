#!/bin/sh
# Finds a Python that HELM supports and hands over to bootstrap.py. Nothing is installed here.
# Usage: scripts/bootstrap.sh [--dev] [--dry-run]; PYTHON=/path/to/python3.12 overrides the search.
set -eu

folder=$(dirname -- "$0")
root=$(CDPATH='' cd -- "$folder/.." && pwd)

# Prints "X.Y ok" or "X.Y no-ensurepip"; nothing when the command is missing or does not run.
probe() {
    "$1" -c 'import sys
from importlib.util import find_spec
print("%d.%d" % sys.version_info[:2], "ok" if find_spec("ensurepip") and find_spec("venv") else "no-ensurepip")' 2>/dev/null || true
}

refuse() {
    printf '%s\n' "HELM: $1" >&2
    exit 2
}

chosen=
seen=
unpackable=
if [ -n "${PYTHON:-}" ]; then
    candidates_are_given=yes
    set -- "$PYTHON" -- "$@"
else
    candidates_are_given=no
    set -- "$root/.venv/bin/python" python3.12 python3.11 python3 python -- "$@"
fi
while [ "$1" != "--" ]; do
    candidate=$1
    shift
    [ -z "$chosen" ] || continue
    answer=$(probe "$candidate")
    case $answer in
        "3.11 ok" | "3.12 ok") chosen=$candidate ;;
        "3.11 no-ensurepip" | "3.12 no-ensurepip") unpackable="${unpackable:-$candidate (Python ${answer%% *})}" ;;
        "") ;;
        *) seen="${seen:+$seen, }$candidate is ${answer%% *}" ;;
    esac
done
shift

if [ -z "$chosen" ]; then
    if [ -n "$unpackable" ]; then
        refuse "$unpackable has no ensurepip, so it cannot make a virtual environment: install the python3-venv package that belongs to it."
    elif [ "$candidates_are_given" = yes ]; then
        refuse "PYTHON=$PYTHON is not a Python 3.11 or 3.12 that runs${seen:+ ($seen)}."
    fi
    refuse "needs Python 3.11 or 3.12, found ${seen:-none}. Install one, or name it: make PYTHON=/path/to/python3.12"
fi
exec "$chosen" "$folder/bootstrap.py" "$@"
