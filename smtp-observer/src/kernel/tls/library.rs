//! Functions of TLS libraries in a file of machine code: where in the file they are, and how they are called.

use std::fs::File;
use std::io;
use std::path::Path;

use foldhash::{HashMap, HashSet};
use iced_x86::{Decoder, DecoderOptions, FlowControl};
use object::read::ReadCache;
use object::{Architecture, Object, ObjectSection, ObjectSegment, ObjectSymbol};
use smtp_ebpf::library_call::{Library, LibraryCall};

/// Most bytes of a function that are decoded to find what it calls.
const LONGEST: u64 = 4096;

/// A place of a file that is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The function's name, or what it is called by.
    pub function: &'static str,
    /// Where in the file it begins.
    pub offset: u64,
    /// The library that it is of.
    pub library: Library,
    /// What it does.
    pub role: Role,
}

/// What a probed function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is called on a session, and calls the socket.
    Call(LibraryCall),
    /// It ends a session.
    End,
}

/// A file cannot be searched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It is none of machine code, or broken.
    #[error("it is no ELF file that can be read: {0}")]
    Format(#[from] object::Error),
}

const fn call(library: Library, direction: u32, count_at: u32) -> Role {
    Role::Call(LibraryCall { direction, count_at, library: library as u32 })
}

/// Public functions, with what they do: SSL_read(3), SSL_write(3), SSL_do_handshake(3), gnutls_record_send(3) and so on.
const FUNCTIONS: [(&str, Library, Role); 13] = [
    (HANDSHAKE, Library::OpenSsl, call(Library::OpenSsl, LibraryCall::HANDSHAKE, 0)),
    (READ, Library::OpenSsl, call(Library::OpenSsl, LibraryCall::RECEIVE, 0)),
    (READ_EX, Library::OpenSsl, call(Library::OpenSsl, LibraryCall::RECEIVE, 4)),
    (WRITE, Library::OpenSsl, call(Library::OpenSsl, LibraryCall::SEND, 0)),
    (WRITE_EX, Library::OpenSsl, call(Library::OpenSsl, LibraryCall::SEND, 4)),
    // Since 3.3.
    (WRITE_EX2, Library::OpenSsl, call(Library::OpenSsl, LibraryCall::SEND, 5)),
    ("SSL_free", Library::OpenSsl, Role::End),
    ("gnutls_handshake", Library::GnuTls, call(Library::GnuTls, LibraryCall::HANDSHAKE, 0)),
    ("gnutls_record_send", Library::GnuTls, call(Library::GnuTls, LibraryCall::SEND, 0)),
    // Where there is one, gnutls_record_send is a call of it.
    ("gnutls_record_send2", Library::GnuTls, call(Library::GnuTls, LibraryCall::SEND, 0)),
    ("gnutls_record_recv", Library::GnuTls, call(Library::GnuTls, LibraryCall::RECEIVE, 0)),
    ("gnutls_record_recv_seq", Library::GnuTls, call(Library::GnuTls, LibraryCall::RECEIVE, 0)),
    ("gnutls_deinit", Library::GnuTls, Role::End),
];

const HANDSHAKE: &str = "SSL_do_handshake";
const READ: &str = "SSL_read";
const READ_EX: &str = "SSL_read_ex";
const WRITE: &str = "SSL_write";
const WRITE_EX: &str = "SSL_write_ex";
const WRITE_EX2: &str = "SSL_write_ex2";

/// The places of a file that are to be probed; none, where it has no library of TLS.
pub fn search(path: &Path) -> Result<Vec<Place>, Error> {
    let cache = ReadCache::new(File::open(path)?);
    let file = object::File::parse(&cache)?;
    let code = Code::new(&file);
    let mut functions: Vec<_> = FUNCTIONS.into_iter().filter(|(name, ..)| code.addresses.contains_key(name)).collect();
    if code.addresses.contains_key("gnutls_record_send2") {
        functions.retain(|(name, ..)| *name != "gnutls_record_send");
    }
    let count_at = if code.addresses.contains_key(WRITE_EX2) { 5 } else { 4 };
    let mut places = Vec::new();
    for (outer, inner, role) in [
        ([READ, READ_EX], "ssl_read_internal", call(Library::OpenSsl, LibraryCall::RECEIVE, 4)),
        ([WRITE, WRITE_EX], "ssl_write_internal", call(Library::OpenSsl, LibraryCall::SEND, count_at)),
    ] {
        // What both call has the same arguments in every OpenSSL since 1.1.1, and begins with an instruction that the kernel
        // emulates, where theirs is executed step by step.
        if let Some(offset) = code.common_callee(outer).and_then(|address| code.offset(address)) {
            functions.retain(|(name, ..)| !outer.contains(name) && (outer[0] != WRITE || *name != WRITE_EX2));
            places.push(Place { function: inner, offset, library: Library::OpenSsl, role });
        }
    }
    for (function, library, role) in functions {
        if let Some(offset) = code.addresses.get(function).and_then(|&(address, _)| code.offset(address)) {
            places.push(Place { function, offset, library, role });
        }
    }
    // What moves no data is of use only beside what does.
    let moves = |place: &Place| matches!(place.role, Role::Call(call) if call.direction != LibraryCall::HANDSHAKE);
    if !places.iter().any(moves) {
        places.clear();
    }
    Ok(places)
}

/// A file's functions and segments.
struct Code<'file, 'data> {
    file: &'file object::File<'data, &'data ReadCache<File>>,
    /// Where the functions of [`FUNCTIONS`] begin, and their lengths.
    addresses: HashMap<&'static str, (u64, u64)>,
}

impl<'file, 'data> Code<'file, 'data> {
    fn new(file: &'file object::File<'data, &'data ReadCache<File>>) -> Self {
        let mut addresses = HashMap::default();
        for symbol in file.dynamic_symbols().chain(file.symbols()) {
            if symbol.is_undefined() || symbol.address() == 0 {
                continue;
            }
            let known = symbol.name().ok().and_then(|name| FUNCTIONS.iter().find(|(known, ..)| *known == name));
            if let Some(&(name, ..)) = known {
                addresses.entry(name).or_insert((symbol.address(), symbol.size()));
            }
        }
        Self { file, addresses }
    }

    /// Where in the file an address is.
    fn offset(&self, address: u64) -> Option<u64> {
        self.file.segments().find_map(|segment| {
            let (offset, length) = segment.file_range();
            let within = address.checked_sub(segment.address())?;
            (within < length).then(|| offset + within)
        })
    }

    /// The one function that both of these call, and that is none of the public ones.
    fn common_callee(&self, [first, second]: [&'static str; 2]) -> Option<u64> {
        let second = self.callees(second)?;
        let public: HashSet<u64> = self.addresses.values().map(|&(address, _)| address).collect();
        let mut common = self.callees(first)?.into_iter().filter(|callee| second.contains(callee) && !public.contains(callee));
        let only = common.next()?;
        common.next().is_none().then_some(only)
    }

    /// The functions of the same section that one calls, or jumps on to. Absent where that cannot be read.
    fn callees(&self, function: &'static str) -> Option<HashSet<u64>> {
        if self.file.architecture() != Architecture::X86_64 {
            return None;
        }
        let &(start, size) = self.addresses.get(function)?;
        let within = |section: &object::Section<'_, '_, _>, address: u64| {
            address.checked_sub(section.address()).is_some_and(|within| within < section.size())
        };
        let section = self.file.sections().find(|section| within(section, start))?;
        let code = section.data_range(start, size.min(LONGEST)).ok()??;
        let own = start..start + size;
        let mut callees = HashSet::default();
        for instruction in Decoder::with_ip(64, code, start, DecoderOptions::NONE).iter() {
            let leads_on = matches!(instruction.flow_control(), FlowControl::Call | FlowControl::UnconditionalBranch);
            let target = instruction.near_branch_target();
            if leads_on && target != 0 && !own.contains(&target) && within(&section, target) {
                callees.insert(target);
            }
        }
        Some(callees)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A library of this host, by the start of its name.
    fn library(name: &str) -> Vec<Place> {
        let directories = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
        let mut files = directories.iter().filter_map(|directory| std::fs::read_dir(directory).ok()).flatten().flatten();
        let file = files.find(|file| file.file_name().to_string_lossy().starts_with(name));
        let path = file.unwrap_or_else(|| panic!("this test needs the library {name}")).path();
        search(&path).expect("a library can be searched")
    }

    /// Whether all that moves data is found, each way once, and what begins and ends a session.
    fn is_complete(places: &[Place]) -> bool {
        let has = |direction| {
            places.iter().any(|place| matches!(place.role, Role::Call(call) if call.direction == direction))
        };
        [LibraryCall::HANDSHAKE, LibraryCall::SEND, LibraryCall::RECEIVE].into_iter().all(has)
            && places.iter().any(|place| place.role == Role::End)
    }

    #[test]
    fn openssl_of_this_host() {
        let places = library("libssl.so.");
        assert!(is_complete(&places), "{places:#?}");
        assert!(places.iter().all(|place| place.library == Library::OpenSsl));
    }

    #[test]
    fn gnutls_of_this_host() {
        let places = library("libgnutls.so.");
        assert!(is_complete(&places), "{places:#?}");
        assert!(places.iter().all(|place| place.library == Library::GnuTls));
    }

    #[test]
    fn others_have_none() {
        assert_eq!(library("libcrypto.so."), []);
        let own = std::env::current_exe().expect("a test is a file");
        assert_eq!(search(&own).expect("it is machine code"), []);
    }

    #[test]
    fn what_is_no_machine_code_is_an_error() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), b"\x7fELF\x02\x01\x01 and then nothing of use").expect("written");
        assert!(matches!(search(file.path()), Err(Error::Format(_))));
        assert!(matches!(search(Path::new("/nowhere")), Err(Error::Read(_))));
    }
}
