//! How the parts of events are written that serde does not know.

use super::CaptureMiss;

/// The name of a cause, for labels and recordings.
pub fn cause_name(cause: CaptureMiss) -> &'static str {
    match cause {
        CaptureMiss::None => "none",
        CaptureMiss::Long => "long",
        CaptureMiss::Fault => "fault",
        CaptureMiss::Path => "path",
        CaptureMiss::Compat => "compat",
        CaptureMiss::Vector => "vector",
        CaptureMiss::Content => "content",
        CaptureMiss::Discarded => "discarded",
        CaptureMiss::Pages => "pages",
        CaptureMiss::Tls => "tls",
        CaptureMiss::Uncertain => "uncertain",
    }
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Bytes as text: each the character with its number, so that what is text can be read, and nothing is lost.
pub(super) mod text {
    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::Serializer;

    pub(in crate::event) fn serialize_slice<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&bytes.iter().copied().map(char::from).collect::<String>())
    }

    pub(in crate::event) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = text.chars().map(u8::try_from).collect::<Result<_, _>>();
        bytes.map_err(|_| D::Error::custom("a character that stands for no byte"))
    }
}

pub(super) mod cause {
    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::Serializer;

    use super::{CaptureMiss, cause_name};

    pub(in crate::event) fn serialize<S: Serializer>(cause: &CaptureMiss, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(cause_name(*cause))
    }

    pub(in crate::event) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CaptureMiss, D::Error> {
        let name = String::deserialize(deserializer)?;
        let cause = CaptureMiss::ALL.into_iter().find(|cause| cause_name(*cause) == name);
        cause.ok_or_else(|| D::Error::custom(format!("the unknown cause `{name}`")))
    }
}
