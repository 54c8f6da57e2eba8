//! The harness of the integration tests: test hosts, mail software and a running agent.
