//! The table of limits in `docs/reliability.md` names tests that exist.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_test_that_the_table_of_limits_names_exists() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = fs::read_to_string(workspace.join("docs/reliability.md")).expect("the document");
    let (_, section) = document.split_once("\n## Limits\n").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("a section behind it");
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    let mut sources = String::new();
    for room in fs::read_dir(&workspace).expect("the workspace").flatten().map(|room| room.path()) {
        ["src", "tests"].into_iter().for_each(|part| read_all(&room.join(part), &mut sources));
    }
    let mut named = 0;
    for row in rows {
        let columns: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(columns.len(), 4, "{row}");
        let tests: Vec<&str> = columns[3].split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty() || columns[3] == "none yet", "{row}");
        for test in tests {
            assert!(sources.contains(&format!("fn {test}(")), "there is no test {test}, named by: {row}");
            named += 1;
        }
    }
    assert!(named > 0, "no row was found");
}

fn read_all(place: &PathBuf, sources: &mut String) {
    for path in fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            read_all(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(&path).expect("a source"));
        }
    }
}
