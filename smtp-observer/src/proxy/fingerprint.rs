//! What the texts of one connection say by themselves: of a program in the middle that may be anywhere on the way.

use foldhash::HashMap;

use crate::analysis;
use crate::fact::Evidence;
use crate::fact::{Fact, What};
use crate::identity::Role;
use crate::names::EvidenceKind;
use crate::redact::RedactionPolicy;
use crate::smtp::{Exchange, Reply, Verb};

/// The texts of all clients' connections, by cookie: what was read that matters later.
#[derive(Default)]
pub struct Fingerprints {
    read: HashMap<u64, Wording>,
    signs: HashMap<u64, Vec<BannerMismatch>>,
}

impl Fingerprints {
    /// Reads what was said; a sign that is new.
    pub fn read(&mut self, fact: &Fact<'_>, policy: RedactionPolicy) -> Option<BannerMismatch> {
        if fact.connection.role == Role::Server || !is_telling(fact.what) {
            return None;
        }
        let cookie = fact.connection.cookie;
        let mut wording = self.read.get(&cookie).copied().unwrap_or_default();
        let before = wording;
        let sign = wording.read(fact.what, policy);
        if wording != before {
            self.read.insert(cookie, wording);
        }
        let sign = sign?;
        let known = self.signs.entry(cookie).or_default();
        if known.iter().any(|known| known.evidence.kind == sign.evidence.kind) {
            return None;
        }
        known.push(sign.clone());
        Some(sign)
    }

    /// The connection is over: nothing more is read of it.
    pub fn close(&mut self, cookie: u64) {
        self.read.remove(&cookie);
    }

    /// Nothing is to be told of the connection any more.
    pub fn forget(&mut self, cookie: u64) {
        self.read.remove(&cookie);
        self.signs.remove(&cookie);
    }

    /// The signs that were found on a connection.
    pub fn signs(&self, cookie: u64) -> &[BannerMismatch] {
        self.signs.get(&cookie).map(Vec::as_slice).unwrap_or_default()
    }
}

/// What has been read of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wording {
    /// The server that the greeting names, of those that are [`KNOWN`].
    greets: Option<u8>,
    /// EHLO was answered with this.
    offers_tls: bool,
    offers_chunks: bool,
}

/// Texts that do not fit together, and the product that is known to speak like that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BannerMismatch {
    /// What does not fit.
    pub evidence: Evidence,
    /// A program in the middle with these words.
    pub product: Option<&'static str>,
}

/// Who answers DATA like this: texts, with or without an enhanced status code before them, and all servers that use
/// them; those in the second list are no servers.
const GO_AHEADS: &[(&str, &[&str], &[&str])] = &[
    ("End data with <CR><LF>.<CR><LF>", &["Postfix", "aiosmtpd"], &[]),
    ("Enter message, ending with \".\" on a line by itself", &["Exim"], &[]),
    ("Enter mail, end with \".\" on a line by itself", &["Sendmail", "OpenSMTPD"], &[]),
    ("go ahead, make my day", &["Haraka"], &[]),
    ("You suddenly realize it is unnaturally quiet", &["chasquid"], &[]),
    ("Start mail input; end with <CRLF>.<CRLF>", &["Microsoft Exchange", "Stalwart"], &["proxsmtp or clamsmtp"]),
    ("start mail input -- end with <CRLF>.<CRLF>", &["E-MailRelay"], &[]),
    ("Please start mail input.", &[], &["Norton AntiVirus"]),
];

/// Servers whose every go-ahead is in the list above; of others a text that is not there says nothing.
const KNOWN: &[&str] = &["Postfix", "Exim", "Sendmail", "OpenSMTPD", "Haraka", "chasquid", "Stalwart", "E-MailRelay"];

/// What greets like this is no server.
const PRODUCTS: &[&str] = &["avast", "AVG", "F-Secure", "BitDefender", "G DATA", "proxsmtp", "Cisco ASA"];

impl Wording {
    /// Reads what was said; a sign, if that is one.
    fn read(&mut self, what: What<'_>, policy: RedactionPolicy) -> Option<BannerMismatch> {
        match what {
            What::Greeting { reply, .. } => {
                let software = analysis::software(reply)?;
                self.greets = KNOWN.iter().position(|known| *known == software).map(|place| place as u8);
                let product = PRODUCTS.iter().copied().find(|product| software == *product)?;
                let detail = format!("the greeting is {product}'s: {}", first_line(reply, policy));
                Some(sign(EvidenceKind::WordingMismatch, detail, Some(product)))
            }
            What::Command(Exchange { command, reply: Some(reply) }) => match (command.verb, reply.code) {
                (Verb::Ehlo | Verb::Lhlo, 250) => self.offers(reply),
                (Verb::Data, 354) => self.go_ahead(reply, policy),
                (Verb::StartTls, 500..=502) if self.offers_tls => Some(refused("STARTTLS", "STARTTLS", reply, policy)),
                (Verb::Bdat, 500..=502) if self.offers_chunks => Some(refused("BDAT", "CHUNKING", reply, policy)),
                _ => None,
            },
            _ => None,
        }
    }

    fn offers(&mut self, reply: &Reply) -> Option<BannerMismatch> {
        let words = || {
            let lines = reply.text.split(|&byte| byte == b'\n').skip(1);
            lines.filter_map(|line| line.split(|byte| matches!(byte, b' ' | b'=')).next())
        };
        let offers = |keyword: &[u8]| words().any(|word| word.eq_ignore_ascii_case(keyword));
        (self.offers_tls, self.offers_chunks) = (offers(b"STARTTLS"), offers(b"CHUNKING"));
        // A Cisco ASA writes its X over what it does not know, one to a letter, and A at the end.
        let is_masked = |word: &[u8]| {
            let end = word.iter().rposition(|&byte| byte != b'A').map_or(0, |last| last + 1);
            word.len() >= 4 && word[..end].iter().all(|&byte| byte == b'X')
        };
        words().find(|word| is_masked(word)).map(|word| {
            let detail = format!("an extension is masked: {}", word.escape_ascii());
            sign(EvidenceKind::WordingMismatch, detail, Some("Cisco ASA"))
        })
    }

    fn go_ahead(&self, reply: &Reply, policy: RedactionPolicy) -> Option<BannerMismatch> {
        let text = reply.text.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let (_, servers, products) = GO_AHEADS
            .iter()
            .find(|(known, ..)| text.ends_with(known.as_bytes()) && text.len() <= known.len() + LONGEST_CODE)?;
        let product = products.first().copied();
        let greets = self.greets.and_then(|place| KNOWN.get(usize::from(place)));
        let text = || first_line(reply, policy);
        let detail = match (servers.is_empty(), greets) {
            (true, _) => format!("no server is known to answer DATA with \"{}\"", text()),
            (false, Some(greets)) if !servers.contains(greets) => {
                format!("the greeting is {greets}'s, but \"{}\" is not", text())
            }
            _ => return None,
        };
        Some(sign(EvidenceKind::WordingMismatch, detail, product))
    }
}

/// What may be a sign, or of use to find one.
fn is_telling(what: What<'_>) -> bool {
    match what {
        What::Greeting { .. } => true,
        What::Command(Exchange { command, .. }) => {
            matches!(command.verb, Verb::Ehlo | Verb::Lhlo | Verb::Data | Verb::StartTls | Verb::Bdat)
        }
        _ => false,
    }
}

/// An enhanced status code and a blank (RFC 3463).
const LONGEST_CODE: usize = "2.255.255 ".len();

fn refused(verb: &str, extension: &str, reply: &Reply, policy: RedactionPolicy) -> BannerMismatch {
    let (code, text) = (reply.code, first_line(reply, policy));
    let detail = format!("{extension} was offered, {verb} was answered \"{code} {text}\"");
    sign(EvidenceKind::OfferedExtensionRefused, detail, None)
}

fn sign(kind: EvidenceKind, detail: String, product: Option<&'static str>) -> BannerMismatch {
    BannerMismatch { evidence: Evidence { kind, detail }, product }
}

/// The first line of a reply, as it is shown.
fn first_line(reply: &Reply, policy: RedactionPolicy) -> String {
    let text = policy.reply(reply).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::samples::{command, greeting};
    use crate::redact::Addresses;

    /// The greeting of this software.
    fn greets(software: Option<&'static str>) -> What<'static> {
        let what = greeting(&format!("mx.example {}", software.map_or("ready", greeting_of)));
        let What::Greeting { reply, .. } = what else { panic!("{what:?}") };
        assert_eq!(analysis::software(reply), software);
        what
    }

    /// Words by which it is known.
    fn greeting_of(software: &'static str) -> &'static str {
        match software {
            "Postfix" => "ESMTP Postfix",
            "Sendmail" => "ESMTP Sendmail 8.17",
            "Microsoft Exchange" => "Microsoft ESMTP MAIL Service ready",
            "Stalwart" => "Stalwart ESMTP",
            "Gmail" => "ESMTP 1-2.3 - gsmtp",
            "Dovecot" => "Dovecot ready.",
            "Exim" => "ESMTP Exim 4.96",
            "avast" => "avast! SMTP proxy",
            other => panic!("{other}"),
        }
    }

    /// The signs of a conversation.
    fn signs(facts: &[What<'static>]) -> Vec<(EvidenceKind, Option<&'static str>)> {
        let mut wording = Wording::default();
        let policy = RedactionPolicy::new(Addresses::Domain);
        let signs = facts.iter().filter_map(|what| wording.read(*what, policy));
        signs.map(|sign| (sign.evidence.kind, sign.product)).collect()
    }

    const POSTFIX: &str = "End data with <CR><LF>.<CR><LF>";
    const PROXSMTP: &str = "Start mail input; end with <CRLF>.<CRLF>";

    #[test]
    fn a_server_that_keeps_its_words_is_none() {
        for (software, text) in [
            (Some("Postfix"), POSTFIX),
            (Some("Sendmail"), "2.0.0 Enter mail, end with \".\" on a line by itself"),
            (Some("Microsoft Exchange"), PROXSMTP),
            (Some("Stalwart"), PROXSMTP),
            (Some("Gmail"), " Go ahead 1-2.3 - gsmtp"),
            (Some("Postfix"), "Go for it"),
            (Some("Dovecot"), POSTFIX),
            (None, POSTFIX),
            (None, PROXSMTP),
        ] {
            assert_eq!(signs(&[greets(software), command("DATA", 354, text)]), [], "{software:?} {text}");
        }
        let refused = [command("EHLO", 250, "mx\nPIPELINING"), command("STARTTLS", 502, "no")];
        assert_eq!(signs(&refused), [], "it was not offered");
    }

    #[test]
    fn words_of_another() {
        use EvidenceKind::{OfferedExtensionRefused, WordingMismatch};
        let norton = [greets(Some("Postfix")), command("DATA", 354, "Please start mail input.")];
        assert_eq!(signs(&norton), [(WordingMismatch, Some("Norton AntiVirus"))]);
        let norton = [greets(None), command("DATA", 354, "Please start mail input.")];
        assert_eq!(signs(&norton), [(WordingMismatch, Some("Norton AntiVirus"))]);
        let proxsmtp = [greets(Some("Postfix")), command("DATA", 354, PROXSMTP)];
        assert_eq!(signs(&proxsmtp), [(WordingMismatch, Some("proxsmtp or clamsmtp"))]);
        let other = [greets(Some("Exim")), command("DATA", 354, POSTFIX)];
        assert_eq!(signs(&other), [(WordingMismatch, None)]);
        assert_eq!(signs(&[greets(Some("avast"))]), [(WordingMismatch, Some("avast"))]);
        let cisco = [command("EHLO", 250, "mx\nSIZE 9\nXXXXXXXA")];
        assert_eq!(signs(&cisco), [(WordingMismatch, Some("Cisco ASA"))]);
        let stripped =
            [command("EHLO", 250, "mx\nSTARTTLS\nCHUNKING"), command("STARTTLS", 500, "Unsupported command.")];
        assert_eq!(signs(&stripped), [(OfferedExtensionRefused, None)]);
    }
}
