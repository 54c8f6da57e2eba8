//! A short list that allocates nothing.

use std::fmt;

/// At most `MAX` items, in the order in which they were added.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ShortList<T, const MAX: usize>([Option<T>; MAX]);

impl<T: Copy, const MAX: usize> ShortList<T, MAX> {
    /// Adds an item at the end. An item that the list has no room for is left out: the number of items that can be added is known
    /// where the list's type is written, and `MAX` is chosen after it.
    pub fn push(&mut self, item: T) {
        let free = self.0.iter_mut().find(|place| place.is_none());
        debug_assert!(free.is_some(), "a list of more than {MAX} items");
        if let Some(free) = free {
            *free = Some(item);
        }
    }

    /// The items.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        self.0.iter().map_while(|item| *item)
    }

    /// The item of a list that has only one.
    pub fn only(&self) -> Option<T> {
        match &self.0[..] {
            [Some(item)] | [Some(item), None, ..] => Some(*item),
            _ => None,
        }
    }
}

impl<T: Copy, const MAX: usize> Default for ShortList<T, MAX> {
    fn default() -> Self {
        Self([None; MAX])
    }
}

impl<T: Copy, const MAX: usize> Extend<T> for ShortList<T, MAX> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        items.into_iter().for_each(|item| self.push(item));
    }
}

impl<T: Copy, const MAX: usize, const LENGTH: usize> From<[T; LENGTH]> for ShortList<T, MAX> {
    fn from(items: [T; LENGTH]) -> Self {
        const { assert!(LENGTH <= MAX, "more items than the list has room for") };
        let mut list = Self::default();
        list.extend(items);
        list
    }
}

impl<T: Copy + fmt::Debug, const MAX: usize> fmt::Debug for ShortList<T, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_order() {
        let mut list = ShortList::<u8, 3>::default();
        assert_eq!((list.iter().count(), list.only()), (0, None));
        list.push(7);
        assert_eq!(list.only(), Some(7));
        list.extend([5, 6]);
        assert_eq!((list.iter().collect::<Vec<_>>(), list.only()), (vec![7, 5, 6], None));
        assert_eq!(list, ShortList::from([7, 5, 6]));
        assert_ne!(list, ShortList::from([7, 5]));
        assert_eq!(format!("{list:?}"), "[7, 5, 6]");
        assert_eq!(ShortList::<u8, 1>::from([9]).only(), Some(9));
    }
}
