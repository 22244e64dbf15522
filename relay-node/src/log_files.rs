//! A log's files: a new one each day (UTC), of a size when there is a limit for that, and old ones are deleted when the operator
//! said how much is kept.
//!
//! Nothing is deleted but files whose names this module makes.

use crate::http::date;
use bytesize::ByteSize;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// The logs of a node, by the first part of their files' names. Their sizes count together.
const LOGS: [&str; 2] = [NODE_LOG, ACCESS_LOG];
/// The node's own lines and those of the relay face: `relay-node.DATE.log`.
pub const NODE_LOG: &str = "relay-node";
/// The HTTP face's lines: `access.DATE.log`.
pub const ACCESS_LOG: &str = "access";

/// A file is ended at this part of the size that is kept, and the next one begun.
const PARTS: u64 = 8;
/// The smallest size that may be kept: of less, the parts would be files of a few lines.
const LEAST_SIZE: u64 = 64 * 1024;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How much of its logs a node keeps; what is not said has no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// Files of days that ended longer ago are deleted.
    pub age: Option<Duration>,
    /// All files together, in bytes.
    pub size: Option<u64>,
}

/// One value of `--log-keep`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepLimit {
    /// An age: days, or a time like `12w`.
    Age(Duration),
    /// A size in bytes.
    Size(u64),
}

impl FromStr for KeepLimit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<KeepLimit, &'static str> {
        let text = text.trim();
        if text.ends_with(['B', 'b']) {
            let size = text.parse::<ByteSize>().map_err(|_| HOW)?.as_u64();
            return if size < LEAST_SIZE {
                Err("a size to keep is at least 64KiB")
            } else {
                Ok(KeepLimit::Size(size))
            };
        }
        let days = text.parse::<u32>().map(|days| DAY * days);
        let age = days.or_else(|_| humantime::parse_duration(text)).map_err(|_| HOW)?;
        if age < DAY { Err("logs are kept for at least one day") } else { Ok(KeepLimit::Age(age)) }
    }
}

const HOW: &str = "write a number of days, a time like 12w, or a size like 1GiB";

impl Keep {
    /// Of several limits of one kind the last one.
    #[must_use]
    pub fn of(limits: &[KeepLimit]) -> Keep {
        limits.iter().fold(Keep::default(), |keep, limit| match limit {
            KeepLimit::Age(age) => Keep { age: Some(*age), ..keep },
            KeepLimit::Size(size) => Keep { size: Some(*size), ..keep },
        })
    }
}

/// Writes one log into its files.
#[derive(Debug)]
pub struct LogFiles {
    directory: PathBuf,
    log: &'static str,
    keep: Keep,
    now: fn() -> SystemTime,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    file: File,
    day: String,
    written: u64,
}

impl LogFiles {
    /// The files of one of the logs, in a directory that is made if there is none.
    ///
    /// # Errors
    /// A directory that cannot be made or written.
    pub fn open(directory: &Path, log: &'static str, keep: Keep) -> io::Result<LogFiles> {
        Self::open_at(directory, log, keep, SystemTime::now)
    }

    fn open_at(
        directory: &Path,
        log: &'static str,
        keep: Keep,
        now: fn() -> SystemTime,
    ) -> io::Result<LogFiles> {
        fs::create_dir_all(directory)?;
        let mut files = LogFiles { directory: directory.to_owned(), log, keep, now, current: None };
        files.begin_where_due(0)?;
        Ok(files)
    }

    /// Goes to the next file when the day is another one, or `more` bytes would make this one too large.
    fn begin_where_due(&mut self, more: u64) -> io::Result<&mut Current> {
        let day = day_of((self.now)());
        let most = self.keep.size.map_or(u64::MAX, |size| size / PARTS);
        let fits = |current: &Current| {
            current.day == day && (current.written == 0 || current.written.saturating_add(more) <= most)
        };
        let current = match self.current.take().filter(fits) {
            Some(current) => current,
            None => {
                self.delete_old(&day);
                self.begin(day, more, most)?
            }
        };
        Ok(self.current.insert(current))
    }

    /// As many whole lines as a file may hold, and at least one.
    fn for_one_file<'a>(&self, lines: &'a [u8]) -> &'a [u8] {
        let most = self.keep.size.and_then(|size| usize::try_from(size / PARTS).ok()).unwrap_or(usize::MAX);
        let is_end = |byte: &u8| *byte == b'\n';
        let Some(first) = lines.get(..most) else { return lines };
        let end = first.iter().rposition(is_end).or_else(|| lines.iter().position(is_end));
        end.and_then(|end| lines.get(..=end)).unwrap_or(lines)
    }

    fn begin(&self, day: String, more: u64, most: u64) -> io::Result<Current> {
        let mut number = self
            .listed()
            .iter()
            .filter(|old| old.day == day && old.log == self.log)
            .map(|old| old.number)
            .max();
        loop {
            let name = file_name(self.log, &day, number.unwrap_or(1));
            let file = OpenOptions::new().create(true).append(true).open(self.directory.join(name))?;
            let written = file.metadata()?.len();
            if written == 0 || written.saturating_add(more) <= most {
                return Ok(Current { file, day, written });
            }
            number = Some(number.unwrap_or(1) + 1);
        }
    }

    /// Deletes what is older, or more, than what is kept. What cannot be deleted stays, and is tried again with the next file.
    fn delete_old(&self, today: &str) {
        let oldest = self.keep.age.map(|age| (self.now)().checked_sub(age).map_or_else(String::new, day_of));
        // As much is kept free as both logs may still write into the files that they are about to have.
        let mut left = self.keep.size.map(|size| size / PARTS * (PARTS - LOGS.len() as u64));
        let mut old = self.listed();
        old.sort_by(|a, b| (&b.day, b.number).cmp(&(&a.day, a.number)));
        for file in old {
            let is_too_old = oldest.as_ref().is_some_and(|oldest| file.day < *oldest);
            let is_newest = file.day == *today && !self.has_later(&file);
            let is_too_much = left.is_some_and(|left| file.size > left);
            if !is_newest && (is_too_old || is_too_much) {
                let _ = fs::remove_file(self.directory.join(file_name(file.log, &file.day, file.number)));
            }
            left = left.map(|left| if is_too_much { 0 } else { left - file.size });
        }
    }

    /// Whether a log has a later file of the same day: then nobody writes into this one.
    fn has_later(&self, file: &Old) -> bool {
        self.directory.join(file_name(file.log, &file.day, file.number + 1)).exists()
    }

    fn listed(&self) -> Vec<Old> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let files = entries.filter_map(|entry| {
            let (log, day, number) = read_name(entry.file_name().to_str()?)?;
            let meta = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some(Old { log, day, number, size: meta.len() })
        });
        files.collect()
    }
}

impl Write for LogFiles {
    /// Takes whole lines, as many of them as go into one file.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let lines = self.for_one_file(lines);
        let current = self.begin_where_due(lines.len() as u64)?;
        let written = current.file.write(lines)?;
        current.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is there.
#[derive(Debug, PartialEq, Eq)]
struct Old {
    log: &'static str,
    day: String,
    number: u32,
    size: u64,
}

fn day_of(time: SystemTime) -> String {
    let mut day = date::rfc_3339(time);
    day.truncate("2026-01-31".len());
    day
}

/// `access.2026-01-31.log`, and behind it `access.2026-01-31.2.log`.
fn file_name(log: &str, day: &str, number: u32) -> String {
    if number == 1 { format!("{log}.{day}.log") } else { format!("{log}.{day}.{number}.log") }
}

fn read_name(name: &str) -> Option<(&'static str, String, u32)> {
    let (log, rest) = LOGS.iter().find_map(|log| Some((*log, name.strip_prefix(log)?.strip_prefix('.')?)))?;
    let rest = rest.strip_suffix(".log")?;
    let (day, number) =
        rest.split_once('.').map_or((rest, Some(1)), |(day, number)| (day, number.parse().ok()));
    let is_day = day.len() == 10 && day.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let (log, day, number) = (log, day.to_owned(), number.filter(|_| is_day)?);
    // Only a name that this module would make.
    (file_name(log, &day, number) == name).then_some((log, day, number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        static NOW: Cell<SystemTime> = const { Cell::new(SystemTime::UNIX_EPOCH) };
    }

    fn at(day: u64) {
        NOW.set(SystemTime::UNIX_EPOCH + Duration::from_secs(day * 24 * 60 * 60 + 5));
    }

    fn names(directory: &Path) -> Vec<String> {
        relay_testkit::files::names_in(directory)
    }

    fn open(directory: &Path, log: &'static str, keep: &[&str]) -> LogFiles {
        let keep: Vec<KeepLimit> = keep.iter().map(|text| text.parse().unwrap()).collect();
        LogFiles::open_at(directory, log, Keep::of(&keep), || NOW.get()).unwrap()
    }

    #[test]
    fn days_that_are_over_are_deleted_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        for other in
            ["access.log", "access.1970-01-01.02.log", "access.1970-01-01.log.gz", "relay-node.x.log"]
        {
            fs::write(directory.path().join(other), "x").unwrap();
        }
        let before = names(directory.path());
        let mut files = None;
        for day in 0..9 {
            at(day);
            let files = files.get_or_insert_with(|| open(directory.path(), ACCESS_LOG, &["3"]));
            files.write_all(b"a line\n").unwrap();
        }
        let mut expected = before;
        expected.extend((6..=9).map(|day| format!("access.1970-01-0{day}.log")));
        expected.sort();
        assert_eq!(names(directory.path()), expected);
        // A node that starts again goes on with its file, and deletes what has become too old meanwhile.
        at(10);
        let mut files = open(directory.path(), ACCESS_LOG, &["3d"]);
        files.write_all(b"a line\n").unwrap();
        drop(files);
        let mut files = open(directory.path(), ACCESS_LOG, &[]);
        files.write_all(b"a line\n").unwrap();
        assert_eq!(
            fs::read_to_string(directory.path().join("access.1970-01-11.log")).unwrap(),
            "a line\na line\n"
        );
        assert!(!directory.path().join("access.1970-01-07.log").exists());
    }

    #[test]
    fn all_logs_together_stay_within_a_size() {
        let directory = tempfile::tempdir().unwrap();
        at(0);
        let size = 128 * 1024;
        let mut logs = LOGS.map(|log| open(directory.path(), log, &["128KiB", "30"]));
        let line = [&[b'x'; 999] as &[u8], b"\n"].concat();
        for number in 0..1000 {
            at(number / 300);
            for files in &mut logs {
                files.write_all(&line).unwrap();
            }
            let listed = logs[0].listed();
            assert!(listed.iter().map(|old| old.size).sum::<u64>() <= size, "{listed:?}");
            assert!(listed.len() > 2 || number < 30, "{listed:?}");
        }
        for log in LOGS {
            assert!(logs[0].listed().iter().any(|old| old.log == log && old.day == "1970-01-04"), "{log}");
        }
    }

    #[test]
    fn what_is_kept_is_a_time_or_a_size() {
        let check = |text: &str, expected: Option<KeepLimit>| {
            assert_eq!(text.parse::<KeepLimit>().ok(), expected, "{text}");
        };
        check("30", Some(KeepLimit::Age(DAY * 30)));
        check("30d", Some(KeepLimit::Age(DAY * 30)));
        check("2w", Some(KeepLimit::Age(DAY * 14)));
        check("1GiB", Some(KeepLimit::Size(1 << 30)));
        check("64KiB", Some(KeepLimit::Size(LEAST_SIZE)));
        for bad in ["", "0", "1h", "1KiB", "soon", "-1", "1GiBB"] {
            check(bad, None);
        }
    }
}
