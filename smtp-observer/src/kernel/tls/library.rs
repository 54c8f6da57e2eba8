//! Functions of TLS libraries in a file of machine code: where in the file they are, and how they are called.

use std::fs::File;
use std::io;
use std::path::Path;

use foldhash::{HashMap, HashSet};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic};
use object::elf::{self, FileHeader64, SHT_DYNSYM, SHT_GNU_HASH, SHT_STRTAB, SHT_SYMTAB};
use object::read::ReadCache;
use object::read::elf::{ElfFile64, FileHeader, SectionHeader, Sym, VersionTable};
use object::{Architecture, Endianness, Object, ObjectSection, ObjectSegment};
use smtp_ebpf::library_call::{Library, LibraryCall};

/// Most bytes of a function that are decoded to find what it calls.
const LONGEST: u64 = 4096;

/// Bytes at the beginning of a function among which a better place for a probe is sought.
const BEGINNING: u64 = 32;

/// Most bytes of a file's tables of symbols: whoever's file it is, it is not to fill the memory.
const MAX_TABLES: u64 = 128 << 20;

/// A file of machine code that is read as it is needed.
type Elf<'data> = ElfFile64<'data, Endianness, &'data ReadCache<File>>;

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

impl Place {
    /// What a probe here is told of it.
    pub fn cookie(&self) -> u64 {
        match self.role {
            Role::Call(call) => call.to_cookie(),
            Role::Record | Role::End => 0,
        }
    }
}

/// What a probed function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is called on a session, and calls the socket.
    Call(LibraryCall),
    /// It is called by others of the library to hand over a record, on its way to the socket.
    Record,
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
    #[error("it is no 64-bit ELF file that can be read: {0}")]
    Format(#[from] object::Error),
    /// Its tables of symbols are longer than any that are known.
    #[error("its tables of symbols take {0} bytes")]
    TooLong(u64),
}

const fn call(library: Library, direction: u32, count_at: u32) -> Role {
    Role::Call(LibraryCall { direction, count_at, library: library as u32 })
}

/// Public functions, with what they do: SSL_read(3), SSL_write(3), SSL_do_handshake(3), gnutls_record_send(3) and so on.
const FUNCTIONS: [(&str, Library, Role); 15] = [
    (HANDSHAKE, Library::OpenSsl, call(Library::OpenSsl, LibraryCall::HANDSHAKE, 0)),
    (READ, Library::OpenSsl, call(Library::OpenSsl, LibraryCall::RECEIVE, 0)),
    (READ_EX, Library::OpenSsl, call(Library::OpenSsl, LibraryCall::RECEIVE, 4)),
    (WRITE, Library::OpenSsl, call(Library::OpenSsl, LibraryCall::SEND, 0)),
    (WRITE_EX, Library::OpenSsl, call(Library::OpenSsl, LibraryCall::SEND, 4)),
    // Since 3.3.
    (WRITE_EX2, Library::OpenSsl, call(Library::OpenSsl, LibraryCall::SEND, 5)),
    ("BIO_write", Library::OpenSsl, Role::Record),
    ("SSL_free", Library::OpenSsl, Role::End),
    ("gnutls_handshake", Library::GnuTls, call(Library::GnuTls, LibraryCall::HANDSHAKE, 0)),
    ("gnutls_record_uncork", Library::GnuTls, call(Library::GnuTls, LibraryCall::FLUSH, 0)),
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

/// The places of a file that are to be probed, in the order in which that is to be done; none, where it has no library of TLS.
pub fn search(path: &Path) -> Result<Vec<Place>, Error> {
    let cache = ReadCache::new(File::open(path)?);
    check_tables(&cache)?;
    let file = Elf::parse(&cache)?;
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
        let address = code.addresses.get(function).map(|&(address, _)| match role {
            // For the return, a probe has to stand where the function begins.
            Role::Call(_) => address,
            Role::Record | Role::End => code.emulated(address).unwrap_or(address),
        });
        if let Some(offset) = address.and_then(|address| code.offset(address)) {
            places.push(Place { function, offset, library, role });
        }
    }
    // What moves no data is of use only beside what does.
    let moves = |place: &Place| match place.role {
        Role::Call(call) => matches!(call.direction, LibraryCall::SEND | LibraryCall::RECEIVE),
        Role::Record => true,
        Role::End => false,
    };
    if !places.iter().any(moves) {
        places.clear();
    }
    places.sort_by_key(|place| turn(place.role));
    Ok(places)
}

/// When a place is probed, among the others of its file: that is done one by one, while the process runs, and a call that is
/// under way by then is not seen. Who is seen to send is seen to receive the answer, and of a session that is seen to begin
/// nothing is missed.
fn turn(role: Role) -> u8 {
    match role {
        Role::Call(call) => match call.direction {
            LibraryCall::RECEIVE => 0,
            // It calls what sends, which is not to be probed without it.
            LibraryCall::FLUSH => 1,
            LibraryCall::SEND => 2,
            _ => 4,
        },
        Role::Record | Role::End => 3,
    }
}

/// Whether the tables of symbols are of a length to be read.
fn check_tables(cache: &ReadCache<File>) -> Result<(), Error> {
    let header = FileHeader64::<Endianness>::parse(cache)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, cache)?;
    let tables = [SHT_DYNSYM, SHT_GNU_HASH, SHT_STRTAB, SHT_SYMTAB];
    let lengths = sections.iter().filter(|section| tables.contains(&section.sh_type(endian)));
    let length = lengths.fold(0, |sum: u64, section| sum.saturating_add(section.sh_size(endian)));
    if length > MAX_TABLES { Err(Error::TooLong(length)) } else { Ok(()) }
}

/// A file's functions and segments.
struct Code<'file, 'data> {
    file: &'file Elf<'data>,
    /// Where the functions of [`FUNCTIONS`] begin, and their lengths.
    addresses: HashMap<&'static str, (u64, u64)>,
}

impl<'file, 'data> Code<'file, 'data> {
    fn new(file: &'file Elf<'data>) -> Self {
        let mut code = Self { file, addresses: HashMap::default() };
        let has_table = code.exported().is_some();
        if code.addresses.is_empty() {
            code.every_symbol(!has_table);
        }
        code
    }

    /// Finds the functions among those that the file offers to others, by its hash table. None: it has no such table.
    fn exported(&mut self) -> Option<()> {
        let (endian, data) = (self.file.endian(), self.file.data());
        let sections = self.file.elf_section_table();
        let header = sections.gnu_hash_header(endian, data).ok()??;
        // What the search takes for granted.
        let is_sound = header.bucket_count.get(endian) > 0
            && header.bloom_count.get(endian).is_power_of_two()
            && header.bloom_shift.get(endian) < u32::BITS;
        let (table, _) = sections.gnu_hash(endian, data).ok()?.filter(|_| is_sound)?;
        let symbols = self.file.elf_dynamic_symbol_table();
        for (name, ..) in FUNCTIONS {
            let (name, hash) = (name, elf::gnu_hash(name.as_bytes()));
            let found = table.find(endian, name.as_bytes(), hash, None, symbols, &VersionTable::default());
            if let Some((_, symbol)) = found
                && symbol.st_value(endian) != 0
            {
                self.addresses.insert(name, (symbol.st_value(endian), symbol.st_size(endian)));
            }
        }
        Some(())
    }

    /// Finds the functions among all symbols, with what the file offers to others or without: a program may have its library
    /// within itself.
    fn every_symbol(&mut self, with_offered: bool) {
        let (endian, data) = (self.file.endian(), self.file.data());
        let sections = self.file.elf_section_table();
        let offered = with_offered.then(|| self.file.elf_dynamic_symbol_table());
        for table in [Some(self.file.elf_symbol_table()), offered].into_iter().flatten() {
            // All names at once: by `symbol_name` each would be a read of the file.
            let names = sections.section(table.string_section()).and_then(|section| section.data(endian, data));
            let names = names.unwrap_or_default();
            for symbol in
                table.symbols().iter().filter(|symbol| !symbol.is_undefined(endian) && symbol.st_value(endian) != 0)
            {
                let name = names.get(symbol.st_name(endian) as usize..).unwrap_or_default();
                let is_it =
                    |known: &str| name.strip_prefix(known.as_bytes()).is_some_and(|rest| rest.first() == Some(&0));
                if let Some(&(name, ..)) = FUNCTIONS.iter().find(|(known, ..)| is_it(known)) {
                    let place = (symbol.st_value(endian), symbol.st_size(endian));
                    self.addresses.entry(name).or_insert(place);
                }
            }
        }
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
        let mut common =
            self.callees(first)?.into_iter().filter(|callee| second.contains(callee) && !public.contains(callee));
        let only = common.next()?;
        common.next().is_none().then_some(only)
    }

    /// The first instruction of a function that the kernel emulates (`push_setup_xol_ops`, `branch_setup_xol_ops`; others it
    /// executes step by step), where only comparisons stand before it: the arguments are still where they were.
    fn emulated(&self, address: u64) -> Option<u64> {
        let (_, code) = self.instructions(address, BEGINNING)?;
        emulated(code, address)
    }

    /// A section, and so many bytes of its instructions, or as many as there are. Absent where those cannot be read.
    fn instructions(&self, start: u64, size: u64) -> Option<(impl ObjectSection<'data>, &'data [u8])> {
        if self.file.architecture() != Architecture::X86_64 {
            return None;
        }
        let section = self.file.sections().find(|section| holds(section, start))?;
        let left = section.size() - (start - section.address());
        let code = section.data_range(start, size.min(left)).ok()??;
        Some((section, code))
    }

    /// The functions of the same section that one calls, or jumps on to. Absent where that cannot be read.
    fn callees(&self, function: &'static str) -> Option<HashSet<u64>> {
        let &(start, size) = self.addresses.get(function)?;
        let (section, code) = self.instructions(start, size.min(LONGEST))?;
        let own = start..start.saturating_add(size);
        let mut callees = HashSet::default();
        for instruction in Decoder::with_ip(64, code, start, DecoderOptions::NONE).iter() {
            let leads_on = matches!(instruction.flow_control(), FlowControl::Call | FlowControl::UnconditionalBranch);
            let target = instruction.near_branch_target();
            if leads_on && target != 0 && !own.contains(&target) && holds(&section, target) {
                callees.insert(target);
            }
        }
        Some(callees)
    }
}

/// See [`Code::emulated`].
fn emulated(code: &[u8], address: u64) -> Option<u64> {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let is_comparison = |mnemonic| matches!(mnemonic, Mnemonic::Test | Mnemonic::Cmp);
    let next = decoder.iter().find(|instruction| !is_comparison(instruction.mnemonic()))?;
    let is_branch = matches!(
        next.flow_control(),
        FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch | FlowControl::Call
    );
    (is_branch || next.mnemonic() == Mnemonic::Push).then(|| next.ip())
}

/// Whether a section has this address.
fn holds<'data>(section: &impl ObjectSection<'data>, address: u64) -> bool {
    address.checked_sub(section.address()).is_some_and(|within| within < section.size())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A library of this host, by the start of its name.
    fn library(name: &str) -> Vec<Place> {
        let directories = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
        let mut files =
            directories.iter().filter_map(|directory| std::fs::read_dir(directory).ok()).flatten().flatten();
        let file = files.find(|file| file.file_name().to_string_lossy().starts_with(name));
        let path = file.unwrap_or_else(|| panic!("this test needs the library {name}")).path();
        search(&path).expect("a library can be searched")
    }

    /// Whether calls of this direction are found.
    fn has(places: &[Place], direction: u32) -> bool {
        places.iter().any(|place| matches!(place.role, Role::Call(call) if call.direction == direction))
    }

    /// Whether all that moves data is found, each way once, and what begins and ends a session.
    fn is_complete(places: &[Place]) -> bool {
        let directions = [LibraryCall::HANDSHAKE, LibraryCall::SEND, LibraryCall::RECEIVE];
        directions.into_iter().all(|direction| has(places, direction))
            && places.iter().any(|place| place.role == Role::End)
    }

    #[test]
    fn openssl_of_this_host() {
        let places = library("libssl.so.");
        assert!(is_complete(&places), "{places:#?}");
        assert!(places.iter().all(|place| place.library == Library::OpenSsl));
    }

    /// `SSL_free` begins with a comparison, which would be executed step by step.
    #[test]
    fn the_end_of_a_session_is_probed_at_an_instruction_that_the_kernel_emulates() {
        let code = [
            (&[0x48, 0x85, 0xff, 0x0f, 0x84, 0x97, 0x03, 0x00, 0x00][..], Some(3)), // test rdi, rdi; je
            (&[0x48, 0x83, 0xff, 0x01, 0x55][..], Some(4)),                         // cmp rdi, 1; push rbp
            (&[0x53, 0x48, 0x85, 0xff][..], Some(0)),                               // push rbx
            (&[0x48, 0x89, 0xfb, 0x53][..], None),                                  // mov rbx, rdi; push rbx
            (&[0x31, 0xff, 0x53][..], None),                                        // xor edi, edi; push rbx
            (&[0x48, 0x85, 0xff][..], None),                                        // test rdi, rdi
            (&[][..], None),
        ];
        for (code, place) in code {
            assert_eq!(emulated(code, 0), place, "{code:x?}");
        }
    }

    /// A function whose call would be missed while another's is seen is probed first.
    #[test]
    fn what_receives_is_probed_before_what_sends_and_that_before_what_begins_a_session() {
        for name in ["libssl.so.", "libgnutls.so."] {
            let places = library(name);
            let turns = |direction: u32| {
                let is_it = move |(_, place): &(usize, &Place)| matches!(place.role, Role::Call(call) if call.direction == direction);
                places.iter().enumerate().filter(is_it).map(|(turn, _)| turn).collect::<Vec<_>>()
            };
            let [begins, sends, receives] =
                [LibraryCall::HANDSHAKE, LibraryCall::SEND, LibraryCall::RECEIVE].map(turns);
            assert!(receives.iter().max() < sends.iter().min(), "{places:#?}");
            assert!(sends.iter().max() < begins.iter().min(), "{places:#?}");
            assert!(turns(LibraryCall::FLUSH).iter().max() < sends.iter().min(), "{places:#?}");
        }
    }

    #[test]
    fn records_are_handed_over_by_another_library() {
        let places = library("libcrypto.so.");
        assert_eq!(places.iter().map(|place| place.role).collect::<Vec<_>>(), [Role::Record]);
    }

    #[test]
    fn gnutls_of_this_host() {
        let places = library("libgnutls.so.");
        assert!(is_complete(&places) && has(&places, LibraryCall::FLUSH), "{places:#?}");
        assert!(places.iter().all(|place| place.library == Library::GnuTls));
    }

    #[test]
    fn others_have_none() {
        assert_eq!(library("libc.so."), []);
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
