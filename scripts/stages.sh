# Sourced by run_demo.sh and run_10b.sh: stages that are run once, one log each, and the folder that they belong to.
# Reads $out, the output folder, and $dry_run ("yes" prints commands and runs none).

# claim_folder ARGUMENTS REMEDY: a folder that was made with other arguments must not pass for this call's.
claim_folder() {
    if [[ -f $out/arguments.txt && $(<"$out/arguments.txt") != "$1" ]]; then
        fail "$out was made with $(<"$out/arguments.txt"); $2"
    fi
    [[ $dry_run == yes ]] && return
    lock_folder
    mkdir -p "$out/logs"
    echo "$1" >"$out/arguments.txt"
}

# lock_folder: have $out alone until this script, and what it started, has ended, however that happens.
lock_folder() {
    mkdir -p "$out"
    exec 9>"$out/.lock"
    if command -v flock >/dev/null; then
        flock -n 9 || fail "another run is writing in $out; wait for it or stop it"
    fi
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
    if [[ -e $file ]]; then
        echo "[$name] complete, skipped"
        return
    fi
    if [[ $dry_run == yes ]]; then
        echo "[$name] uv run --no-sync$(printf ' %q' "$@")"
        return
    fi
    local started=$SECONDS
    # Bars are drawn rarely: two runs may share the terminal. The log's end must not die of the signal that makes a
    # training save and stop, or what it still says breaks its pipe.
    TQDM_MININTERVAL=5 uv run --no-sync "$@" 2>&1 |
        (trap '' TERM && tee "$out/logs/${name// /_}.log" | label "$name")
    echo "[$name] done in $((SECONDS - started)) s"
}
