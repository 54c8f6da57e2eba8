//! Which script an interpreter runs, as far as its arguments show: people know the script, and all scripts of one interpreter
//! have one executable.

use smtp_ebpf::event::ARGUMENTS_LENGTH;

/// How an interpreter reads its own options, which stand before the script.
struct Syntax {
    /// Letters of options whose value is code: there is no script.
    code: &'static str,
    /// Letters of options whose value is the rest of the word, or the next one.
    value: &'static str,
    /// Letters of options whose value can only be the rest of the word.
    attached: &'static str,
    /// Long options whose value is the next word, unless it follows `=`.
    long_value: &'static [&'static str],
    /// Letters of options whose value, likewise, is the script.
    script: &'static str,
    /// Options of more than a letter whose value is the script.
    long_script: &'static [&'static str],
    /// Long options that mean that there is no script.
    long_code: &'static [&'static str],
}

/// No option has a value.
const NONE: Syntax =
    Syntax { code: "", value: "", attached: "", long_value: &[], script: "", long_script: &[], long_code: &[] };

const PYTHON: Syntax =
    Syntax { code: "c", value: "WXQ", long_value: &["--check-hash-based-pycs"], script: "m", ..NONE };
const PERL: Syntax = Syntax { code: "eE", value: "I", attached: "CDFMVidmx", ..NONE };
const RUBY: Syntax = Syntax { code: "e", value: "CEIrX", attached: "FKTWix", ..NONE };
const NODE: Syntax = Syntax {
    code: "ep",
    value: "rC",
    long_value: &[
        "--require",
        "--import",
        "--loader",
        "--experimental-loader",
        "--conditions",
        "--env-file",
        "--title",
    ],
    long_code: &["--eval", "--print", "--interactive"],
    ..NONE
};
const PHP: Syntax = Syntax {
    code: "rBRE",
    value: "cdgtzS",
    long_value: &["--define", "--php-ini", "--zend-extension"],
    script: "fF",
    long_script: &["--file", "--process-file"],
    long_code: &["--run", "--process-code"],
    ..NONE
};
const SHELL: Syntax = Syntax { code: "cs", value: "oO", long_value: &["--rcfile", "--init-file"], ..NONE };
/// Java's options are words behind one dash, and it runs a class unless a jar is named.
const JAVA: Syntax = Syntax {
    attached: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    long_value: &[
        "-cp",
        "-classpath",
        "--class-path",
        "-p",
        "--module-path",
        "--upgrade-module-path",
        "--add-modules",
        "--add-exports",
        "--add-opens",
        "--add-reads",
        "--patch-module",
        "--limit-modules",
        "--source",
    ],
    long_script: &["-jar", "-m", "--module"],
    ..NONE
};
const EXPECT: Syntax = Syntax { code: "c", value: "D", script: "fb", ..NONE };
/// Nothing but the script is sure to be understood.
const OTHER: Syntax = Syntax {
    code: "ec",
    attached: "abdfghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    long_code: &["--eval"],
    ..NONE
};

/// Names of interpreters, without the version behind them.
const INTERPRETERS: [(&Syntax, &[&str]); 9] = [
    (&PYTHON, &["python", "pypy"]),
    (&PERL, &["perl"]),
    (&RUBY, &["ruby", "truffleruby"]),
    (&NODE, &["node", "nodejs"]),
    (&PHP, &["php", "php-cli"]),
    (&SHELL, &["sh", "bash", "dash", "ash", "ksh", "mksh", "yash", "zsh"]),
    (&JAVA, &["java"]),
    (&EXPECT, &["expect"]),
    (&OTHER, &["lua", "luajit", "tclsh", "Rscript", "guile", "escript"]),
];

/// The script, module, jar or class that a process runs, if its executable is an interpreter and its arguments show it.
pub fn script<'a>(executable: &str, arguments: &'a [String]) -> Option<&'a str> {
    let syntax = syntax(executable)?;
    let mut words = arguments.iter().map(String::as_str).enumerate().skip(1);
    // The last word of an argument vector that is longer than what was captured may be a part of one.
    let captured = arguments.iter().map(|argument| argument.len() + 1).sum::<usize>();
    let cut = (captured >= ARGUMENTS_LENGTH).then(|| arguments.len() - 1);
    let whole = |(place, word): (usize, &'a str)| (is_name(word) && cut != Some(place)).then_some(word);
    while let Some((place, word)) = words.next() {
        if syntax.long_script.contains(&word) {
            return whole(words.next()?);
        }
        match word.strip_prefix('-') {
            // What is read from standard input has no name.
            Some("") => return None,
            Some("-") => return whole(words.next()?),
            None => return whole((place, word)),
            Some(_) if syntax.long_value.contains(&word) => drop(words.next()),
            Some(long) if long.starts_with('-') => {
                let name = word.split_once('=').map_or(word, |(name, _)| name);
                if syntax.long_code.contains(&name) {
                    return None;
                }
                if let Some((_, script)) = word.split_once('=')
                    && syntax.long_script.contains(&name)
                {
                    return whole((place, script));
                }
            }
            Some(letters) => match cluster(syntax, letters) {
                Cluster::Options => {}
                Cluster::Value => drop(words.next()),
                Cluster::Script("") => return whole(words.next()?),
                Cluster::Script(script) => return whole((place, script)),
                Cluster::Code => return None,
            },
        }
    }
    None
}

/// Whether a word can be trusted to be a name: another may be code, behind an option that is not known.
fn is_name(word: &str) -> bool {
    let is_of_code = |sign: char| sign.is_whitespace() || sign.is_control() || "'\"`".contains(sign);
    !word.is_empty() && !word.contains(is_of_code)
}

/// What letters behind one dash are.
enum Cluster<'a> {
    /// Options without values, or with theirs.
    Options,
    /// The next word is the value of the last of them.
    Value,
    /// The last of them names the script: here, or with the next word.
    Script(&'a str),
    /// One of them says that there is no script.
    Code,
}

fn cluster<'a>(syntax: &Syntax, letters: &'a str) -> Cluster<'a> {
    for (at, letter) in letters.char_indices() {
        let rest = &letters[at + letter.len_utf8()..];
        match letter {
            _ if syntax.script.contains(letter) => return Cluster::Script(rest),
            _ if syntax.code.contains(letter) => return Cluster::Code,
            _ if syntax.value.contains(letter) && rest.is_empty() => return Cluster::Value,
            _ if syntax.value.contains(letter) || syntax.attached.contains(letter) => return Cluster::Options,
            _ => {}
        }
    }
    Cluster::Options
}

/// How the interpreter that this is reads its options.
fn syntax(executable: &str) -> Option<&'static Syntax> {
    let name = executable.rsplit('/').next()?;
    // `python3.11-dbg`, `perl5.36-x86_64-linux-gnu`, `php8.2`.
    let name = name.split(|letter: char| letter.is_ascii_digit()).next()?;
    INTERPRETERS.iter().find(|(_, names)| names.contains(&name)).map(|(syntax, _)| *syntax)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(executable: &str, line: &str, expected: Option<&str>) {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        assert_eq!(script(executable, &arguments), expected, "{line}");
    }

    #[test]
    fn an_interpreter_is_known_by_its_script() {
        check("/usr/bin/python3.11", "python3 /opt/smtpd.py --port 25", Some("/opt/smtpd.py"));
        check("/usr/bin/python3.11", "python3 -u -W ignore -Xdev smtpd.py", Some("smtpd.py"));
        check("/usr/bin/python3.11", "/usr/bin/python3 -Im aiosmtpd -n", Some("aiosmtpd"));
        check("/usr/bin/pypy3", "pypy3 -m smtpd", Some("smtpd"));
        check("/usr/bin/perl", "/usr/bin/perl -w /usr/bin/swaks --to bob", Some("/usr/bin/swaks"));
        check("/usr/bin/perl5.36-x86_64-linux-gnu", "perl swaks", Some("swaks"));
        check("/usr/bin/perl5.36.0", "perl -I lib -Mstrict -T relay.pl", Some("relay.pl"));
        check("/usr/bin/ruby3.1", "ruby -r net/smtp -Ilib mailer.rb", Some("mailer.rb"));
        check("/usr/bin/node", "node --require ./a.js --max-old-space-size=99 haraka.js", Some("haraka.js"));
        check("/usr/bin/php8.2", "php -d memory_limit=1G -f send.php -- x", Some("send.php"));
        check("/usr/bin/php8.2", "php --file=send.php", Some("send.php"));
        check("/usr/bin/dash", "sh -e /etc/cron.daily/mail", Some("/etc/cron.daily/mail"));
        check("/usr/bin/bash", "bash -o pipefail --rcfile x ./send.sh", Some("./send.sh"));
        check("/usr/lib/jvm/17/bin/java", "java -Xmx1g -cp a.jar:b.jar -jar /opt/james.jar", Some("/opt/james.jar"));
        check("/usr/lib/jvm/17/bin/java", "java -Dx=y -cp a.jar org.example.Relay 25", Some("org.example.Relay"));
        check("/usr/bin/tclsh8.6", "tclsh8.6 mail.tcl", Some("mail.tcl"));
        check("/usr/bin/expect", "expect -D 1 -nf login.exp bob", Some("login.exp"));
        check("/usr/bin/lua5.4", "lua -lcjson mail.lua", Some("mail.lua"));
    }

    #[test]
    fn code_and_standard_input_have_no_name() {
        check("/usr/bin/python3.11", "python3 -c import smtplib", None);
        check("/usr/bin/python3.11", "python3 -uc pass script.py", None);
        check("/usr/bin/python3.11", "python3 - a", None);
        check("/usr/bin/python3.11", "python3", None);
        check("/usr/bin/perl", "perl -MNet::SMTP -we print x", None);
        check("/usr/bin/perl", "perl -0777lne print x", None);
        check("/usr/bin/ruby3.1", "ruby -e puts", None);
        check("/usr/bin/node", "node --eval=1 a.js", None);
        check("/usr/bin/node", "node -p 1", None);
        check("/usr/bin/php8.2", "php -r echo", None);
        check("/usr/bin/bash", "bash -lc exec", None);
        check("/usr/bin/bash", "-bash", None);
        check("/usr/bin/expect", "expect -c hunter2", None);
        check("/usr/bin/expect", "expect -dc hunter2 login.exp", None);
        check("/usr/bin/guile-3.0", "guile -c hunter2", None);
        check("/usr/bin/lua5.4", "lua -e hunter2", None);
    }

    #[test]
    fn what_looks_like_code_is_no_name() {
        for code in ["send hunter2", "send\thunter2", "send\"hunter2\"", "send'hunter2'", "`hunter2`", "hunter2\u{1b}"]
        {
            let arguments = ["tclsh", code].map(str::to_owned);
            assert_eq!(script("/usr/bin/tclsh", &arguments), None, "{code}");
        }
    }

    #[test]
    fn another_program_has_no_script() {
        check("/usr/lib/postfix/sbin/smtpd", "smtpd -n smtp", None);
        check("/usr/sbin/exim4", "exim4 script.py", None);
    }

    #[test]
    fn a_name_that_may_be_cut_is_none() {
        let long = "x".repeat(ARGUMENTS_LENGTH - "python3".len() - 2);
        let arguments = ["python3".to_owned(), long];
        assert_eq!(script("/usr/bin/python3", &arguments), None);
        let whole = ["python3".to_owned(), "a.py".to_owned(), "x".repeat(ARGUMENTS_LENGTH)];
        assert_eq!(script("/usr/bin/python3", &whole), Some("a.py"));
    }
}
