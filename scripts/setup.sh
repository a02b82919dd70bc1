# Sourced by the scripts that users run. After `set_up`, `uv` is on the PATH and .venv holds the project.
# What it leaves outside this folder: uv itself, where there was none.

UV_VERSION=0.13.8
UV_HOME="$HOME/.local/share/domain-token-gpt2/uv"
unset PYTHONDONTWRITEBYTECODE # without cached bytecode each script takes seconds longer to start

fail() {
    echo "error: $*" >&2
    exit 2
}

# usage: what stands at the top of the script that was called, without the comment signs.
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "scripts/${0##*/}"; }

# A virtual environment of its own works where the system's pip is locked; the rest is for systems without venv or pip.
install_uv() {
    local log=$UV_HOME/install.log
    mkdir -p "$UV_HOME"
    uv_path=""
    if python3 -m venv "$UV_HOME" && "$UV_HOME/bin/pip" install --quiet "uv==$UV_VERSION"; then
        uv_path="$UV_HOME/bin/uv"
    elif python3 -m pip install --quiet --target "$UV_HOME/site" "uv==$UV_VERSION"; then
        uv_path="$UV_HOME/site/bin/uv"
    elif command -v curl >/dev/null && curl -LsSf https://astral.sh/uv/install.sh | UV_INSTALL_DIR="$UV_HOME" sh; then
        uv_path="$UV_HOME/uv"
    fi >"$log" 2>&1
    [[ -n $uv_path ]] || fail "uv could not be installed ($log says why); install it by hand (https://docs.astral.sh/uv)"
}

# Link uv into a folder that the user's shell already searches, so that `uv run ...` works after this script.
link_uv() {
    local folder
    for folder in "$HOME/.local/bin" "$HOME/bin" /usr/local/bin; do
        if [[ ":$PATH:" == *":$folder:"* ]] && mkdir -p "$folder" 2>/dev/null && [[ -w "$folder" ]]; then
            ln -sf "$uv_path" "$folder/uv"
            echo "uv $UV_VERSION installed: $folder/uv"
            return
        fi
    done
    export PATH="$(dirname "$uv_path"):$PATH"
    echo "uv $UV_VERSION installed. To use it in your shell: export PATH=\"$(dirname "$uv_path"):\$PATH\""
}

set_up() {
    if ! command -v uv >/dev/null; then
        command -v python3 >/dev/null || fail "python3 is not installed; Python 3.11 or newer is needed"
        echo "installing uv ..."
        install_uv
        link_uv
    fi
    [[ -d .venv ]] || echo "making the environment in .venv (the first time this downloads PyTorch) ..."
    uv sync --quiet || fail "the environment could not be made; see the lines above"
}
