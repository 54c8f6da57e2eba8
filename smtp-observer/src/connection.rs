//! Connections: their two byte streams, gaps, owners and end.
