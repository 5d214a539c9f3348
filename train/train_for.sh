#!/bin/sh
# sh train/train_for.sh MINUTES OUT_DIR PACKED_DIR CONFIG [options of python -m train]
#
# Goes on with the run packed in PACKED_DIR (begins it where that is not there), stops in time, and
# packs it into OUT_DIR, all within MINUTES: the last of them is for packing. Whatever happens to the
# training, its last whole checkpoint is packed. OUT_DIR may be PACKED_DIR.
#
# Exit status: that of the training: 0 when all steps are done, 75 when the time was up (or SIGTERM
# came), 137 if it did not stop when asked to; 2 for a mistake. 1 also if there was nothing to pack.
# PYTHON names the interpreter (python3); the run lies in a folder of its own in TMPDIR (/tmp)
# meanwhile.

usage="usage: sh train/train_for.sh MINUTES OUT_DIR PACKED_DIR CONFIG [options of python -m train]"

fail() {
  echo "train_for.sh: error: $1" >&2
  exit "${2:-2}"
}

began=$(date +%s)
[ $# -ge 4 ] || fail "$usage"
minutes=$1 out=$2 packed=$3
shift 3
python=${PYTHON:-python3}
command -v timeout >/dev/null || fail "there is no command timeout; install GNU coreutils"

case $minutes in
  '' | *[!0-9.]* | *.*.*) fail "MINUTES: got '$minutes'; give a number, e.g. 55" ;;
esac
seconds=$(awk "BEGIN { print int($minutes * 60) }")
[ "$seconds" -gt 60 ] || fail "MINUTES: got $minutes; give more than 1, as the last is for packing"
overwrite=
if [ "$out" = "$packed" ]; then
  overwrite=--overwrite
elif [ -e "$out/manifest.json" ]; then
  fail "$out: holds a packed run; name another OUT_DIR, or give it as PACKED_DIR as well"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/train_for.XXXXXX") || exit 1
run=$work/run
if [ -e "$packed" ]; then
  "$python" -m train.pack --unpack "$packed" "$run" || {
    status=$?
    rm -rf "$work"
    exit $status
  }
else
  echo "train_for.sh: $packed is not there: the run begins anew" >&2
fi

# In the background, as a shell that waits for its foreground hears no signal. Who does not stop at
# the first is killed in time for packing what was saved before.
left=$((seconds - 60 - $(date +%s) + began))
[ "$left" -ge 1 ] || left=1
timeout --preserve-status -s TERM -k 30 "$left" \
  "$python" -m train "$@" --run "$run" --resume &
training=$!
trap 'kill -TERM $training 2>/dev/null' TERM INT HUP
wait $training
status=$?
# A signal ends the wait, but not the training.
while kill -0 $training 2>/dev/null; do
  wait $training
  status=$?
done
# Asked to stop before it listened: nothing is lost.
[ $status -ne 143 ] || status=75

[ ! -s "$run/metrics.jsonl" ] || tail -n 1 "$run/metrics.jsonl"
if [ ! -e "$run" ]; then
  echo "train_for.sh: it did not begin, and nothing was packed" >&2
  rm -rf "$work"
  [ $status -ne 75 ] || status=1
elif "$python" -m train.pack "$run" "$out" $overwrite; then
  rm -rf "$work"
else
  echo "train_for.sh: nothing was packed; what there is of the run is in $run" >&2
  [ $status -ne 0 ] && [ $status -ne 75 ] || status=1
fi
exit $status
