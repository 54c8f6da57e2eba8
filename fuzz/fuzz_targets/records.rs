//! Any bytes in the ring buffer, and in what the iterator over open sockets writes: they are read, or refused, and what
//! is read can be followed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp_observer::event::{KernelEvent, Time};
use smtp_observer::kernel::Reader;
use smtp_observer::observer::Observer;
use smtp_observer::redact::{Addresses, RedactionPolicy};

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::default();
    let mut observer = Observer::new(&[25], RedactionPolicy::new(Addresses::Domain));
    let mut rest = bytes;
    while let Some((&length, behind)) = rest.split_first() {
        // Records are some hundred bytes long.
        let (record, behind) = behind.split_at(behind.len().min(4 * usize::from(length)));
        rest = behind;
        if let Ok((_, Some(event))) = reader.read(record) {
            observer.event(event, &mut |_| {});
        }
        if let Ok((process, _, taken)) = reader.open(record) {
            assert!(taken <= record.len());
            observer.event(KernelEvent::Process(process), &mut |_| {});
        }
    }
    observer.settle(Time(u64::MAX), &mut |_| {});
});
