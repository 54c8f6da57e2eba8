//! Options that pick what is shown.

use clap::Args;
use ipnet::IpNet;

use super::parse_network;
use crate::sink::filter::{Filter, LONGEST_NAME, is_shown_verb};

/// What `trace` and `replay` show, of all that is observed. Conditions of several options all have to hold.
#[derive(Clone, Debug, Default, Args)]
pub struct FilterArgs {
    /// Only what concerns these programs: the base names of their executables, such as `smtpd`.
    #[arg(long, value_name = "NAME[,NAME…]", value_delimiter = ',', value_parser = parse_process)]
    process: Vec<String>,

    /// Only what concerns these processes.
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',', value_parser = parse_pid)]
    pid: Vec<u32>,

    /// Only connections with these addresses at their other end, or with an address of these blocks (192.0.2.0/24).
    #[arg(long, value_name = "CIDR[,CIDR…]", value_delimiter = ',', value_parser = parse_network)]
    peer: Vec<IpNet>,

    /// Only exchanges with these verbs, and what is told of them.
    #[arg(long, value_name = "VERB[,VERB…]", value_delimiter = ',', value_parser = parse_verb)]
    verb: Vec<String>,

    /// Only what is out of the ordinary: anomalies, refused commands, RSET and NOOP that need an explanation, mail that
    /// was not delivered, and programs in the middle.
    #[arg(long)]
    only_anomalies: bool,
}

impl From<FilterArgs> for Filter {
    fn from(args: FilterArgs) -> Self {
        let FilterArgs { process: processes, pid: pids, peer: peers, verb: verbs, only_anomalies } = args;
        Self { processes, pids, peers, verbs, only_anomalies }
    }
}

fn parse_process(text: &str) -> Result<String, String> {
    match text.rsplit_once('/') {
        Some((_, "")) => Err("a folder is no program: give the base name of an executable".into()),
        Some((_, name)) => {
            Err(format!("nothing can match: programs are named by their executable's base name: write `{name}`"))
        }
        None if text.is_empty() => Err("a name is missing: give the base name of an executable".into()),
        None if text.len() > LONGEST_NAME => Err(format!(
            "nothing can match: a program's name has at most {LONGEST_NAME} bytes, and this has {}",
            text.len()
        )),
        None => Ok(text.to_owned()),
    }
}

fn parse_pid(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(pid @ 1..) => Ok(pid),
        _ => Err(format!("`{text}` is not the number of a process: it is 1 or more, as `ps` shows it")),
    }
}

fn parse_verb(text: &str) -> Result<String, String> {
    let is_verb = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let verb = text.to_ascii_uppercase();
    match is_verb {
        true if is_shown_verb(&verb) => Ok(verb),
        true => Err(format!("nothing can match: `{text}` is no known verb, and unknown ones are shown as `other`")),
        false => Err(format!("`{text}` is not a verb: write it like `RCPT`, without its argument")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Options {
        #[command(flatten)]
        filter: FilterArgs,
    }

    fn parse(arguments: &[&str]) -> Result<Filter, String> {
        let parsed = Options::try_parse_from(["trace"].iter().chain(arguments));
        parsed.map(|options| options.filter.into()).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_repeated_or_listed() {
        let peers = ["--peer", "192.0.2.1,2001:db8::/32", "--peer", "198.51.100.0/24"];
        let others = ["--process", "smtpd,perl", "--process", "my program", "--pid=1,4711", "--verb", "rset,Noop"];
        let filter = parse(&[&peers[..], &others].concat());
        let expected = Filter {
            processes: vec!["smtpd".into(), "perl".into(), "my program".into()],
            pids: vec![1, 4711],
            peers: ["192.0.2.1/32", "2001:db8::/32", "198.51.100.0/24"]
                .map(|peer| peer.parse().expect("a block"))
                .into(),
            verbs: vec!["RSET".into(), "NOOP".into()],
            only_anomalies: false,
        };
        assert_eq!(filter, Ok(expected));
        assert_eq!(parse(&[]), Ok(Filter::default()));
        assert_eq!(parse(&["--only-anomalies"]), Ok(Filter { only_anomalies: true, ..Filter::default() }));
    }

    #[test]
    fn what_may_match_is_taken() {
        let longest = "x".repeat(255);
        for arguments in [
            ["--process", "nosuch"],
            ["--process", &longest],
            ["--verb", "other"],
            ["--verb", "x-exps"],
            ["--verb", "Xexch50"],
            ["--verb", "get,CONNECT"],
        ] {
            assert!(parse(&arguments).is_ok(), "{arguments:?}");
        }
    }

    #[test]
    fn wrong_values_are_refused_in_a_sentence() {
        for (arguments, words) in [
            (["--process", "/usr/sbin/smtpd"], "write `smtpd`"),
            (["--process", "/usr/sbin/"], "a folder is no program"),
            (["--process", "smtpd,"], "a name is missing"),
            (["--pid", "0"], "`0` is not the number of a process"),
            (["--pid", "smtpd"], "`smtpd` is not the number of a process"),
            (["--pid", "99999999999"], "is not the number of a process"),
            (["--peer", "mx.example"], "`mx.example` is neither an address nor a block of addresses"),
            (["--peer", "192.0.2.0/33"], "is neither an address nor a block of addresses"),
            (["--verb", "RCPT TO"], "`RCPT TO` is not a verb"),
            (["--verb", ""], "`` is not a verb"),
            (["--verb", "FOO"], "nothing can match: `FOO` is no known verb"),
            (["--verb", "rset,rste"], "nothing can match: `rste` is no known verb"),
            (["--verb", "XXXX"], "nothing can match"),
            (["--process", &"x".repeat(256)], "nothing can match: a program's name has at most 255 bytes"),
            (["--process", "smtpd,sbin/nosuch"], "nothing can match: programs"),
        ] {
            let error = parse(&arguments).expect_err("wrong");
            assert!(error.contains(words), "{arguments:?}: {error}");
        }
    }
}
