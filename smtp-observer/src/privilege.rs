//! Dropping what the agent no longer needs.
