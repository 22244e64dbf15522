//! This crate cannot do IO: without the standard library there is nothing to do it with.

use std::fs;
use std::path::Path;

#[test]
fn the_crate_is_no_std() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = fs::read_to_string(crate_dir.join("src/lib.rs")).expect("the crate's root");
    assert!(
        root.lines().any(|line| line == "#![no_std]"),
        "src/lib.rs must say #![no_std] without a condition"
    );
    for entry in fs::read_dir(crate_dir.join("src")).expect("the sources") {
        let path = entry.expect("a source").path();
        let source = fs::read_to_string(&path).expect("a source");
        assert!(!source.contains("extern crate std"), "{} brings the standard library back", path.display());
    }
}

#[test]
fn no_dependency_brings_io() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(crate_dir.join("Cargo.toml")).expect("the manifest");
    let dependencies = section(&manifest, "[dependencies]");
    assert!(!dependencies.is_empty());
    let workspace = fs::read_to_string(crate_dir.join("../Cargo.toml")).expect("the workspace's manifest");
    let declared = section(&workspace, "[workspace.dependencies]");
    for dependency in dependencies {
        let name =
            dependency.strip_suffix(".workspace = true").expect("a dependency without features of its own");
        let line = declared.iter().find(|line| line.starts_with(&format!("{name} = ")));
        let line = line.expect("a dependency of the workspace");
        assert!(line.contains("default-features = false"), "{line}");
        assert!(!line.contains("\"std\""), "{line}");
    }
}

/// The lines of a manifest's section that are neither blank nor comments.
fn section<'a>(manifest: &'a str, header: &str) -> Vec<&'a str> {
    let lines = manifest.lines().skip_while(|line| *line != header).skip(1);
    lines
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}
