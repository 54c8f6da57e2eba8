//! Steps as few bytes, for a fuzzer: any bytes are steps, and a change of one byte is a small change.
//!
//! Each step is a byte that says what it is, another that is a number, and with what is said so many bytes.

use std::time::Duration;

use super::{Speaker, Step, Transcript};

/// Any client's or server's bytes may begin with these.
const KINDS: u8 = 8;

impl Transcript {
    /// The steps as bytes. A write of more than 255 bytes is several.
    pub fn packed(&self) -> Vec<u8> {
        let mut packed = Vec::new();
        for step in &self.steps {
            match step {
                Step::Says(speaker, bytes) => {
                    for piece in bytes.chunks(usize::from(u8::MAX)) {
                        packed.extend([*speaker as u8, piece.len() as u8]);
                        packed.extend(piece);
                    }
                }
                Step::Gap(speaker, length) => packed.extend([4 + *speaker as u8, (*length).min(255) as u8]),
                Step::Wait(time) => packed.extend([6, (time.as_millis() / 100).min(255) as u8]),
                Step::ClientMoves => packed.extend([7, 0]),
            }
        }
        packed
    }

    /// The steps that any bytes are; nothing is expected of them.
    pub fn unpacked(mut bytes: &[u8]) -> Self {
        let mut steps = Vec::new();
        while let [kind, number, rest @ ..] = bytes {
            bytes = rest;
            let speaker = if kind % 2 == 0 { Speaker::Client } else { Speaker::Server };
            steps.push(match kind % KINDS {
                0..=3 => {
                    let (said, rest) = bytes.split_at(bytes.len().min(usize::from(*number)));
                    bytes = rest;
                    Step::Says(speaker, said.to_vec())
                }
                4 | 5 => Step::Gap(speaker, (*number).into()),
                6 => Step::Wait(Duration::from_millis(100 * u64::from(*number))),
                _ => Step::ClientMoves,
            });
        }
        Self { name: "unpacked".into(), not_live: None, midstream: false, steps, expected: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let steps = vec![
            Step::Says(Speaker::Server, b"220 mx\r\n".to_vec()),
            Step::Says(Speaker::Client, b"NOOP\r\n".to_vec()),
            Step::Gap(Speaker::Server, 7),
            Step::Wait(Duration::from_millis(2500)),
            Step::ClientMoves,
        ];
        let transcript = Transcript { steps: steps.clone(), ..Transcript::unpacked(&[]) };
        assert_eq!(Transcript::unpacked(&transcript.packed()).steps, steps);
    }
}
