//! What the program `confined` and its test agree on.

use smtp_observer::privilege::Capability;

/// The user that it becomes.
pub const USER: &str = "nobody";

/// The beginning of the abstract socket's name that the test waits on; its pid follows.
pub const NAME: &str = "smtp-observer-confined";

/// Capabilities that the process keeps which attaches probes one by one.
pub const KEPT: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_PERFMON];
