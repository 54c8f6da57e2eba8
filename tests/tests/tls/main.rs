//! Mail software that speaks TLS, with certificates of the tests' own: what is said inside of it is told as if it were said in
//! clear, and no more of it leaves the kernel than there.

mod crossing;
mod exim;
mod in_between;
mod opensmtpd;
mod postfix;
mod same_as_clear;
mod sessions;
