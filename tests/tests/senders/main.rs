//! Real senders, each on a host of its own beside an agent: what they say, and why they reset.

mod clients;
mod exim;
mod opensmtpd;
mod postfix;
mod sinks;
mod ssmtp;
