//! A hop's text: what reads is written and read again as the same; an error names bytes of the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_proto::address::Hop;
use relay_proto::digest::FileHash;

fuzz_target!(|text: &str| {
    match text.parse::<Hop>() {
        Ok(hop) => {
            let host = hop.host.as_str();
            assert!(host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:".contains(&b)), "{host:?}");
            assert_eq!(hop.to_string().parse::<Hop>(), Ok(hop));
        }
        Err(error) => assert!(text.get(error.span.clone()).is_some(), "{error:?}"),
    }
    if let Ok(hash) = text.parse::<FileHash>() {
        assert_eq!(hash.to_string().parse::<FileHash>(), Ok(hash));
    }
});
