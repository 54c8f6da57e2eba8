//! Any bytes as choices: what a fuzzer changes, and what a property test draws, makes the same cases.

/// Choices that are still to be made; behind the last byte each is the first of its kind.
pub(crate) struct Choices<'a>(pub(crate) &'a [u8]);

impl Choices<'_> {
    /// Whether there is a byte for another choice.
    pub(crate) fn has_more(&self) -> bool {
        !self.0.is_empty()
    }

    /// A number below this one.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(byte) % end
    }

    /// One of these.
    pub(crate) fn of<T: Copy>(&mut self, options: &[T]) -> T {
        options[self.below(options.len())]
    }

    /// True for so many of ten bytes.
    pub(crate) fn tenths(&mut self, count: usize) -> bool {
        self.below(10) < count
    }
}
