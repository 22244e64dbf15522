//! The way to a node: every hop, in a form that is the same however it was written.

use relay_proto::address::{Hop, HopError};
use relay_proto::limits::MAX_HOPS;
use relay_proto::route::Route;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Every hop to a node, its own last: `pchost1:12000>pchost2:11000`. Names are in lower case without a dot at the end,
/// addresses in their shortest form, so that a machine has one way through the same relays.
///
/// The relays are part of it, because `localhost:11000` behind two of them are two machines.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Way(String);

impl Way {
    /// The way along these hops; none when there is no hop.
    #[must_use]
    pub fn along(hops: &[Hop]) -> Option<Way> {
        let forms: Vec<String> = hops.iter().map(normal_form).collect();
        (!forms.is_empty()).then(|| Way(forms.join(">")))
    }

    /// The whole way of a route.
    #[must_use]
    pub fn to_origin(route: &Route) -> Way {
        let forms: Vec<String> = route.hops().iter().map(normal_form).collect();
        Way(forms.join(">"))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its last hop, the node that it leads to.
    #[must_use]
    pub fn end(&self) -> &str {
        self.0.rsplit('>').next().unwrap_or_default()
    }
}

fn normal_form(hop: &Hop) -> String {
    let host = match hop.host.ip() {
        Some(IpAddr::V6(address)) => match IpAddr::V6(address).to_canonical() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        },
        Some(IpAddr::V4(address)) => address.to_string(),
        None => {
            let name = hop.host.as_str().to_ascii_lowercase();
            // Dots alone are no name that anybody could know.
            Some(name.trim_end_matches('.')).filter(|bare| !bare.is_empty()).unwrap_or(&name).to_owned()
        }
    };
    format!("{host}:{}", hop.port)
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WayError {
    /// One of its hops.
    #[error("{text}: {error}")]
    Hop {
        /// The hop as it was written.
        text: String,
        /// What is wrong with it.
        error: HopError,
    },
    /// More hops than a route may have.
    #[error("a way has at most {MAX_HOPS} hops")]
    TooLong,
}

impl FromStr for Way {
    type Err = WayError;

    fn from_str(text: &str) -> Result<Way, WayError> {
        let parts: Vec<&str> = text.splitn(MAX_HOPS + 1, '>').collect();
        if parts.len() > MAX_HOPS {
            return Err(WayError::TooLong);
        }
        let read = |part: &&str| {
            part.parse::<Hop>()
                .map(|hop| normal_form(&hop))
                .map_err(|error| WayError::Hop { text: (*part).trim().to_owned(), error })
        };
        let forms: Vec<String> = parts.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Way(forms.join(">")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let way: Way = text.parse().unwrap();
        assert_eq!(way.as_str(), expected);
        assert_eq!(expected.parse::<Way>().unwrap(), way, "the normal form is its own");
        let hops: Vec<Hop> = text.split('>').map(|hop| hop.parse().unwrap()).collect();
        assert_eq!(Way::along(&hops), Some(way));
    }

    #[test]
    fn a_machine_has_one_way_however_it_is_written() {
        check("pchost1:12000>pchost2:11000", "pchost1:12000>pchost2:11000");
        check("PCHost1. 12000 > tcp://pchost2:11000/", "pchost1:12000>pchost2:11000");
        check("[0:0::1]:12000", "[::1]:12000");
        check("[::ffff:192.0.2.7]:1", "192.0.2.7:1");
        check("127.0.0.1:65535", "127.0.0.1:65535");
        check("a..:1", "a:1");
        check("..:1", "..:1");
    }

    #[test]
    fn what_is_no_way() {
        assert_eq!(Way::along(&[]), None);
        for bad in ["", ">", "a:1>", ">a:1", "a", "a:1>>b:2", "a:1,b:2", "http://a:1"] {
            assert!(bad.parse::<Way>().is_err(), "{bad}");
        }
        assert!(vec!["a:1"; MAX_HOPS].join(">").parse::<Way>().is_ok());
        assert_eq!(vec!["a:1"; MAX_HOPS + 1].join(">").parse::<Way>(), Err(WayError::TooLong));
        assert_eq!(
            "a:1>b:0".parse::<Way>().unwrap_err().to_string(),
            "b:0: this is no port: a port is a number from 1 to 65535"
        );
    }

    #[test]
    fn its_end() {
        assert_eq!("a:1>B:2".parse::<Way>().unwrap().end(), "b:2");
        assert_eq!("a:1".parse::<Way>().unwrap().end(), "a:1");
    }
}
