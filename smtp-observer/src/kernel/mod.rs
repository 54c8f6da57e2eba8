//! The kernel side as user space sees it: the only code that knows aya.
