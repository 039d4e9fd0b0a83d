#!/bin/sh
# Checks this crate, its generator and its driver: generated code, tests, format and lints. The last two only where cargo has them
# (Debian's cargo-web has neither).
set -e
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../../bin/rust}"

has() {
    if cargo "$1" --version >/dev/null 2>&1; then return 0; fi
    echo "cargo $1 is not installed: skipped"
    return 1
}

./generate.sh --check
cargo test --quiet
manifests="Cargo.toml generate/Cargo.toml ../../test/conformance/rust/Cargo.toml"
if has fmt; then
    for manifest in $manifests; do cargo fmt --check --manifest-path "$manifest"; done
fi
if has clippy; then
    for manifest in $manifests; do cargo clippy --quiet --all-targets --manifest-path "$manifest" -- -D warnings; done
fi
