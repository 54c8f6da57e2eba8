//! What a call's bytes were: the segments that follow a record of a transfer.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};
use smtp_ebpf::event as record;
use smtp_ebpf::event::{CaptureMiss, SegmentKind};

use super::{MalformedRecord, Time, wire};

/// The segments of a transfer, as the bytes of its record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said<'a>(Cow<'a, [u8]>);

/// A part of one direction of a dialogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Segment<'a> {
    /// Commands or replies, as they were said; or the end of content; or what some servers take for it.
    #[serde(serialize_with = "wire::text::serialize_slice")]
    Text(&'a [u8]),
    /// A line, or a part of one, that stayed in the kernel.
    Withheld(Withheld),
    /// So many octets of a message.
    Content(u64),
    /// Bytes that could not be read, or of which it is not certain what they are.
    Uncaptured(Uncaptured),
    /// So many bytes of TLS.
    Ciphertext(u64),
    /// The next segment waited in the kernel: when its first byte was moved.
    Begun(Time),
}

/// A line, or a part of one, of which only its form is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Withheld {
    /// How many bytes it has, those of the line's end among them.
    pub length: u64,
    /// How the line ends, where it ends here.
    #[serde(default, skip_serializing_if = "wire::is_default")]
    pub end: LineEnd,
    /// A NUL is in it.
    #[serde(default, skip_serializing_if = "wire::is_default")]
    pub nul: bool,
    /// A CR is in it that does not end the line.
    #[serde(default, skip_serializing_if = "wire::is_default")]
    pub bare_cr: bool,
}

/// How a line ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineEnd {
    /// It goes on.
    #[default]
    None,
    /// With LF alone.
    Lf,
    /// With CR LF.
    Crlf,
    /// It goes on behind a CR, which is of its end if LF follows.
    Cr,
}

/// Bytes of which nothing is known but how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Uncaptured {
    /// Why.
    #[serde(with = "wire::cause")]
    pub cause: CaptureMiss,
    /// How many bytes.
    pub length: u64,
    /// Lines that end in them, where they were counted.
    #[serde(default, skip_serializing_if = "wire::is_default")]
    pub lines: u16,
}

impl LineEnd {
    /// Its bytes.
    pub fn bytes(self) -> &'static [u8] {
        match self {
            Self::None => b"",
            Self::Lf => b"\n",
            Self::Crlf => b"\r\n",
            Self::Cr => b"\r",
        }
    }

    fn flag(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Lf => record::WITHHELD_LF,
            Self::Crlf => record::WITHHELD_CRLF,
            Self::Cr => record::WITHHELD_CR,
        }
    }
}

impl Said<'static> {
    /// Bytes that crossed as they were said.
    pub fn text(bytes: &[u8]) -> Self {
        Self::of([Segment::Text(bytes)])
    }

    /// These segments. A length that has no room in a record is cut to the longest that has.
    pub fn of<'s>(segments: impl IntoIterator<Item = Segment<'s>>) -> Self {
        let mut bytes = Vec::new();
        segments.into_iter().for_each(|segment| segment.put(&mut bytes));
        Self(bytes.into())
    }
}

impl<'a> Said<'a> {
    /// The segments that these bytes of a record are.
    pub fn read(bytes: &'a [u8]) -> Result<Self, MalformedRecord> {
        let mut rest = bytes;
        while !rest.is_empty() {
            (_, rest) = Segment::take(rest)?;
        }
        Ok(Self(bytes.into()))
    }

    /// The same with room of its own.
    pub fn to_static(&self) -> Said<'static> {
        Said(self.0.to_vec().into())
    }

    /// The segments, in the order in which they were said.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            // All of them were read before.
            let (segment, behind) = Segment::take(rest).ok()?;
            rest = behind;
            Some(segment)
        })
    }

    /// Bytes of the dialogue that the segments stand for.
    pub fn length(&self) -> u64 {
        let lengths = self.segments().map(|segment| match segment {
            Segment::Text(text) => text.len() as u64,
            Segment::Withheld(Withheld { length, .. }) | Segment::Uncaptured(Uncaptured { length, .. }) => length,
            Segment::Content(length) | Segment::Ciphertext(length) => length,
            Segment::Begun(_) => 0,
        });
        lengths.sum()
    }

    /// No segment came with the transfer.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> Segment<'a> {
    /// The segment that these bytes begin with, and the bytes behind it.
    fn take(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), MalformedRecord> {
        let short = || MalformedRecord::Short(bytes.len());
        let (head, rest) = bytes.split_first_chunk::<{ size_of::<record::Segment>() }>().ok_or_else(short)?;
        let record::Segment { kind, flags, count, length } = record::Segment::from_bytes(*head);
        let length = u64::from(length);
        let kind = SegmentKind::from_number(kind).ok_or(MalformedRecord::Segment(kind))?;
        let text = match kind {
            SegmentKind::Text | SegmentKind::Begun => usize::from(count),
            _ => 0,
        };
        let (text, rest) = rest.split_at_checked(text).ok_or_else(short)?;
        let segment = match kind {
            SegmentKind::Text => Self::Text(text),
            SegmentKind::Withheld => Self::Withheld(Withheld::of(flags, length)),
            SegmentKind::Content => Self::Content(length),
            SegmentKind::Uncaptured => {
                let cause = CaptureMiss::from_number(flags.into()).ok_or(MalformedRecord::Cause(flags))?;
                Self::Uncaptured(Uncaptured { cause, length, lines: count })
            }
            SegmentKind::Ciphertext => Self::Ciphertext(length),
            SegmentKind::Begun => {
                let time = text.try_into().map_err(|_| short())?;
                Self::Begun(Time(u64::from_ne_bytes(time)))
            }
        };
        Ok((segment, rest))
    }

    fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => {
                for part in text.chunks(u16::MAX.into()) {
                    head(SegmentKind::Text, 0, part.len() as u16, part.len() as u64, out);
                    out.extend_from_slice(part);
                }
            }
            Self::Withheld(withheld) => head(SegmentKind::Withheld, withheld.flags(), 0, withheld.length, out),
            Self::Content(length) => head(SegmentKind::Content, 0, 0, length, out),
            Self::Uncaptured(Uncaptured { cause, length, lines }) => {
                head(SegmentKind::Uncaptured, cause as u8, lines, length, out);
            }
            Self::Ciphertext(length) => head(SegmentKind::Ciphertext, 0, 0, length, out),
            Self::Begun(time) => {
                let time = time.0.to_ne_bytes();
                head(SegmentKind::Begun, 0, time.len() as u16, 0, out);
                out.extend_from_slice(&time);
            }
        }
    }
}

fn head(kind: SegmentKind, flags: u8, count: u16, length: u64, out: &mut Vec<u8>) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    out.extend(record::Segment { kind: kind as u8, flags, count, length }.to_bytes());
}

impl Withheld {
    fn of(flags: u8, length: u64) -> Self {
        let has = |flag| flags & flag != 0;
        let end = [LineEnd::Crlf, LineEnd::Lf, LineEnd::Cr].into_iter().find(|end| has(end.flag())).unwrap_or_default();
        Self { length, end, nul: has(record::WITHHELD_NUL), bare_cr: has(record::WITHHELD_BARE_CR) }
    }

    fn flags(self) -> u8 {
        let nul = if self.nul { record::WITHHELD_NUL } else { 0 };
        let bare_cr = if self.bare_cr { record::WITHHELD_BARE_CR } else { 0 };
        self.end.flag() | nul | bare_cr
    }
}

impl Serialize for Said<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.segments())
    }
}

impl<'de> Deserialize<'de> for Said<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Said::of(Vec::<Owned>::deserialize(deserializer)?.iter().map(Owned::segment)))
    }
}

/// A [`Segment`] as it is read from a recording.
#[derive(serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Owned {
    Text(#[serde(deserialize_with = "wire::text::deserialize")] Vec<u8>),
    Withheld(Withheld),
    Content(u64),
    Uncaptured(Uncaptured),
    Ciphertext(u64),
    Begun(Time),
}

impl Owned {
    fn segment(&self) -> Segment<'_> {
        match self {
            Self::Text(text) => Segment::Text(text),
            Self::Withheld(withheld) => Segment::Withheld(*withheld),
            Self::Content(length) => Segment::Content(*length),
            Self::Uncaptured(uncaptured) => Segment::Uncaptured(*uncaptured),
            Self::Ciphertext(length) => Segment::Ciphertext(*length),
            Self::Begun(time) => Segment::Begun(*time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Segment<'static>> {
        let withheld = |end, nul, bare_cr| Segment::Withheld(Withheld { length: 70_000, end, nul, bare_cr });
        vec![
            Segment::Begun(Time(u64::MAX)),
            Segment::Text(b"MAIL FROM:<>\r\n"),
            withheld(LineEnd::None, true, false),
            withheld(LineEnd::Lf, false, true),
            withheld(LineEnd::Crlf, false, false),
            withheld(LineEnd::Cr, false, false),
            Segment::Content(u32::MAX.into()),
            Segment::Uncaptured(Uncaptured { cause: CaptureMiss::Uncertain, length: 3, lines: 2 }),
            Segment::Ciphertext(5),
        ]
    }

    #[test]
    fn segments_read_back() {
        let said = Said::of(all());
        assert_eq!(said.segments().collect::<Vec<_>>(), all());
        assert_eq!(Said::read(&said.0), Ok(said.clone()));
        let json = serde_json::to_string(&said).expect("JSON");
        assert_eq!(serde_json::from_str::<Said>(&json).expect("segments"), said);
        assert!(json.contains(r#"{"withheld":{"length":70000,"end":"crlf"}}"#), "{json}");
    }

    #[test]
    fn a_long_text_is_several_segments() {
        let text = vec![b'a'; 100_000];
        let said = Said::text(&text);
        let lengths = said.segments().map(|segment| match segment {
            Segment::Text(text) => text.len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(lengths.collect::<Vec<_>>(), [65_535, 34_465]);
    }

    #[test]
    fn what_is_no_segment_is_refused() {
        let said = Said::of(all());
        for length in 0..said.0.len() {
            // What stops between two segments is whole.
            let read = Said::read(&said.0[..length]);
            assert!(read.is_ok() || matches!(read, Err(MalformedRecord::Short(_))), "{read:?}");
        }
        let read = |bytes: &'static [u8]| Said::read(bytes);
        assert_eq!(read(&[99, 0, 0, 0, 0, 0, 0, 0]), Err(MalformedRecord::Segment(99)));
        assert_eq!(read(&[SegmentKind::Uncaptured as u8, 99, 0, 0, 0, 0, 0, 0]), Err(MalformedRecord::Cause(99)));
        assert_eq!(read(&[SegmentKind::Begun as u8, 0, 0, 0, 0, 0, 0, 0]), Err(MalformedRecord::Short(8)));
    }
}
