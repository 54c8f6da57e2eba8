//! Secrets and mailboxes' names anywhere in a dialogue are in no output.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp_observer::fuzzed;

fuzz_target!(|bytes: &[u8]| fuzzed::hidden(bytes));
