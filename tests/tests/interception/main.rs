//! Real programs between a client and the server that it asked for, and real programs that only look as if they were.
//!
//! Each scene first shows that it took place: the mail arrived, and every socket was seen in the right hands. Then it looks
//! at the verdict.

mod antivirus;
mod between;
mod chosen;
mod innocents;
mod load;
mod methods;
mod pipes;
mod rewrite;
mod verdict;
