//! How much is logged.

use tracing::level_filters::LevelFilter;

/// How often `--verbose` was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verbosity(pub u8);

impl Verbosity {
    /// That of the command line, or else that of the configuration file.
    pub fn or(self, file: u8) -> Self {
        if self.0 > 0 { self } else { Self(file) }
    }

    /// How much the agent logs.
    pub fn log_level(self) -> LevelFilter {
        match self.0 {
            0 => LevelFilter::INFO,
            1 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        }
    }

    /// How much the eBPF programs log: nothing, which is also free, unless asked for.
    pub fn diagnostics(self) -> LevelFilter {
        match self.0 {
            0 => LevelFilter::OFF,
            _ => self.log_level(),
        }
    }
}
