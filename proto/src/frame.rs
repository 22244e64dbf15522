//! Bytes and frames: a preface of nine bytes, then a JSON payload.
//!
//! ```text
//!  0     1   2   3    4        5     6        7        8        9 …
//! +----+---+---+---+---------+------+--------+--------+--------+---------
//! | F5 | R | L | Y | version | type | length, 7 bits a byte     | JSON
//! +----+---+---+---+---------+------+--------+--------+--------+---------
//! ```
//!
//! The first byte is never the first of a text (it cannot stand in UTF-8), of HTTP or of TLS. The length's bytes have
//! their top bit set, types are letters and a payload has no byte below 0x20: so no byte of a frame is CR or LF, and a server of
//! a protocol made of lines that is dialled by mistake never sees a whole line.

use crate::limits::{MAX_PAYLOAD, PREFACE_LEN};
use crate::stranger::Stranger;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The first four bytes of every frame.
pub const MAGIC: [u8; 4] = [0xf5, b'R', b'L', b'Y'];
/// The protocol's version. The numbers 10 and 13 are never given, for they are line ends.
pub const VERSION: u8 = 1;

macro_rules! frame_types {
    ($($(#[$doc:meta])* $name:ident = $byte:literal, $text:literal;)*) => {
        /// What a frame's payload is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FrameType { $($(#[$doc])* $name,)* }

        impl FrameType {
            /// Every type, for tables and tests.
            pub const ALL: &'static [FrameType] = &[$(FrameType::$name,)*];

            /// The byte on the wire.
            #[must_use]
            pub fn byte(self) -> u8 {
                match self { $(FrameType::$name => $byte,)* }
            }

            /// The message's name, as in the specification.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(FrameType::$name => $text,)* }
            }

            fn from_byte(byte: u8) -> Option<FrameType> {
                match byte { $($byte => Some(FrameType::$name),)* _ => None }
            }
        }
    };
}

frame_types! {
    /// [`crate::hop::Open`]
    Open = b'O', "open";
    /// [`crate::hop::Hello`]
    Hello = b'H', "hello";
    /// [`crate::hop::Failed`]
    Failed = b'F', "failed";
    /// [`crate::file::Get`]
    Get = b'G', "get";
    /// [`crate::file::Stat`]
    Stat = b'S', "stat";
    /// [`crate::file::Hashes`]
    Hashes = b'C', "hashes";
    /// [`crate::file::List`]
    List = b'L', "list";
    /// [`crate::file::Head`]
    Head = b'A', "head";
    /// [`crate::file::Page`]
    Page = b'P', "page";
}

/// A message that can be a frame's payload.
pub trait Message: Serialize + DeserializeOwned {
    /// The type byte it travels under.
    const TYPE: FrameType;
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first bytes are not those of this protocol.
    #[error("these are not the first bytes of the relay protocol{0}")]
    NotRelay(Stranger),
    /// A version that this program does not speak.
    #[error("version {0} of the relay protocol; this program speaks version {VERSION}")]
    Version(u8),
    /// A type byte that this version does not have.
    #[error("unknown frame type 0x{0:02x}")]
    Type(u8),
    /// A length byte without its top bit.
    #[error("a length byte lacks its top bit")]
    Length,
    /// A payload longer than [`MAX_PAYLOAD`].
    #[error("a payload of {0} bytes; at most {MAX_PAYLOAD} are allowed")]
    TooLong(usize),
    /// A frame of another type than the one that must come here.
    #[error("a {got} frame where {expected} must come", got = .got.name())]
    Unexpected {
        /// What may come here.
        expected: &'static str,
        /// What came.
        got: FrameType,
    },
    /// A payload with a control character.
    #[error("a control character in the payload of {}", .0.name())]
    Control(FrameType),
    /// A payload that is not the JSON of its type.
    #[error("the payload of {} cannot be read: {reason}", .frame_type.name())]
    Payload {
        /// The frame's type.
        frame_type: FrameType,
        /// What the JSON reader says, with the column.
        reason: String,
    },
}

/// A decoded preface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preface {
    /// The type of the payload that follows.
    pub frame_type: FrameType,
    /// The payload's length in bytes, at most [`MAX_PAYLOAD`].
    pub payload_len: usize,
}

impl Preface {
    /// Reads a whole preface.
    ///
    /// # Errors
    /// The first thing that is wrong, from the left.
    pub fn decode(bytes: &[u8; PREFACE_LEN]) -> Result<Preface, FrameError> {
        Preface::check_start(bytes)?;
        let [_, _, _, _, _, type_byte, length @ ..] = *bytes;
        let frame_type = FrameType::from_byte(type_byte).ok_or(FrameError::Type(type_byte))?;
        let mut payload_len = 0;
        for byte in length {
            if byte & 0x80 == 0 {
                return Err(FrameError::Length);
            }
            payload_len = payload_len << 7 | usize::from(byte & 0x7f);
        }
        if payload_len > MAX_PAYLOAD {
            return Err(FrameError::TooLong(payload_len));
        }
        Ok(Preface { frame_type, payload_len })
    }

    /// Checks the first bytes of a preface, however few they are, so that a reader need not wait for nine bytes from
    /// somebody who speaks another protocol.
    ///
    /// # Errors
    /// [`FrameError::NotRelay`], [`FrameError::Version`] or [`FrameError::Type`].
    pub fn check_start(bytes: &[u8]) -> Result<(), FrameError> {
        if bytes.iter().zip(&MAGIC).any(|(got, want)| got != want) {
            return Err(FrameError::NotRelay(Stranger::of(bytes)));
        }
        match bytes.get(4) {
            Some(&version) if version != VERSION => return Err(FrameError::Version(version)),
            _ => {}
        }
        match bytes.get(5) {
            Some(&byte) if FrameType::from_byte(byte).is_none() => Err(FrameError::Type(byte)),
            _ => Ok(()),
        }
    }

    /// The nine bytes.
    #[must_use]
    pub fn encode(self) -> [u8; PREFACE_LEN] {
        let [f5, r, l, y] = MAGIC;
        let seven_bits = |shift: usize| 0x80 | (self.payload_len >> shift & 0x7f) as u8;
        [f5, r, l, y, VERSION, self.frame_type.byte(), seven_bits(14), seven_bits(7), seven_bits(0)]
    }
}

/// A message's frame, preface and payload.
///
/// # Errors
/// [`FrameError::TooLong`] when the payload exceeds [`MAX_PAYLOAD`]; [`FrameError::Payload`] when it cannot be written.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, FrameError> {
    let payload = serde_json::to_vec(message)
        .map_err(|e| FrameError::Payload { frame_type: M::TYPE, reason: e.to_string() })?;
    if payload.len() > MAX_PAYLOAD {
        return Err(FrameError::TooLong(payload.len()));
    }
    let mut frame = Vec::with_capacity(PREFACE_LEN + payload.len());
    frame.extend_from_slice(&Preface { frame_type: M::TYPE, payload_len: payload.len() }.encode());
    frame.extend_from_slice(&payload);
    Ok(frame)
}

/// The message of a payload that came under `frame_type`.
///
/// # Errors
/// [`FrameError::Unexpected`] for another type, [`FrameError::Control`] and [`FrameError::Payload`] for bad content.
pub fn decode<M: Message>(frame_type: FrameType, payload: &[u8]) -> Result<M, FrameError> {
    if frame_type != M::TYPE {
        return Err(FrameError::Unexpected { expected: M::TYPE.name(), got: frame_type });
    }
    if payload.iter().any(|byte| *byte < 0x20) {
        return Err(FrameError::Control(frame_type));
    }
    let fail = |reason| FrameError::Payload { frame_type, reason };
    // The derived readers would also take an array of the fields in their order, which is no message.
    if !payload.trim_ascii_start().starts_with(b"{") {
        return Err(fail(String::from("it is no JSON object")));
    }
    serde_json::from_slice(payload).map_err(|e| fail(e.to_string()))
}
