//! The SMTP dialogue: bytes and gaps in, items out; no sockets, no clock.
