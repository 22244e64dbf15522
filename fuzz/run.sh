#!/bin/sh
# Runs every fuzz target, or those named, for SECONDS each, from the committed seeds:
#     fuzz/run.sh 60
#     fuzz/run.sh 600 route message
# Needs `cargo install cargo-fuzz` and a C++ compiler. Works with stable Rust: RUSTC_BOOTSTRAP lets it take the compiler's
# sanitizer flags, in this build alone. What is found on the way stays in fuzz/corpus, what fails in fuzz/artifacts; neither
# is committed, but a failing input becomes a seed together with its fix.
set -eu
cd "$(dirname "$0")"
seconds=${1:?usage: fuzz/run.sh SECONDS [TARGET...]}
shift
[ $# -gt 0 ] || set -- $(sed -n 's/^name = "\(.*\)"$/\1/p' Cargo.toml | grep -v '^relay-fuzz$')
export RUSTC_BOOTSTRAP=1
for target; do
    echo "== $target, $seconds s"
    mkdir -p "corpus/$target"
    cargo fuzz run --fuzz-dir . "$target" "corpus/$target" "seeds/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1
done
