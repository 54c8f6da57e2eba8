//! How the parts of events are written that serde does not know.

use bytes::Bytes;

use super::Unseen;

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
        Unseen::Uncertain => "uncertain",
    }
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Bytes as text: each the character with its number, so that what is text can be read, and nothing is lost.
pub(super) mod text {
    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::Serializer;

    use super::Bytes;

    pub(in crate::event) fn serialize_slice<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
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
