//! Where the programs under test are.
//!
//! Cargo tells a test only where the programs of its own package are, so these are looked for beside the test itself:
//! `target/debug/deps/test-1234` belongs to `target/debug/relay-node`. A program that is missing there, or older than one of its sources,
//! is built first, once a test process. `RELAY_TEST_PROGRAMS` names another directory, whose programs are taken as they are.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex};
use std::time::SystemTime;

/// The path of the program `name`, such as `relay-node`, built from the sources as they are now.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    static FOUND: LazyLock<Mutex<BTreeMap<String, PathBuf>>> = LazyLock::new(Mutex::default);
    let mut found = FOUND.lock().expect("no test panics while it looks for a program");
    found.entry(String::from(name)).or_insert_with(|| locate(name)).clone()
}

fn locate(name: &str) -> PathBuf {
    let file = format!("{name}{}", env::consts::EXE_SUFFIX);
    if let Some(directory) = env::var_os("RELAY_TEST_PROGRAMS") {
        return PathBuf::from(directory).join(file);
    }
    let directory = profile_directory();
    let path = directory.join(file);
    if !is_up_to_date(&path) {
        build(name, &directory);
    }
    assert!(path.exists(), "{} was built but is not there", path.display());
    path
}

/// The directory that holds a profile's programs, `target/debug` say.
pub(crate) fn profile_directory() -> PathBuf {
    let test = env::current_exe().expect("the test's own path");
    let mut directory = test.parent().expect("a program stands in a directory");
    if directory.file_name().is_some_and(|name| name == "deps") {
        directory = directory.parent().expect("deps stands in a directory");
    }
    directory.to_path_buf()
}

fn build(name: &str, directory: &Path) {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", name, "--bin", name]);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    command
        .arg("--target-dir")
        .arg(directory.parent().expect("a profile's directory stands in the target directory"));
    match directory.file_name().and_then(|profile| profile.to_str()) {
        Some("debug") | None => {}
        Some(profile) => {
            command.args(["--profile", profile]);
        }
    }
    let status = command.status().expect("cargo starts");
    assert!(status.success(), "{name} cannot be built: {status}");
}

/// Whether the program is younger than all its sources, which cargo lists beside it.
fn is_up_to_date(program: &Path) -> bool {
    let Some(built) = modified(program) else { return false };
    let Ok(list) = fs::read_to_string(program.with_extension("d")) else { return false };
    sources(&list).iter().all(|source| modified(Path::new(source)).is_some_and(|time| time <= built))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// The paths behind the colon of a Makefile's rule; a space within a path is escaped by a backslash.
fn sources(rule: &str) -> Vec<String> {
    let list = rule.split_once(": ").map_or("", |(_, list)| list);
    let escaped = list.trim().replace("\\ ", "\0");
    escaped.split(' ').filter(|path| !path.is_empty()).map(|path| path.replace('\0', " ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_a_rule() {
        assert_eq!(sources("/t/a: /s/a.rs /s/b\\ c.rs\n"), ["/s/a.rs", "/s/b c.rs"]);
        assert!(sources("nonsense").is_empty());
    }

    #[test]
    fn a_program_is_as_old_as_its_youngest_source() {
        let directory = tempfile::tempdir().expect("a directory");
        let (program, source) = (directory.path().join("p"), directory.path().join("s.rs"));
        assert!(!is_up_to_date(&program), "there is none");
        fs::write(&source, "").expect("a source");
        fs::write(&program, "").expect("a program");
        assert!(!is_up_to_date(&program), "without its list");
        let rule = format!("{}: {}\n", program.display(), source.display());
        fs::write(program.with_extension("d"), rule).expect("a list");
        assert!(is_up_to_date(&program));
        let later = modified(&program).expect("a time") + std::time::Duration::from_secs(1);
        fs::File::options()
            .write(true)
            .open(&source)
            .expect("a file")
            .set_modified(later)
            .expect("a time is set");
        assert!(!is_up_to_date(&program), "the source is younger");
    }
}
