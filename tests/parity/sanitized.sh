#!/usr/bin/env bash
# Tests of the compiled core built with AddressSanitizer and UndefinedBehaviorSanitizer:
#     tests/parity/sanitized.sh [PYTEST ARGUMENTS, such as tests/parity -k lanes]
#     tests/parity/sanitized.sh --run -m tests.fuzz.fuzz_glue 1000000
# It builds in a copy, so that the module built here stays what users get. PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work/tree"
cp -rp -- * "$work/tree"
cd "$work/tree"
rm -rf build csrc/_core.c
find . -name '*.so' -delete
python=${PYTHON:-python3}
sanitize="-fsanitize=address,undefined"
# By pip, which brings the build's own tools along.
CFLAGS="$sanitize -fno-sanitize-recover=undefined -fno-omit-frame-pointer -O1 -g" LDFLAGS=$sanitize \
    LASERSELL_BUILD_EXTENSION=yes "$python" -m pip install --no-deps --target "$work/built" . >"$work/build.log" 2>&1 ||
    { cat "$work/build.log"; exit 1; }
cp "$work"/built/lasersell_sync/_core*.so lasersell_sync/

# The sanitizers' libraries must come before everything else, and every object must be a block of its own. Leaks are
# test_core_memory.py's business: the interpreter keeps too much. Reports go to files, for pytest hides what a dying
# process prints.
export LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so) $(gcc -print-file-name=libstdc++.so.6)"
export PYTHONMALLOC=malloc PYTHONPATH=$PWD LASERSELL_SANITIZED=1
export ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=64:log_path=$work/report
export UBSAN_OPTIONS=print_stacktrace=1:log_path=$work/report
failed=0
# A crash is the sanitizer's to report.
if [ "${1-}" = --run ]; then
    shift
    "$python" "$@" || failed=$?
else
    "$python" -m pytest -p no:cacheprovider -p no:faulthandler "$@" || failed=$?
fi
for report in "$work"/report.*; do
    [ -e "$report" ] && { cat "$report"; failed=1; }
done
exit "$failed"
