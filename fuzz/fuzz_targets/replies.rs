//! One reply is late, or never comes: nothing that is told as certain is false.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp_observer::fuzzed;

fuzz_target!(|bytes: &[u8]| fuzzed::replies(bytes));
