//! What the arguments mean when they name a directory. Checked before anything is dialled.

use super::select::Selection;
use crate::cli::{Connections, FetchArguments};
use crate::failure::Failure;
use crate::plan::{base_name, network, silence};
use crate::retry::RetryLimits;
use crate::session::Network;
use crate::show;
use relay_proto::file::RequestedName;
use relay_proto::route::Route;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A checked download of a directory.
#[derive(Debug)]
pub struct TreePlan {
    /// The ways to the directory; one after the other is tried.
    pub ways: Vec<Way>,
    /// Where what is in the directory goes.
    pub target: PathBuf,
    /// What of it is wanted.
    pub include: Vec<String>,
    /// What of it is not wanted.
    pub exclude: Vec<String>,
    /// The longest wait without a byte.
    pub silence: Duration,
    /// The longest run.
    pub deadline: Option<Duration>,
    /// How often to try again.
    pub retry: RetryLimits,
    /// How many connections each route may have.
    pub connections: Connections,
    /// How connections are made, and to whom.
    pub network: Network,
    /// Whether local files are compared by their hashes.
    pub checksum: bool,
}

impl TreePlan {
    /// What a way is called in messages, which is nothing when it is the only one: from 1.
    #[must_use]
    pub fn label(&self, way: &Way) -> Option<usize> {
        let number = self.ways.iter().position(|one| one == way)?;
        (self.ways.len() > 1).then_some(number + 1)
    }
}

/// A way to the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Through which nodes.
    pub route: Route,
    /// What all wanted names begin with there: a directory with its slash, or nothing.
    pub prefix: String,
}

impl Way {
    fn of(route: Route) -> Way {
        Way { prefix: prefix_of(route.file().as_str()), route }
    }

    /// The directory's name, for messages.
    #[must_use]
    pub fn name(&self) -> String {
        let shown =
            RequestedName::try_from(self.prefix.as_str()).map(|name| name.to_string()).unwrap_or_default();
        if shown.is_empty() { "/".to_owned() } else { shown }
    }

    /// The name at the origin of what has this path beneath the directory.
    ///
    /// # Errors
    /// [`Failure::Usage`] for one that is too long for a request.
    pub fn name_of(&self, path: &str) -> Result<RequestedName, Failure> {
        RequestedName::try_from(format!("{}{path}", self.prefix)).map_err(|e| Failure::Usage(e.to_owned()))
    }
}

impl TreePlan {
    /// What the arguments mean for these routes.
    ///
    /// # Errors
    /// [`Failure::Usage`].
    pub fn of(routes: Vec<Route>, arguments: &FetchArguments) -> Result<TreePlan, Failure> {
        let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
        if arguments.output.expect.is_some() || routes.iter().any(|route| route.hash().is_some()) {
            return usage("a directory has no hash; --expect and a route's hash are for a single file");
        }
        if arguments.output.output.as_deref() == Some(Path::new("-")) {
            return usage("a directory cannot go to standard output; say with -o DIR/ where to save it");
        }
        let network = network(&arguments.network, &arguments.trust, &routes)?;
        let ways: Vec<Way> = routes.into_iter().map(Way::of).collect();
        let Some(first) = ways.first() else { return usage("no route") };
        // Patterns are read now, so that a wrong one is told before anything is dialled.
        let (include, exclude) = (arguments.tree.include.clone(), arguments.tree.exclude.clone());
        Selection::of(&include, &exclude)?;
        Ok(TreePlan {
            target: target(arguments.output.output.as_deref(), &first.prefix)?,
            include,
            exclude,
            silence: silence(arguments.time.timeout)?,
            deadline: arguments.time.deadline,
            retry: RetryLimits { retries: arguments.retry.retries, max_time: arguments.retry.retry_max_time },
            network,
            checksum: arguments.output.checksum,
            connections: arguments.connections,
            ways,
        })
    }
}

/// Whether a directory is meant.
#[must_use]
pub fn is_meant(routes: &[Route], arguments: &FetchArguments) -> bool {
    arguments.tree.recursive || routes.iter().any(|route| route.file().as_str().ends_with('/'))
}

/// `docs/` for `docs` and `docs/`, nothing for `/` and `.`, which stand for all that is offered.
fn prefix_of(name: &str) -> String {
    let name = name.strip_prefix("./").unwrap_or(name).trim_end_matches('/');
    if name.is_empty() || name == "." { String::new() } else { format!("{name}/") }
}

fn target(output: Option<&Path>, prefix: &str) -> Result<PathBuf, Failure> {
    let path = match output {
        Some(path) if path.as_os_str().is_empty() => {
            return Err(Failure::Usage("-o needs a path; the one given is empty".to_owned()));
        }
        Some(path) => path.to_owned(),
        None if prefix.is_empty() => {
            return Err(Failure::Usage(
                "all that the origin offers has no name; say with -o DIR/ where to save it".to_owned(),
            ));
        }
        None => PathBuf::from(base_name(prefix.trim_end_matches('/'))?),
    };
    match path.metadata() {
        Ok(meta) if !meta.is_dir() => Err(Failure::Usage(format!(
            "{} is no directory; say with -o DIR/ where to save {}",
            show::path(&path),
            if prefix.is_empty() { "/" } else { prefix }
        ))),
        _ => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn plan(arguments: &[&str]) -> Result<TreePlan, Failure> {
        let cli = Cli::try_parse_from([&["relay-client", "--via", "h:1", "--get"], arguments].concat());
        let arguments = cli.map_err(|e| Failure::Usage(e.to_string()))?.fetch;
        let route = crate::route_source::read(&arguments.route, arguments.route.get.as_deref())?;
        TreePlan::of(vec![route], &arguments)
    }

    #[test]
    fn names_and_targets() {
        for (name, prefix, target) in [
            ("docs/", "docs/", "docs"),
            ("docs", "docs/", "docs"),
            ("a/b//", "a/b/", "b"),
            ("./a b/", "a b/", "a b"),
        ] {
            let plan = plan(&[name, "-r"]).unwrap();
            assert_eq!(
                (plan.ways[0].prefix.as_str(), plan.target.as_path()),
                (prefix, Path::new(target)),
                "{name}"
            );
        }
        for all in ["/", ".", "./"] {
            let plan = plan(&[all, "-r", "-o", "x/"]).unwrap();
            assert_eq!((plan.ways[0].prefix.as_str(), plan.ways[0].name().as_str()), ("", "/"), "{all}");
        }
    }

    #[test]
    fn what_a_directory_cannot_have() {
        let place = tempfile::NamedTempFile::new().unwrap();
        let file = place.path().to_str().unwrap();
        let hash = format!("b3:{}", "0".repeat(64));
        for (arguments, part) in [
            (vec!["d/", "-o", "-"], "standard output"),
            (vec!["d/", "--expect", hash.as_str()], "no hash"),
            (vec!["/"], "-o DIR/"),
            (vec!["d/.."], "-o PATH"),
            (vec!["d/", "-o", file], "is no directory"),
            (vec!["d/", "--include", "[a"], "--include [a"),
        ] {
            let failure = plan(&arguments).unwrap_err();
            assert!(
                matches!(&failure, Failure::Usage(text) if text.contains(part)),
                "{arguments:?}: {failure}"
            );
        }
    }
}
