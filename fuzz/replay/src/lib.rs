//! Stands in for libFuzzer's crate, so that the same targets run as tests: a target becomes a function that takes bytes and makes its
//! input of them in the same way. Nothing may be in here that a target could not do with libFuzzer.

pub use arbitrary;

/// Declares a fuzz target, here as the function `run`.
#[macro_export]
macro_rules! fuzz_target {
    (|$bytes:ident: &[u8]| $body:expr) => {
        /// Runs the target once.
        pub fn run($bytes: &[u8]) {
            $body
        }
    };
    (|$input:ident: $type:ty| $body:expr) => {
        /// Runs the target once, unless the bytes make no input.
        pub fn run(bytes: &[u8]) {
            fn target($input: $type) {
                $body
            }
            let unstructured = $crate::arbitrary::Unstructured::new(bytes);
            if let Ok(input) = $crate::arbitrary::Arbitrary::arbitrary_take_rest(unstructured) {
                target(input);
            }
        }
    };
}
