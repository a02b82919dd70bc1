# Sourced by run_demo.sh, run_study.sh and run_10b.sh: stages that are run once, one log each, and the folder that they
# belong to. Reads $out, the output folder, $conditions, those that this call runs, and $dry_run ("yes" prints commands
# and runs none).

# claim_folder ARGUMENTS REMEDY: a folder that was made with other arguments must not pass for this call's.
claim_folder() {
    local reason
    if [[ -f $out/arguments.txt && $(<"$out/arguments.txt") != "$1" ]]; then
        fail "$out was made with $(<"$out/arguments.txt"); $2"
    fi
    [[ $dry_run == yes ]] && return
    lock_folder
    # Renamed, because the job of the other condition may be reading it.
    reason=$( {
        mkdir -p "$out/logs" && echo "$1" >"$out/.arguments.$$" && mv "$out/.arguments.$$" "$out/arguments.txt"
    } 2>&1) || fail "cannot write to $out: ${reason##*: }"
}

# lock_folder: have the conditions' parts of $out alone until this script, and what it started, has ended, however that
# happens. Two jobs may run one condition each.
locked=""
lock_folder() {
    local condition file lock reason can_lock=yes
    if ! command -v flock >/dev/null || ((BASH_VERSINFO[0] < 4)); then # as on macOS
        can_lock=no
        [[ -n $locked ]] || echo "note: without flock and bash 4 a second run in the same folder would not be noticed" >&2
    fi
    for condition in "${conditions[@]}"; do
        file=$out/.lock_$condition
        [[ $locked != *"|$file|"* ]] || continue # a second lock would find the first one in its way
        locked+="|$file|"
        reason=$( { mkdir -p "$out" && : >>"$file"; } 2>&1) || fail "cannot write to $out: ${reason##*: }"
        if [[ $can_lock == yes ]]; then
            exec {lock}>"$file"
            flock -n "$lock" || fail "another run is writing in $out; wait for it or stop it"
        fi
    done
}

# label NAME: put [NAME] before every line, the carriage returns of progress bars taken for line ends.
label() {
    uv run --no-sync python -u -c 'import sys
sys.stdin.reconfigure(newline=None)
for line in sys.stdin:
    if line.strip():
        print(f"[{sys.argv[1]}] {line}", end="", flush=True)' "$1"
}

# stage NAME FILE COMMAND...: run COMMAND in the environment unless FILE, the last thing it writes, is there. A command
# that finds out by itself whether it is done has "" for FILE.
stage() {
    local name=$1 file=$2
    shift 2
    # One condition runs in the background (pipeline.sh). When the script itself was killed, it ends with its stage.
    kill -0 $$ 2>/dev/null || exit 1
    if [[ -e $file ]]; then
        echo "[$name] complete, skipped"
        return
    fi
    if [[ $dry_run == yes ]]; then
        echo "[$name] uv run --no-sync$(printf ' %q' "$@")"
        return
    fi
    # Every command, for the study's report; without it a stage runs all the same.
    { echo "uv run --no-sync$(printf ' %q' "$@")" >>"$out/logs/commands.txt"; } 2>/dev/null || true
    local started=$SECONDS
    # Bars are drawn rarely: two runs may share the terminal. The log's end must not die of the signal that makes a
    # training save and stop, or what it still says breaks its pipe.
    # A log that cannot be written ends no stage: one that meets the full disk itself says so better than tee.
    TQDM_MININTERVAL=5 uv run --no-sync "$@" 2>&1 |
        (trap '' TERM && (tee "$out/logs/${name// /_}.log" 2>/dev/null || true) | label "$name")
    echo "[$name] done in $((SECONDS - started)) s"
}
