//! How things look in sentences: paths without control characters, sizes, durations.

use relay_proto::text::clean;
use relay_trust::key::PublicKey;
use relay_trust::known::Standing;
use std::path::Path;
use std::time::Duration;

/// The longest path in a message, in bytes.
const MAX_SHOWN: usize = 4096;

/// A path without characters that could change a terminal.
pub(crate) fn path(path: &Path) -> String {
    clean(&path.display().to_string(), MAX_SHOWN)
}

/// Bytes in binary units.
pub(crate) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// Milliseconds with a precision that suits them.
pub(crate) fn milliseconds(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1000.0;
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

/// Seconds with a precision that suits them.
pub(crate) fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 10.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

/// Bytes a second.
pub(crate) fn rate(bytes: u64, duration: Duration) -> String {
    let rate = bytes as f64 / duration.as_secs_f64().max(1e-6);
    format!("{}/s", self::bytes(rate as u64))
}

/// To whom it is encrypted, and why that key is believed.
pub fn encrypted(key: &PublicKey, standing: Standing) -> String {
    let why = match standing {
        Standing::Pinned => "pinned".to_owned(),
        Standing::Known { since } => format!("known since {since}"),
        Standing::Follows { old, since } => format!("which follows {old} since {since}"),
        Standing::FirstContact => "first contact, remembered".to_owned(),
    };
    format!("encrypted to {key}, {why}")
}
