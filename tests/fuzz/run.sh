#!/usr/bin/env bash
# Fuzz the plain C: tests/fuzz/run.sh INPUTS [FOLDER]. README.md says more.
#
# INPUTS: how many, over all processes; 0: until interrupted. FOLDER keeps what was learned, and findings; without one
# they are shown and lost. SEED=n repeats a run, LONGEST=n bounds the inputs' bytes, PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/../.."
inputs=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
folder=${2:-$work}
seed=${SEED:-$RANDOM}
longest=${LONGEST:-4096}
jobs=$(nproc)
sources="tests/fuzz/fuzz_core.c $(echo csrc/[!_]*.c)"
sanitize="-g -O2 -fsanitize=address,undefined -fno-sanitize-recover=all -Icsrc"
# An own stack for every block would cost a fifth of the time; a finding is looked at with it later.
export ASAN_OPTIONS=malloc_context_size=2:quarantine_size_mb=16

fuzz() { # fuzz NUMBER COMMAND…: one process's output, shown at its end if it found something
    local log=$work/log.$1
    shift
    "$@" >"$log" 2>&1 || { tail -n 60 "$log"; printf 'found something: seed %d\n' "$seed"; return 1; }
    grep -aE '^Done|no complaint' "$log"
}

clang=$(command -v clang || compgen -c clang- | grep -xE 'clang-[0-9]+' | sort -Vr | head -n 1 || true)
if [ -n "$clang" ] && $clang $sanitize -fsanitize=fuzzer $sources -o "$work/fuzz_core" 2>"$work/build"; then
    printf '%s, guided by coverage: %d processes, seed %d\n' "$clang" "$jobs" "$seed"
    mkdir -p "$work/seeds"
    "${PYTHON:-python3}" tests/fuzz/make_seeds.py "$work/seeds"
    run_one() { # process NUMBER
        mkdir -p "$folder/learned.$1"
        fuzz "$1" "$work/fuzz_core" -seed=$((seed + $1)) -runs=$((inputs > 0 ? inputs / jobs : -1)) -max_len="$longest" \
            -dict=tests/fuzz/tokens.dict -artifact_prefix="$folder/" "$folder/learned.$1" "$work/seeds"
    }
else
    cat "$work/build" 2>/dev/null || true
    printf 'no clang with libFuzzer: changed copies of known texts, %d processes, seed %d\n' "$jobs" "$seed"
    ${CC:-cc} $sanitize -DFUZZ_STANDALONE $sources -o "$work/fuzz_core"
    texts=$("${PYTHON:-python3}" tests/fuzz/make_seeds.py "$work/seeds" | grep -oE '^[0-9]+')
    rounds=$((inputs > 0 ? inputs / jobs / texts : 2000000000))
    run_one() { fuzz "$1" "$work/fuzz_core" "$work/seeds" "$rounds" $((seed + $1)); }
fi

pids=()
for ((number = 0; number < jobs; number++)); do
    run_one "$number" &
    pids+=($!)
done
failed=0
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
exit "$failed"
