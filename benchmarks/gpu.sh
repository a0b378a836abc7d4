#!/usr/bin/env bash
# Everything that needs a GPU, in at most ten minutes: its tests, parity with the CPU, images a second.
#
#     benchmarks/gpu.sh [PYTHON] [--keep]
#
# PYTHON has the packages of cxrlit (default: python3). --keep writes the figures to benchmarks/figures/ and
# docs/benchmarks.md. Each part has its time; where one fails, the others are run all the same, and the exit code is 1.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
python=python3
keep=()
for word in "$@"; do
    if [ "$word" = --keep ]; then keep=(--keep); else python=$word; fi
done
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} NO_ALBUMENTATIONS_UPDATE=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

part() { # SECONDS COMMAND ...
    echo "== ${*:2}"
    timeout "$1" "${@:2}" || { echo "== failed with exit code $?"; failed=1; }
}

"$python" - <<'END' || exit
import sys, torch
if not torch.cuda.is_available():
    sys.exit("error: this machine has no CUDA GPU that torch can use")
print(torch.cuda.get_device_name(), torch.__version__)
END
part 110 "$python" -m pytest -rs -p no:cacheprovider tests/training/test_fp16.py \
    tests/handoff/test_predict_devices.py tests/evaluation/test_evaluation_devices.py
part 130 "$python" benchmarks/gpu.py parity --work "$work" "${keep[@]}"
part 40 "$python" benchmarks/gpu.py loading --work "$work" "${keep[@]}"
part 60 "$python" benchmarks/gpu.py predict --work "$work" "${keep[@]}"
part 240 "$python" benchmarks/gpu.py training --work "$work" "${keep[@]}"
exit $failed
