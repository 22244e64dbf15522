//! What the arguments mean: which route, where the file goes, which limits hold. Checked before anything is dialled.

use crate::cli::{Connections, FetchArguments, NetworkArguments, TrustArguments};
use crate::contacts::{Contacts, Wish};
use crate::failure::Failure;
use crate::part_file::followed;
use crate::retry::RetryLimits;
use crate::session::Network;
use crate::show;
use relay_link::congestion::Congestion;
use relay_proto::digest::FileHash;
use relay_proto::file::RequestedName;
use relay_proto::limits::{MAX_SILENCE, MIN_SILENCE};
use relay_proto::route::Route;
use relay_proto::text::is_unsafe;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A checked download.
#[derive(Debug)]
pub struct Plan {
    /// Through which nodes: one route or several to the same file.
    pub routes: Vec<Route>,
    /// Which of them is asked first when nothing speaks against it, from 0.
    pub first: usize,
    /// To where.
    pub target: Target,
    /// The longest wait without a byte.
    pub silence: Duration,
    /// How connections are made, and to whom.
    pub network: Network,
    /// The longest run.
    pub deadline: Option<Duration>,
    /// How often to try again.
    pub retry: RetryLimits,
    /// How many connections each route may have.
    pub connections: Connections,
    /// What the file's hash must be.
    pub expected: Option<FileHash>,
    /// Whether a local copy is compared by its hashes.
    pub checksum: bool,
}

/// Where a file goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Under this name, when it is whole.
    File(PathBuf),
    /// To standard output, verified chunk by chunk.
    StandardOutput,
    /// Into something that is neither a file nor a directory, such as a pipe or a device, verified chunk by chunk.
    Special(PathBuf),
}

impl Target {
    /// Its path, when it has one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Target::File(path) | Target::Special(path) => Some(path),
            Target::StandardOutput => None,
        }
    }
}

impl Plan {
    /// What the arguments mean for these routes, of which there is at least one.
    ///
    /// # Errors
    /// [`Failure::Usage`].
    pub fn of(routes: Vec<Route>, arguments: &FetchArguments) -> Result<Plan, Failure> {
        let name = routes.first().map(|route| route.file().as_str()).unwrap_or_default();
        let target = target(arguments.output.output.as_deref(), name)?;
        if arguments.show.json && target == Target::StandardOutput {
            return Err(Failure::Usage(
                "--json and -o - both want standard output; save the file elsewhere".to_owned(),
            ));
        }
        // Routes that name different hashes were refused when they were read.
        let expected = expected(arguments.output.expect, routes.iter().find_map(Route::hash))?;
        Ok(Plan {
            first: 0,
            target,
            silence: silence(arguments.time.timeout)?,
            network: network(&arguments.network, &arguments.trust, &routes)?,
            deadline: arguments.time.deadline,
            retry: RetryLimits { retries: arguments.retry.retries, max_time: arguments.retry.retry_max_time },
            expected,
            checksum: arguments.output.checksum,
            connections: arguments.connections,
            routes,
        })
    }

    /// A plan with nothing special to it.
    #[cfg(test)]
    pub(crate) fn plain(routes: Vec<Route>, target: Target) -> Plan {
        Plan {
            routes,
            first: 0,
            target,
            silence: Duration::from_secs(1),
            network: Network::PLAIN,
            deadline: None,
            retry: RetryLimits::default(),
            connections: Connections::Auto,
            expected: None,
            checksum: false,
        }
    }

    /// Route number `number`, from 0; beyond the last one the last.
    #[must_use]
    pub fn route(&self, number: usize) -> &Route {
        // A plan has at least one route; reading none is an error.
        &self.routes[number.min(self.routes.len() - 1)]
    }

    /// What a route is called in messages, which is nothing when it is the only one: from 1.
    #[must_use]
    pub fn label(&self, number: usize) -> Option<usize> {
        (self.routes.len() > 1).then_some(number + 1)
    }

    /// The file's name on the first route.
    #[must_use]
    pub fn name(&self) -> &RequestedName {
        self.route(0).file()
    }

    /// Whether the chunks go into a stream, one after the other.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        !matches!(self.target, Target::File(_))
    }

    /// How many connections all routes have together from the beginning.
    #[must_use]
    pub fn connections_at_first(&self) -> usize {
        if self.is_stream() { 1 } else { self.routes.len() * self.connections.at_first() }
    }
}

/// A limit that an `open` can carry.
///
/// # Errors
/// [`Failure::Usage`] when it cannot.
pub fn silence(timeout: Duration) -> Result<Duration, Failure> {
    if (MIN_SILENCE..=MAX_SILENCE).contains(&timeout) {
        return Ok(timeout);
    }
    let (least, most) = (show::milliseconds(MIN_SILENCE), show::seconds(MAX_SILENCE));
    Err(Failure::Usage(format!("--timeout must lie between {least} and {most}")))
}

/// How the connections are made, and who may be at their ends.
///
/// # Errors
/// [`Failure::Usage`] for a congestion control that was named and cannot be had, and for wishes that contradict each other;
/// [`Failure::Local`] for known nodes that cannot be read.
pub fn network(
    network: &NetworkArguments,
    trust: &TrustArguments,
    routes: &[Route],
) -> Result<Network, Failure> {
    let congestion = Congestion::of(network.congestion)
        .map_err(|error| Failure::Usage(format!("--congestion: {error}")))?;
    let wish = Wish { plain: trust.plain, strict: trust.strict, pins: trust.pin.clone() };
    Ok(Network { congestion, contacts: Contacts::of(wish, routes)? })
}

fn expected(flag: Option<FileHash>, route: Option<FileHash>) -> Result<Option<FileHash>, Failure> {
    match (flag, route) {
        (Some(flag), Some(route)) if flag != route => Err(Failure::Usage(format!(
            "--expect says {flag}, but the route says {route}; one of them is wrong"
        ))),
        (flag, route) => Ok(flag.or(route)),
    }
}

fn target(output: Option<&Path>, name: &str) -> Result<Target, Failure> {
    let path = match output {
        Some(path) if path == Path::new("-") => return Ok(Target::StandardOutput),
        Some(path) if path.as_os_str().is_empty() => {
            return Err(Failure::Usage("-o needs a path; the one given is empty".to_owned()));
        }
        Some(path) if names_directory(path) => path.join(base_name(name)?),
        Some(path) => path.to_owned(),
        None => PathBuf::from(base_name(name)?),
    };
    match fs::metadata(&path) {
        Ok(meta) if meta.is_dir() => Err(Failure::Usage(format!(
            "{} is a directory; say with -o under which name to save",
            show::path(&path)
        ))),
        Ok(meta) if !meta.is_file() => Ok(Target::Special(path)),
        _ => Ok(Target::File(followed(path).map_err(Failure::Usage)?)),
    }
}

fn names_directory(path: &Path) -> bool {
    let ends_in_separator =
        path.as_os_str().as_encoded_bytes().last().is_some_and(|b| std::path::is_separator(char::from(*b)));
    ends_in_separator || path.is_dir()
}

/// The last part of a name at the origin, when it can safely be a file's name here.
///
/// # Errors
/// [`Failure::Usage`], which tells to say with `-o` where to save.
pub fn base_name(name: &str) -> Result<&str, Failure> {
    let base = name.rsplit('/').next().unwrap_or_default();
    let wrong = if base.is_empty() {
        "it ends in /"
    } else if base == "." || base == ".." {
        "it names a directory"
    } else if base.chars().any(|c| c == '\\' || is_unsafe(c)) {
        "it has a backslash or a control character"
    } else if cfg!(windows) && !is_windows_name(base) {
        "Windows keeps such names for itself"
    } else {
        return Ok(base);
    };
    let shown = relay_proto::text::clean(name, relay_proto::limits::MAX_NAME);
    Err(Failure::Usage(format!(
        "\"{shown}\" gives no name to save under ({wrong}); say with -o PATH where to save"
    )))
}

/// Whether Windows takes this as the name of a plain file: no device, no stream, no character of its own. (Microsoft, "Naming
/// Files, Paths, and Namespaces".)
pub(crate) fn is_windows_name(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    // The superscript digits count as digits there.
    let is_number = |c: char| matches!(c, '1'..='9' | '¹' | '²' | '³');
    let numbered = |device: &str| {
        let mut rest = stem.strip_prefix(device).into_iter().flat_map(str::chars);
        rest.next().is_some_and(is_number) && rest.next().is_none()
    };
    let device = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$");
    let characters = name.chars().any(|c| matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*'));
    !device && !numbered("COM") && !numbered("LPT") && !characters && !name.ends_with(['.', ' '])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_names() {
        for (name, base) in
            [("a", "a"), ("d/e/f.txt", "f.txt"), ("my file", "my file"), ("..a", "..a"), ("/etc/x", "x")]
        {
            assert_eq!(base_name(name).unwrap(), base);
        }
        for bad in ["", "/", "d/", ".", "..", "a/..", "a\\b", "a\0b", "a\x1b[1m", "a\u{202e}b", "d/\n"] {
            let failure = base_name(bad).unwrap_err().to_string();
            assert!(failure.contains("-o PATH") && !failure.chars().any(is_unsafe), "{bad:?}: {failure}");
        }
    }

    #[test]
    fn windows_names() {
        for good in ["a.txt", "console", "COM0", "nul1", "lpt10"] {
            assert!(is_windows_name(good), "{good}");
        }
        for bad in ["CON", "nul.txt", "com1", "LPT9.x", "com¹", "CONIN$", "a:b", "a?", "a.", "a "] {
            assert!(!is_windows_name(bad), "{bad}");
        }
    }

    #[test]
    fn targets() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let file = |output: &Path| target(Some(output), "d/name").unwrap();
        assert_eq!(target(None, "d/name").unwrap(), Target::File("name".into()));
        assert_eq!(file(Path::new("-")), Target::StandardOutput);
        assert_eq!(file(here), Target::File(here.join("name")));
        assert_eq!(file(&here.join("new/")), Target::File(here.join("new/name")));
        assert_eq!(file(&here.join("other")), Target::File(here.join("other")));
        fs::create_dir(here.join("name")).unwrap();
        assert!(target(Some(here), "d/name").is_err());
        assert!(target(Some(Path::new("")), "name").is_err());
        assert!(target(Some(here), "..").is_err());
        #[cfg(unix)]
        {
            use std::os::unix::fs::symlink;
            fs::write(here.join("real"), "").unwrap();
            for (to, link) in [
                ("real", "link"),
                ("link", "link to a link"),
                ("other/new", "dangling"),
                ("circle", "circle"),
            ] {
                symlink(to, here.join(link)).unwrap();
            }
            assert_eq!(file(&here.join("link to a link")), Target::File(here.join("real")));
            assert_eq!(file(&here.join("dangling")), Target::File(here.join("other/new")));
            assert!(target(Some(&here.join("circle")), "d/name").is_err());
        }
        #[cfg(unix)]
        assert_eq!(file(Path::new("/dev/null")), Target::Special("/dev/null".into()));
    }
}
