//! What is made is what its readers take: man's formatter without a warning, and a real bash.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use smtp_observer_manual::{command, write};

fn made() -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    write(folder.path())?;
    Ok(folder)
}

fn pages(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut pages = fs::read_dir(folder.join("man"))?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    pages.sort();
    Ok(pages)
}

fn output(command: &mut Command) -> Result<Output> {
    let program = command.get_program().to_owned();
    let missing = "run `cargo xtask test`, which installs what the tests need";
    command.output().with_context(|| format!("{} cannot be run: {missing}", program.display()))
}

#[test]
fn every_command_has_a_page() -> Result<()> {
    let folder = made()?;
    let mut expected = BTreeSet::from(["smtp-observer.1".to_owned()]);
    // One that is hidden is started by others alone.
    expected.extend(
        command()
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(|command| format!("smtp-observer-{}.1", command.get_name())),
    );
    let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    assert_eq!(pages(folder.path())?.iter().map(name).collect::<BTreeSet<_>>(), expected);
    ensure!(expected.len() > 5, "{expected:?}");
    Ok(())
}

/// As lintian, the checker of Debian's packages, asks man.
#[test]
fn man_shows_every_page_without_a_warning() -> Result<()> {
    let folder = made()?;
    for page in pages(folder.path())? {
        let mut man = Command::new("man");
        man.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"]).arg(&page);
        man.env("LC_ALL", "C.UTF-8").env("MANROFFSEQ", "").env("MANWIDTH", "80");
        let Output { status, stdout, stderr } = output(&mut man)?;
        let warnings = String::from_utf8_lossy(&stderr).into_owned();
        ensure!(status.success() && warnings.is_empty(), "{}: {status}\n{warnings}", page.display());
        ensure!(!stdout.is_empty(), "{} is empty", page.display());
    }
    Ok(())
}

/// What a reader gets to see of a page.
fn text(page: &Path) -> Result<String> {
    let mut man = Command::new("man");
    man.args(["-E", "UTF-8", "-l"]).arg(page);
    man.env("LC_ALL", "C.UTF-8").env("MANWIDTH", "200").env("MANPAGER", "cat").env("MAN_KEEP_FORMATTING", "");
    Ok(String::from_utf8(output(&mut man)?.stdout)?)
}

#[test]
fn a_page_says_what_help_says() -> Result<()> {
    let folder = made()?;
    for subcommand in command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = subcommand.get_name();
        let text = text(&folder.path().join(format!("man/smtp-observer-{name}.1")))?;
        for argument in subcommand.get_arguments().filter(|argument| !argument.is_hide_set()) {
            if let Some(long) = argument.get_long() {
                ensure!(text.contains(&format!("--{long}")), "`--{long}` is not in the page of {name}:\n{text}");
            }
        }
        let about = subcommand.get_about().context("a command says what it is for")?.to_string();
        ensure!(text.contains(&about), "`{about}` is not in:\n{text}");
    }
    let text = text(&folder.path().join("man/smtp-observer.1"))?;
    for words in ["NAME", "SYNOPSIS", "smtp-observer-trace(1)", "EXIT STATUS"] {
        ensure!(text.contains(words), "`{words}` is not in:\n{text}");
    }
    Ok(())
}

/// Sections that man-pages(7) has, in the words of `commands.md`.
#[test]
fn a_page_says_what_the_documentation_says() -> Result<()> {
    let folder = made()?;
    for page in pages(folder.path())? {
        let text = text(&page)?;
        let has = |words: &str| text.contains(words);
        for words in ["EXIT STATUS", "wrong usage; replay: the file is no recording", "SEE ALSO", "smtp-observer"] {
            ensure!(has(words), "`{words}` is not in:\n{text}");
        }
        for (status, means) in [("0", "done; for compare also"), ("3", "this host or this user cannot observe")] {
            let line =
                text.lines().find(|line| line.contains(means)).with_context(|| format!("no {status}:\n{text}"))?;
            ensure!(line.trim_start().starts_with(status), "{line}");
        }
        let name = page.file_stem().and_then(|name| name.to_str()).context("no name")?;
        let observes = matches!(name, "smtp-observer-run" | "smtp-observer-trace" | "smtp-observer-top");
        for words in
            ["SIGNALS", "makes run open the events file (events.md) and read", "/etc/smtp-observer/smtp-observer.toml"]
        {
            assert_eq!(has(words), observes, "`{words}`:\n{text}");
        }
        ensure!(!has("EXTRA") && !has("]("), "{text}");
    }
    Ok(())
}

/// What a real bash offers behind these words, of which the last is not yet whole.
fn completed(folder: &Path, words: &[&str]) -> Result<Vec<String>> {
    // The function is asked as bash asks it when somebody presses Tab.
    let script = r#"
        source "$1" && shift
        function=$(complete -p smtp-observer | sed 's/.* -F \([^ ]*\) .*/\1/')
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*"
        COMP_POINT=${#COMP_LINE}
        "$function" smtp-observer "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "--noprofile", "-c", script, "bash"]);
    bash.arg(folder.join("completions/smtp-observer.bash")).args(words).current_dir(folder);
    let Output { status, stdout, stderr } = output(&mut bash)?;
    let complaints = String::from_utf8_lossy(&stderr).into_owned();
    ensure!(status.success() && complaints.is_empty(), "{words:?}: {status}\n{complaints}");
    Ok(String::from_utf8(stdout)?.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

#[test]
fn bash_completes() -> Result<()> {
    let folder = made()?;
    for (words, expected) in [
        (&["smtp-observer", "tr"][..], &["trace"][..]),
        (&["smtp-observer", "trace", "--only"], &["--only-anomalies"]),
        (&["smtp-observer", "run", "--hooks", ""], &["auto", "fentry", "tracepoint"]),
        (&["smtp-observer", "replay", "--addresses", "d"], &["domain"]),
        (&["smtp-observer", "check", "--ev"], &[]),
    ] {
        let mut offered = completed(folder.path(), words)?;
        offered.sort();
        assert_eq!(offered, expected, "{words:?}");
    }
    // A file, where one is wanted.
    ensure!(completed(folder.path(), &["smtp-observer", "run", "--events", "comp"])?.contains(&"completions".into()));
    Ok(())
}

#[test]
fn other_shells_are_told_too() -> Result<()> {
    let folder = made()?;
    let read = |name: &str| fs::read_to_string(folder.path().join("completions").join(name)).context(name.to_owned());
    ensure!(read("_smtp-observer")?.starts_with("#compdef smtp-observer"));
    ensure!(read("smtp-observer.fish")?.contains("complete -c smtp-observer"));
    Ok(())
}
