//! The directory for what must outlive a program: keys and known nodes.
//!
//! The environment is given, not read.

use std::ffi::OsString;
use std::path::PathBuf;

/// The name of the directory that is made inside a user's own state directory.
const NAME: &str = "relay-chain";

/// Where a service keeps its state: systemd's `STATE_DIRECTORY` (systemd.exec(5); the first, when there are several), else where
/// its user does.
#[must_use]
pub fn of_service(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let given = variable("STATE_DIRECTORY").and_then(|all| std::env::split_paths(&all).next());
    given.filter(|path| path.is_absolute()).or_else(|| of_user(variable))
}

/// Where a user's programs keep their state: `relay-chain` in `XDG_STATE_HOME`, else in `~/.local/state` (XDG Base Directory
/// Specification 0.8); on Windows in `LOCALAPPDATA`.
#[must_use]
pub fn of_user(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .or_else(|| absolute("LOCALAPPDATA"));
    home.map(|home| home.join(NAME))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn where_state_is_kept() {
        let check = |variables: &[(&str, &str)], service: Option<&str>, user: Option<&str>| {
            let variable = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            };
            assert_eq!(of_service(variable).as_deref(), service.map(Path::new), "{variables:?}");
            assert_eq!(of_user(variable).as_deref(), user.map(Path::new), "{variables:?}");
        };
        let (home, state) = (("HOME", "/home/anna"), ("XDG_STATE_HOME", "/state"));
        check(&[], None, None);
        check(
            &[home],
            Some("/home/anna/.local/state/relay-chain"),
            Some("/home/anna/.local/state/relay-chain"),
        );
        check(&[home, state], Some("/state/relay-chain"), Some("/state/relay-chain"));
        // The specification has a relative path ignored.
        check(&[("XDG_STATE_HOME", "here")], None, None);
        let service = ("STATE_DIRECTORY", "/var/lib/relay-node:/var/lib/other");
        check(&[home, service], Some("/var/lib/relay-node"), Some("/home/anna/.local/state/relay-chain"));
    }
}
