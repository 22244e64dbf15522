//! Known nodes: what reads is written and read again; an error names its line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_trust::known::KnownNodes;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match KnownNodes::parse(text) {
        Ok(nodes) => {
            assert_eq!(KnownNodes::parse(&nodes.to_string()).as_ref(), Ok(&nodes));
            for known in nodes.iter() {
                assert!(nodes.expect(&known.way, &[]).standing(&known.key).is_some());
                let mut without = nodes.clone();
                assert!(!without.forget(&known.way).is_empty());
                assert!(!without.expect(&known.way, &[]).is_vouched_for());
            }
        }
        Err(errors) => {
            let lines = text.lines().count();
            assert!(errors.0.iter().all(|error| (1..=lines).contains(&error.line)), "{errors}");
        }
    }
});
