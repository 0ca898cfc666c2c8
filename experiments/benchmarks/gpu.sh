#!/usr/bin/env bash
# Everything that is written for a GPU, run on one card in at most 25 minutes, in order of value.
#
#   experiments/benchmarks/gpu.sh [NANOGPT_FOLDER] [STEP ...]
#
# Steps: correct training target generation stacking profile; none named: all of them. Each has a time
# limit and writes what it found at once: tables into the benchmarks' READMEs, and its log, together
# with steps.csv and a copy of those READMEs, below $OUT (outputs/gpu). TINY=1 does it with tiny sizes,
# without a GPU too, and changes no README. PYTHON is the interpreter, .venv/bin/python by default.
set -u
cd "$(dirname "$0")/../.."
nanogpt=""
if [ $# -gt 0 ] && [ -d "$1" ]; then
    nanogpt=$(cd "$1" && pwd)
    shift
fi
steps=${*:-correct training target generation stacking profile}
out=${OUT:-outputs/gpu}
python=${PYTHON:-.venv/bin/python}
tiny=${TINY:+--tiny}
here=experiments/benchmarks
mkdir -p "$out"
[ -f "$out/steps.csv" ] || echo "step,seconds,limit_s,exit_code" >"$out/steps.csv"
failed=0

run() { # NAME LIMIT COMMAND...
    local name=$1 limit=$2 start code
    shift 2
    start=$(date +%s)
    echo "== $name, at most $limit s"
    timeout --kill-after=10 "$limit" "$@" 2>&1 | tee "$out/$name.log"
    code=${PIPESTATUS[0]}
    echo "$name,$(($(date +%s) - start)),$limit,$code" >>"$out/steps.csv"
    [ "$code" = 0 ] || failed=1
    for readme in "$here"/*/README.md "$here"/*/results_gpu.csv; do
        [ -f "$readme" ] && cp "$readme" "$out/$(basename "$(dirname "$readme")")-$(basename "$readme")"
    done
}

for step in $steps; do
    case $step in
    correct) run correct 300 "$python" -m pytest -q -m "gpu" tests/gpu ;;
    training) run training 480 "$python" $here/training/bench.py $nanogpt $tiny ;;
    target)
        if [ -n "$nanogpt" ]; then
            run target 300 "$python" $here/training/target.py "$nanogpt" $tiny
        else
            echo "== target: left out, as it needs nanoGPT's folder"
        fi
        ;;
    generation) run generation 210 "$python" $here/generation/bench.py $tiny ;;
    stacking) run stacking 90 "$python" $here/stacking/bench.py $tiny ;;
    profile) run profile 90 "$python" $here/training/profile_step.py $tiny ;;
    *)
        echo "error: no step $step: correct training target generation stacking profile" >&2
        exit 2
        ;;
    esac
done
cat "$out/steps.csv"
exit $failed
