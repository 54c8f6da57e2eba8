//! Passwords of clients, by bcrypt, which is slow on purpose.
//!
//! What a flood of wrong ones may cost is bounded: one is looked at at a time, on a thread of its own, and after a wrong
//! one nothing is looked at for a while, so that all of them together take a fifth of a processor. Of one address few may
//! wait, so that others come to their turn. A right one is remembered until its user's hash changes: the next request
//! with it waits for nobody.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::config::Hash;

/// Passwords of one address that may wait to be looked at.
const WAITING: usize = 4;

/// How long nothing is looked at after a wrong one, as a multiple of the time that it took.
const PAUSE: u32 = 4;

/// What became of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Right,
    Wrong,
    /// Too many of this address wait.
    NotLookedAt,
}

/// A user and a password, as a client gives them.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    user: String,
    password: Vec<u8>,
}

impl Credentials {
    /// Those of an `Authorization` header (RFC 7617).
    pub(super) fn parse(header: &[u8]) -> Option<Self> {
        let (scheme, encoded) = header.split_at_checked(6)?;
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return None;
        }
        let decoded = BASE64_STANDARD.decode(encoded.trim_ascii()).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
        Some(Self { user, password: decoded[colon + 1..].to_vec() })
    }
}

/// Looks at passwords, and remembers which were right.
pub(super) struct Passwords {
    /// Of each user who gave the right password: that it was, with this hash. Made with a key that nobody knows, and so of no
    /// use to who reads it.
    right: Mutex<HashMap<String, hmac::Tag>>,
    key: hmac::Key,
    turn: Arc<Semaphore>,
    waiting: Mutex<HashMap<IpAddr, usize>>,
}

impl Passwords {
    /// Fails where the host has no random numbers.
    pub(super) fn new() -> Result<Self, ring::error::Unspecified> {
        Ok(Self {
            right: Mutex::default(),
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?,
            turn: Arc::new(Semaphore::new(1)),
            waiting: Mutex::default(),
        })
    }

    /// Whether this is the password of one of these users.
    pub(super) async fn check(
        &self,
        users: &BTreeMap<String, Hash>,
        peer: IpAddr,
        credentials: &Credentials,
    ) -> Outcome {
        let Credentials { user, password } = credentials;
        // For a user who is not there another's hash is tried, and takes as long.
        let known = users.get(user);
        let Some(Hash(hash)) = known.or_else(|| users.values().next()) else { return Outcome::Wrong };
        let said = said(user, hash, password);
        if self.is_right(user, &said) {
            return Outcome::Right;
        }
        let Some(_place) = Place::take(&self.waiting, prefix(peer)) else { return Outcome::NotLookedAt };
        // It is never closed.
        let Ok(turn) = Arc::clone(&self.turn).acquire_owned().await else { return Outcome::NotLookedAt };
        // Another request may have brought the same one meanwhile.
        if self.is_right(user, &said) {
            return Outcome::Right;
        }
        let (hash, password, is_known) = (hash.clone(), password.clone(), known.is_some());
        let looked_at = spawn_blocking(move || {
            let started = Instant::now();
            let right = bcrypt::verify(&password, &hash).unwrap_or(false) && is_known;
            if right {
                return true;
            }
            // Whether the client still waits or not.
            let pause = started.elapsed() * PAUSE;
            tokio::runtime::Handle::current().spawn(async move {
                tokio::time::sleep(pause).await;
                drop(turn);
            });
            false
        });
        match looked_at.await {
            Ok(true) => {
                locked(&self.right).insert(user.clone(), hmac::sign(&self.key, &said));
                Outcome::Right
            }
            _ => Outcome::Wrong,
        }
    }

    fn is_right(&self, user: &str, said: &[u8]) -> bool {
        let right = locked(&self.right).get(user).copied();
        right.is_some_and(|right| hmac::verify(&self.key, said, right.as_ref()).is_ok())
    }
}

/// All three, so that no two that differ become the same.
fn said(user: &str, hash: &str, password: &[u8]) -> Vec<u8> {
    let length = |text: &[u8]| (text.len() as u64).to_be_bytes();
    let parts: [&[u8]; 5] =
        [&length(user.as_bytes()), user.as_bytes(), &length(hash.as_bytes()), hash.as_bytes(), password];
    parts.concat()
}

/// What one client has of addresses: an IPv4 address, or a network of 2^64 IPv6 addresses.
fn prefix(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// One who waits.
struct Place<'a>(&'a Mutex<HashMap<IpAddr, usize>>, IpAddr);

impl<'a> Place<'a> {
    fn take(waiting: &'a Mutex<HashMap<IpAddr, usize>>, peer: IpAddr) -> Option<Self> {
        let mut counts = locked(waiting);
        let count = counts.entry(peer).or_default();
        if *count >= WAITING {
            return None;
        }
        *count += 1;
        Some(Self(waiting, peer))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut counts = locked(self.0);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    fn users(list: &[(&str, &str)]) -> BTreeMap<String, Hash> {
        users_of(list, 4)
    }

    fn users_of(list: &[(&str, &str)], cost: u32) -> BTreeMap<String, Hash> {
        let hash = |password: &str| Hash(bcrypt::hash(password, cost).expect("random numbers"));
        list.iter().map(|(user, password)| ((*user).to_owned(), hash(password))).collect()
    }

    fn credentials(user: &str, password: &str) -> Credentials {
        Credentials { user: user.into(), password: password.into() }
    }

    #[test]
    fn headers_are_read() {
        // RFC 7617, 2 and 2.1: the user ends at the first colon, and a password is bytes.
        let parsed = Credentials::parse(b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==").expect("valid");
        assert!(parsed == credentials("Aladdin", "open sesame"));
        assert!(Credentials::parse(b"bAsIc dGVzdDoxMjPCow==").expect("valid") == credentials("test", "123\u{a3}"));
        assert!(Credentials::parse(b"Basic YTpiOmM=").expect("valid") == credentials("a", "b:c"));
        for wrong in ["", "Basic", "Basic ", "Basic !", "Basic YWxpY2U=", "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ=="] {
            assert!(Credentials::parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn the_right_one_is_right_and_no_other() {
        let passwords = Passwords::new().expect("random numbers");
        let users = users(&[("alice", "correct horse"), ("bob", "battery staple")]);
        // Twice: the second time some are remembered.
        for _ in 0..2 {
            for (user, password, outcome) in [
                ("alice", "correct horse", Outcome::Right),
                ("alice", "battery staple", Outcome::Wrong),
                ("bob", "correct horse", Outcome::Wrong),
                ("bob", "battery staple", Outcome::Right),
                ("carol", "correct horse", Outcome::Wrong),
                ("", "", Outcome::Wrong),
            ] {
                assert_eq!(passwords.check(&users, PEER, &credentials(user, password)).await, outcome, "{user}");
            }
        }
    }

    #[tokio::test]
    async fn a_new_hash_ends_what_is_remembered() {
        let passwords = Passwords::new().expect("random numbers");
        let alice = credentials("alice", "old");
        assert_eq!(passwords.check(&users(&[("alice", "old")]), PEER, &alice).await, Outcome::Right);
        assert_eq!(passwords.check(&users(&[("alice", "new")]), PEER, &alice).await, Outcome::Wrong);
        assert_eq!(passwords.check(&users(&[("bob", "old")]), PEER, &alice).await, Outcome::Wrong);
    }

    #[tokio::test]
    async fn a_flood_of_wrong_ones_keeps_nobody_out_and_takes_its_share_of_time_alone() {
        let passwords = Arc::new(Passwords::new().expect("random numbers"));
        let users = Arc::new(users(&[("alice", "right"), ("bob", "right")]));
        let known = credentials("alice", "right");
        assert_eq!(passwords.check(&users, PEER, &known).await, Outcome::Right);
        let one_wrong = Instant::now();
        assert_eq!(passwords.check(&users, PEER, &credentials("alice", "wrong")).await, Outcome::Wrong);
        let one_wrong = one_wrong.elapsed();

        let flood: Vec<_> = (0..100)
            .map(|number| {
                let (passwords, users) = (Arc::clone(&passwords), Arc::clone(&users));
                let wrong = credentials("alice", &format!("wrong {number}"));
                tokio::spawn(async move { passwords.check(&users, "192.0.2.1".parse().expect("one"), &wrong).await })
            })
            .collect();
        tokio::task::yield_now().await;
        // One who is known waits for nobody, and one who is not comes before those who have not even a place.
        assert_eq!(passwords.check(&users, PEER, &known).await, Outcome::Right);
        assert_eq!(passwords.check(&users, PEER, &credentials("bob", "right")).await, Outcome::Right);
        let started = Instant::now();
        let mut outcomes = Vec::new();
        for attempt in flood {
            outcomes.push(attempt.await.expect("no panic"));
        }
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Wrong).count(), WAITING, "{outcomes:?}");
        assert!(outcomes.iter().all(|outcome| *outcome != Outcome::Right));
        assert!(started.elapsed() < one_wrong * 100 * PAUSE, "they were not all looked at");
    }

    #[tokio::test]
    async fn who_leaves_has_the_pause_all_the_same() {
        let passwords = Arc::new(Passwords::new().expect("random numbers"));
        // Long enough for it to leave meanwhile.
        let users = Arc::new(users_of(&[("alice", "right")], 9));
        let attempt = {
            let (passwords, users) = (Arc::clone(&passwords), Arc::clone(&users));
            tokio::spawn(async move { passwords.check(&users, PEER, &credentials("alice", "wrong")).await })
        };
        tokio::task::yield_now().await;
        assert_eq!(passwords.turn.available_permits(), 0, "it is being looked at");
        attempt.abort();
        assert!(attempt.await.is_err(), "it has left");
        assert_eq!(passwords.turn.available_permits(), 0, "and the next has to wait");
        assert_eq!(passwords.check(&users, PEER, &credentials("alice", "right")).await, Outcome::Right);
        assert!(locked(&passwords.waiting).is_empty());
    }

    #[test]
    fn one_network_of_ipv6_is_one_client() {
        let of = |address: &str| prefix(address.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
