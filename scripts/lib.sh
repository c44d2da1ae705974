# Shared by the scripts here; sourced, not run.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

say() { printf '\n== %s\n' "$*"; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else return 1; fi
}

# need_packages NAME...: installs those of the distribution that are missing. Fails with the command to run.
need_packages() {
  local missing=() name
  for name in "$@"; do
    dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'install ok installed' || missing+=("$name")
  done
  [ ${#missing[@]} = 0 ] && return 0
  say "installing ${missing[*]}"
  command -v apt-get >/dev/null || { echo "this system has no apt-get: install the equivalents of ${missing[*]}" >&2; return 1; }
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >/dev/null || true
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null || {
    echo "could not install: run apt-get install ${missing[*]}" >&2
    return 1
  }
}

build_packages=(cmake ninja-build g++ nlohmann-json3-dev libcli11-dev libprotozero-dev libedit-dev libpcre2-dev)
test_packages=(libgtest-dev python3 python3-venv)
aarch64_packages=(g++-aarch64-linux-gnu qemu-user googletest)

# configure PRESET [CMAKE ARGUMENT...]: quiet unless it fails; uses ccache where it is installed.
configure() {
  local preset=$1; shift
  local launcher=()
  command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  mkdir -p build
  cmake --preset "$preset" "${launcher[@]}" "$@" >"build/$preset.configure.log" 2>&1 || { cat "build/$preset.configure.log" >&2; return 1; }
}

# The Python oracles live in a virtual environment of the build folder. Where they cannot be had, the tests that need
# them skip and say so.
oracle_environment() {
  local venv="$root/build/oracles"
  if [ ! -x "$venv/bin/python3" ]; then
    mkdir -p "$root/build"
    python3 -m venv "$venv" >/dev/null 2>&1 || { echo "no python3-venv: oracle tests will be skipped"; return 0; }
  fi
  if ! "$venv/bin/python3" -c 'import numpy, gguf, safetensors, tokenizers, jinja2, coremltools, sentencepiece, tiktoken, onnx, onnxruntime, onnxruntime_genai' >/dev/null 2>&1; then
    say "fetching the Python oracles"
    local package packages=(numpy gguf safetensors tokenizers jinja2 coremltools sentencepiece protobuf tiktoken onnx onnxruntime onnxruntime-genai)
    local pip=("$venv/bin/pip" install -q --disable-pip-version-check)
    "${pip[@]}" "${packages[@]}" >/dev/null 2>&1 || for package in "${packages[@]}"; do  # all at once, or those there are
      "${pip[@]}" "$package" >/dev/null 2>&1 || echo "no $package: its oracle tests will be skipped"
    done
  fi
  export PATH="$venv/bin:$PATH"
  ggml_oracle "$venv"
}

# ggml's own quantisers and decoders, one library built from the llama.cpp sources that a package of the registry carries:
# GGML_ORACLE, which is where tests look for it by themselves too.
ggml_oracle() { # virtual environment
  local venv=$1
  local library="$venv/lib/libggml-base.so" work="$venv/ggml" package=llama-cpp-python==0.3.36
  if [ ! -e "$library" ]; then
    say "fetching and building ggml's quantisers"
    rm -rf "$work"
    mkdir -p "$work"
    {
      "$venv/bin/pip" install -q --disable-pip-version-check scikit-build-core &&
        "$venv/bin/pip" download -q --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation \
          -d "$work" "$package" &&
        tar -xzf "$work"/*.tar.gz -C "$work" --wildcards --strip-components=1 '*/vendor/llama.cpp/ggml' &&
        printf '%s\n' 'cmake_minimum_required(VERSION 3.22)' 'project(oracle C CXX)' 'add_subdirectory(vendor/llama.cpp/ggml)' \
          >"$work/CMakeLists.txt" && # as a project of its own it asks for files that the archive leaves out
        cmake -S "$work" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DGGML_NATIVE=OFF \
          -DGGML_CPU=OFF -DGGML_OPENMP=OFF &&
        cmake --build "$work/build" --target ggml-base -j "$(nproc)" &&
        cp -L "$(find "$work/build" -name libggml-base.so | head -n 1)" "$library.new" && mv "$library.new" "$library"
    } >"$venv/ggml.log" 2>&1 || echo "no ggml (build/oracles/ggml.log): its oracle tests will be skipped"
    rm -rf "$work"
  fi
  [ ! -e "$library" ] || export GGML_ORACLE="$library"
}
