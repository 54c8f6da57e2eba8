//! What ties the events to this host: its wall clock, its boot, its addresses. Clock and addresses may change at any time.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::libc::{RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, recv, socket,
};
use nix::time::{ClockId, clock_gettime};
use tracing::warn;

use crate::event::{Host, Time};

/// A change of the wall clock's distance from the boot clock that is told. Smaller ones come from the clock's own correction
/// (adjtimex(2)), and add up until they are told.
const TOLD: Duration = Duration::from_millis(10);

/// Two readings of one clock that are farther apart than this were interrupted, and tell nothing of another clock between them.
const INTERRUPTED: Duration = Duration::from_millis(1);

/// This host, as it was told last.
pub(super) struct ThisHost {
    told: Host,
    /// Has a message when an address was added or removed (rtnetlink(7)); absent where the kernel does not tell.
    changes: Option<OwnedFd>,
}

impl ThisHost {
    pub(super) fn new() -> io::Result<Self> {
        // First: what changes from here on is told.
        let changes = watch_addresses().inspect_err(|error| warn!("changes of addresses are not seen: {error}")).ok();
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let boot = boot()?;
        let unix = clock_gettime(ClockId::CLOCK_REALTIME)?;
        let told = Host {
            unix_offset: nanoseconds(unix.into()) - boot,
            boot_id: Arc::from(boot_id.trim()),
            // Of a namespace the kernel tells the number where it tells that of a file.
            netns: Some(std::fs::metadata("/proc/self/ns/net")?.ino() as u32),
            addresses: addresses()?,
        };
        Ok(Self { told, changes })
    }

    /// As it was told last.
    pub(super) fn told(&self) -> &Host {
        &self.told
    }

    /// As it is now, if that is news.
    pub(super) fn news(&mut self) -> Option<Host> {
        let clock = clock().filter(|offset| offset.abs_diff(self.told.unix_offset) >= TOLD.as_nanos() as u64);
        let addresses = match &self.changes {
            Some(changes) if has_message(changes) => addresses().ok().filter(|now| *now != self.told.addresses),
            _ => None,
        };
        if clock.is_none() && addresses.is_none() {
            return None;
        }
        self.told.unix_offset = clock.unwrap_or(self.told.unix_offset);
        if let Some(addresses) = addresses {
            self.told.addresses = addresses;
        }
        Some(self.told.clone())
    }
}

/// What the clock of the events says.
pub fn now() -> io::Result<Time> {
    Ok(Time(boot()?.unsigned_abs()))
}

/// A time of the events as `/proc` shows it to this process.
pub(super) fn in_proc(time: Time) -> Time {
    Time(time.0.wrapping_add_signed(ahead()))
}

/// The kernel's boot clock, in nanoseconds.
fn boot() -> nix::Result<i64> {
    Ok(nanoseconds(clock_gettime(ClockId::CLOCK_BOOTTIME)?.into()) - ahead())
}

/// How far this process's boot clock is ahead of the kernel's, in nanoseconds: a time namespace has its own
/// (time_namespaces(7)), and the hooks read the kernel's.
fn ahead() -> i64 {
    static AHEAD: OnceLock<i64> = OnceLock::new();
    *AHEAD.get_or_init(|| {
        let offsets = std::fs::read_to_string("/proc/self/timens_offsets");
        offsets.ok().and_then(|offsets| offset(&offsets)).unwrap_or_default()
    })
}

/// That of the boot clock, of lines like `boottime 86400 0`: seconds and nanoseconds.
fn offset(offsets: &str) -> Option<i64> {
    let mut numbers = offsets.lines().find_map(|line| line.strip_prefix("boottime"))?.split_ascii_whitespace();
    let mut number = || numbers.next()?.parse::<i64>().ok();
    number()?.checked_mul(1_000_000_000)?.checked_add(number()?)
}

/// What is to be added to the boot clock for the wall clock, in nanoseconds, unless the reading was interrupted.
fn clock() -> Option<i64> {
    let before = boot().ok()?;
    let unix = nanoseconds(clock_gettime(ClockId::CLOCK_REALTIME).ok()?.into());
    let after = boot().ok()?;
    (before.abs_diff(after) < INTERRUPTED.as_nanos() as u64).then_some(unix - before)
}

/// The addresses of this network namespace's interfaces.
fn addresses() -> io::Result<Vec<IpAddr>> {
    let address = |storage: SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    Ok(getifaddrs()?.filter_map(|interface| interface.address.and_then(address)).collect())
}

fn watch_addresses() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let changes = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    let groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
    bind(changes.as_raw_fd(), &NetlinkAddr::new(0, groups as u32))?;
    Ok(changes)
}

/// Takes all messages that wait; whether there was one. That there were too many (ENOBUFS) is one, too.
fn has_message(changes: &OwnedFd) -> bool {
    let mut any = false;
    // What a message says is not read: all addresses are.
    while !matches!(recv(changes.as_raw_fd(), &mut [0; 64], MsgFlags::empty()), Err(Errno::EAGAIN)) {
        any = true;
    }
    any
}

fn nanoseconds(time: Duration) -> i64 {
    time.as_nanos() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_news_once() {
        let mut host = ThisHost::new().expect("this host");
        let right = host.told.unix_offset;
        assert_eq!(host.news(), None);
        host.told.unix_offset -= Duration::from_secs(3 * 3600).as_nanos() as i64;
        let news = host.news().expect("the clock is three hours ahead of what was told");
        assert!(news.unix_offset.abs_diff(right) < TOLD.as_nanos() as u64);
        assert_eq!((&*news.boot_id, &news.addresses), (&*host.told.boot_id, &host.told.addresses));
        assert_eq!(host.news(), None);
    }

    #[test]
    fn the_boot_clock_of_a_time_namespace() {
        assert_eq!(
            offset("monotonic           5         0\nboottime       86400         7\n"),
            Some(86_400_000_000_007)
        );
        assert_eq!(offset("monotonic 0 0\nboottime -2 500000000\n"), Some(-1_500_000_000));
        assert_eq!(offset(""), None);
    }

    #[test]
    fn addresses_are_those_of_the_interfaces() {
        let host = ThisHost::new().expect("this host");
        assert!(host.told.addresses.iter().any(IpAddr::is_loopback), "{:?}", host.told.addresses);
    }
}
