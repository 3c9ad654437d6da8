# Sourced by the other scripts: makes .venv once, and again when pyproject.toml changes.
# usage: source scripts/env.sh EXTRAS   (such as "reference,tvm")
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extras=$1
venv=${SLMC_VENV:-.venv}
stamp=$venv/.slmc-$(printf '%s' "$extras" | tr , -)
wanted=$(sha256sum pyproject.toml 2>/dev/null || shasum -a 256 pyproject.toml)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  # A name on the PATH may be a shim without a Python behind it: each is asked.
  for python in python3 python3.13 python3.12 python3.11 none; do
    [ $python != none ] || { echo "slmc needs Python 3.11 or newer on the PATH" >&2; exit 1; }
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
  done
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  echo "Installing slmc[$extras] into $venv ..." >&2
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extras]" >&2
  echo "$wanted" > "$stamp"
fi
export PATH="$PWD/$venv/bin:$PATH"
