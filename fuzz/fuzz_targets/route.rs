//! Route files: routes that read survive the way through JSON; an error has a place within the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_proto::route::Route;

fuzz_target!(|bytes: &[u8]| {
    let bytes = &*Route::as_utf8(bytes);
    match Route::parse_all(bytes) {
        Ok(routes) => {
            let json = serde_json::to_vec(&routes).expect("JSON");
            assert_eq!(Route::parse_all(&json), Ok(routes));
        }
        Err(error) => {
            assert!(error.span.start <= error.span.end && error.span.end <= bytes.len(), "{error:?}");
            let (line, column) = error.line_and_column(bytes);
            assert!(line >= 1 && column >= 1);
            let _ = error.to_string();
        }
    }
});
