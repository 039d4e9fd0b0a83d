#!/bin/sh
# Generates src/generated from the contract. With --check it only reports whether that is up to date.
set -e
cd "$(dirname "$0")"
root=../..
. $root/clients/versions.env
for pin in tonic-prost-build="$RUST_TONIC_PROST_BUILD_VERSION" prost-build="$RUST_PROST_BUILD_VERSION" protox="$RUST_PROTOX_VERSION"; do
    if ! grep -qx "${pin%%=*} = \"=${pin#*=}\"" generate/Cargo.toml; then
        echo "clients/rust/generate/Cargo.toml does not have ${pin%%=*} ${pin#*=}, as clients/versions.env says" >&2
        exit 1
    fi
done
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/$root/bin/rust}"
out=src/generated
if [ "$1" = --check ]; then
    out=$(mktemp -d)
    trap 'rm -r "$out"' EXIT
fi
cargo run --quiet --locked --manifest-path generate/Cargo.toml -- $root/proto "$out"
if [ "$1" = --check ] && ! diff -r "$out" src/generated; then
    echo "clients/rust/src/generated is not up to date: run clients/rust/generate.sh" >&2
    exit 1
fi
