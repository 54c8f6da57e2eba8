//! How the parts of events are written that serde does not know.

use bytes::Bytes;

use super::{DISPUTED_LENGTH, Unseen};

/// The name of a cause, for labels and recordings.
pub fn cause_name(cause: Unseen) -> &'static str {
    match cause {
        Unseen::None => "none",
        Unseen::Long => "long",
        Unseen::Fault => "fault",
        Unseen::Path => "path",
        Unseen::Compat => "compat",
        Unseen::Vector => "vector",
        Unseen::Content => "content",
        Unseen::Discarded => "discarded",
        Unseen::Pages => "pages",
        Unseen::Tls => "tls",
    }
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

pub(super) fn all_seen() -> Unseen {
    Unseen::None
}

pub(super) fn is_seen(cause: &Unseen) -> bool {
    *cause == Unseen::None
}

/// Bytes as text: each the character with its number, so that what is text can be read, and nothing is lost.
pub(super) mod text {
    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::Serializer;

    use super::Bytes;

    pub(in crate::event) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&bytes.iter().copied().map(char::from).collect::<String>())
    }

    pub(in crate::event) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = text.chars().map(u8::try_from).collect::<Result<Vec<u8>, _>>();
        bytes.map(Bytes::from).map_err(|_| D::Error::custom("a character that stands for no byte"))
    }
}

pub(super) mod cause {
    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::Serializer;

    use super::{Unseen, cause_name};

    pub(in crate::event) fn serialize<S: Serializer>(cause: &Unseen, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(cause_name(*cause))
    }

    pub(in crate::event) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Unseen, D::Error> {
        let name = String::deserialize(deserializer)?;
        let cause = Unseen::ALL.into_iter().find(|cause| cause_name(*cause) == name);
        cause.ok_or_else(|| D::Error::custom(format!("the unknown cause `{name}`")))
    }
}

/// The same, of bytes that can be nothing but line ends, NULs, dots and `x`.
pub(super) mod disputed {
    use serde::de::{Deserializer, Error as _};
    use serde::ser::Serializer;

    use super::{Bytes, DISPUTED_LENGTH, text};

    pub(in crate::event) fn serialize<S: Serializer>(
        bytes: &[u8; DISPUTED_LENGTH],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        text::serialize(&Bytes::copy_from_slice(&bytes.map(only_form)), serializer)
    }

    pub(in crate::event) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[u8; DISPUTED_LENGTH], D::Error> {
        let bytes = text::deserialize(deserializer)?;
        let bytes = <[u8; DISPUTED_LENGTH]>::try_from(&bytes[..]);
        bytes.map_err(|_| D::Error::custom("a disputed end of another length"))
    }

    fn only_form(byte: u8) -> u8 {
        if matches!(byte, b'\r' | b'\n' | 0 | b'.') { byte } else { b'x' }
    }
}
