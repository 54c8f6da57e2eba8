//! The harness of the integration tests: test hosts, mail software and a running agent.
//!
//! A test makes [`netns::Host`]s, starts programs in them, lets an [`agent::Agent`] watch, and compares what the agent
//! says it [`seen::Seen`] with what is known to have been said. Everything a test starts ends with it: namespaces have
//! no names and vanish with their last user, children are ended by their guards.

pub mod agent;
pub mod bpf;
pub mod breakpoint;
pub mod browser;
pub mod certificate;
pub mod cgroup;
pub mod confined;
pub mod conversation;
pub mod dialogue;
pub mod feed;
pub mod grafana;
pub mod greeted;
pub mod http;
pub mod machine;
pub mod netns;
pub mod paths;
pub mod pipeline;
pub mod postfix;
pub mod process;
pub mod prometheus;
pub mod relay;
pub mod ring;
pub mod scene;
pub mod schema;
pub mod seen;
pub mod service_manager;
pub mod syscalls;
pub mod terminal;
pub mod tls;
pub mod traffic;
pub mod transcript;
pub mod unpacked;
pub mod uring;
pub mod watch;
