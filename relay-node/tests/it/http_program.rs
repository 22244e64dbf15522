//! What the real program's options for its web server do.

use super::raw_http::{ask, get, request};
use relay_testkit::node::Node;
use relay_testkit::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// All lines of the access log, once the node has ended.
fn access_lines(logs: &Path) -> Vec<String> {
    let files: Vec<_> = fs::read_dir(logs).unwrap().map(|file| file.unwrap().path()).collect();
    let is_access = |file: &&PathBuf| {
        let name = file.file_name().unwrap().to_str().unwrap();
        // A date stands in the middle, as in access.2026-01-31.log.
        name.len() == 21 && name.starts_with("access.") && name.ends_with(".log")
    };
    let access: Vec<_> = files.iter().filter(is_access).collect();
    assert!(!access.is_empty(), "{files:?}");
    access
        .iter()
        .flat_map(|file| fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[test]
fn options_of_the_web_server_and_its_daily_log() {
    for format in ["text", "json"] {
        let (root, logs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        fs::write(root.path().join("a"), "hello").unwrap();
        let log_dir = logs.path().to_str().unwrap();
        let node = Node::start_with(
            root.path(),
            &["--strict-http", "--no-listing", "--log-dir", log_dir, "--log-format", format],
        );
        assert_eq!(get(node.address(), "/a", &["User-Agent: one \"two\""]).text(), "hello");
        assert_eq!(get(node.address(), "/", &[]).status, 404, "no listing");
        assert_eq!(request(node.address(), "DELETE", "/a", &[]).status, 400, "strictly");
        assert_eq!(get(node.address(), "/a", &["If-Modified-Since: yesterday"]).status, 400, "strictly");
        // What is refused before it is a request has its line, too.
        assert_eq!(ask(node.address(), &["GET /a HTTP/1.1"]).status, 400);
        node.process().signal(Signal::Terminate);
        assert_eq!(node.into_process().finish().code, Some(0));
        let lines = access_lines(logs.path());
        assert_eq!(lines.len(), 5, "{lines:?}");
        // Each has a connection of its own, so they may be written in another order.
        let mut statuses: Vec<u64> = match format {
            "json" => lines
                .iter()
                .map(|line| {
                    let line: Value = serde_json::from_str(line).unwrap();
                    line["status"].as_u64().unwrap()
                })
                .collect(),
            _ => {
                let whole = "\"GET /a HTTP/1.1\" 200 5 \"-\" \"one \\\"two\\\"\"";
                assert!(lines.iter().any(|line| line.ends_with(whole)), "{lines:?}");
                lines
                    .iter()
                    .map(|line| line.split("HTTP/1.1\" ").nth(1).unwrap()[..3].parse().unwrap())
                    .collect()
            }
        };
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 400, 400, 400, 404]);
    }
}
