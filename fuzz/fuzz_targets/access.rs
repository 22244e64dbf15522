//! Access rules: an error has a place; what reads can be changed and reads again, and no rule takes what is no name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_trust::access::{AccessRules, Credentials, Grant, grant, revoke};
use std::time::SystemTime;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let rules = match AccessRules::parse(text) {
        Ok(rules) => rules,
        Err(errors) => {
            assert!(!errors.0.is_empty());
            for error in &errors.0 {
                assert!(
                    error.line >= 1 && error.column >= 1 && error.line <= text.split('\n').count(),
                    "{error}"
                );
            }
            return;
        }
    };
    let caller = rules.caller(&Credentials::default(), SystemTime::UNIX_EPOCH);
    for name in ["", "/", "a//b", "a/", "/etc/passwd", "..", "a/../b", "."] {
        assert!(!caller.may_read(name) && !caller.may_write(name), "{name:?}");
    }
    let name = "somebody-new-of-the-fuzzer".to_owned();
    let token = "relaytoken_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8".parse::<relay_trust::token::Token>();
    let new = Grant { name: name.clone(), token: token.ok().map(|token| token.hash()), ..Grant::default() };
    if let Ok(more) = grant(text, &new) {
        assert_eq!(AccessRules::parse(&more).expect("rules").whos().len(), rules.whos().len() + 1);
        let less = revoke(&more, &name).expect("what was granted is revoked");
        assert_eq!(AccessRules::parse(&less).as_ref(), Ok(&rules));
    }
    for who in rules.whos() {
        let less = revoke(text, who.name()).expect("whoever is there is revoked");
        let left = AccessRules::parse(&less).expect("rules");
        assert!(left.whos().iter().all(|other| other.name() != who.name()));
        assert_eq!(left.whos().len(), rules.whos().len() - 1);
    }
});
