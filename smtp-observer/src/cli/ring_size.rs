//! The size of the ring buffer.

use std::str::FromStr;

/// A thousand of the longest records between two batches, which are a fiftieth of a second apart. The ring is mapped
/// twice, so twice as much counts as the agent's memory.
const DEFAULT: u32 = 4 << 20;

/// A size that the kernel takes for a ring buffer (`ringbuf_map_alloc`): a power of two, in whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSize(u32);

impl RingSize {
    /// In bytes.
    pub fn bytes(self) -> u32 {
        self.0
    }
}

impl Default for RingSize {
    fn default() -> Self {
        Self(DEFAULT)
    }
}

/// A size that is none for a ring buffer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingSizeError {
    /// Not written like a size.
    #[error("`{0}` is not a size: write it like `512KiB` or `16MiB`")]
    NotASize(String),
    /// The kernel would not take it.
    #[error("a ring buffer of {0} cannot be: its size is a power of two, at least {1} bytes and at most 1GiB")]
    Impossible(String, u64),
}

impl FromStr for RingSize {
    type Err = RingSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || RingSizeError::NotASize(text.to_owned());
        let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit: u64 = match unit {
            "" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let page = procfs::page_size();
        // A power of two that is not below a page is whole pages.
        match number.checked_mul(unit) {
            Some(bytes) if bytes.is_power_of_two() && (page..=1 << 30).contains(&bytes) => Ok(Self(bytes as u32)),
            _ => Err(RingSizeError::Impossible(text.to_owned(), page)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let bytes = |text: &str| text.parse::<RingSize>().map(RingSize::bytes);
        assert_eq!(bytes("65536"), Ok(65_536));
        assert_eq!(bytes("512KiB"), Ok(524_288));
        assert_eq!(bytes("4MiB"), Ok(RingSize::default().bytes()));
        assert_eq!(bytes("1GiB"), Ok(1 << 30));
        for text in ["", "MiB", "4MB", "4 MiB", "-4MiB", "four"] {
            assert_eq!(bytes(text), Err(RingSizeError::NotASize(text.to_owned())));
        }
        for text in ["0", "3MiB", "1024", "2GiB", "17179869184GiB"] {
            assert!(matches!(bytes(text), Err(RingSizeError::Impossible(..))), "{text}");
        }
    }
}
