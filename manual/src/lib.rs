//! Man pages and shell completions, made from the agent's own command line, so that they say what it takes.
//!
//! A package of its own, and no part of the agent: whoever runs that has no use for them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use smtp_observer::cli::Cli;

/// Shells that are told what can be typed.
pub const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Writes `man/*.1` and `completions/*` into a directory, anew.
pub fn write(directory: &Path) -> Result<()> {
    let (pages, completions) = (directory.join("man"), directory.join("completions"));
    for part in [&pages, &completions] {
        if part.exists() {
            fs::remove_dir_all(part).with_context(|| format!("{} cannot be emptied", part.display()))?;
        }
        fs::create_dir_all(part).with_context(|| format!("{} cannot be made", part.display()))?;
    }
    clap_mangen::generate_to(command(), &pages).with_context(|| format!("{} cannot be written", pages.display()))?;
    for page in fs::read_dir(&pages)? {
        let page = page?.path();
        complete(&page).with_context(|| format!("{} cannot be completed", page.display()))?;
    }
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut command(), "smtp-observer", &completions)
            .with_context(|| format!("{} cannot be written", completions.display()))?;
    }
    Ok(())
}

/// The agent's command line. `help` needs no page: each command has one.
pub fn command() -> Command {
    Cli::command().disable_help_subcommand(true)
}

/// What every reader of `commands.md` is told, too.
const COMMANDS: &str = include_str!("../../docs/commands.md");

/// Where packages put the configuration.
const CONFIG: &str = "/etc/smtp-observer/smtp-observer.toml";

/// Pages of commands that observe: only these mind signals, and read a configuration.
const OBSERVING: [&str; 3] = ["run", "trace", "top"];

/// Adds the sections that man-pages(7) has and a command line knows nothing of.
fn complete(page: &Path) -> Result<()> {
    let name = page.file_stem().and_then(|name| name.to_str()).context("a page has no name")?;
    let observes = OBSERVING.iter().any(|command| name == format!("smtp-observer-{command}"));
    let made = fs::read_to_string(page)?;
    // clap's own word for what stands behind the options; of the program it is what a section says at more length.
    let mut text = match made.split_once(".SH EXTRA\n") {
        Some((options, _)) if name == "smtp-observer" => options.to_owned(),
        Some((options, extra)) => format!("{options}.SH NOTES\n{extra}"),
        None => made,
    };
    text += &format!(".SH \"EXIT STATUS\"\n{}", roff(section("Exit status")?));
    if observes {
        text += &format!(".SH SIGNALS\n{}", roff(section("Signals")?));
        text +=
            &format!(".SH FILES\n.TP\n{CONFIG}\nThe configuration of the service, where a package has installed it.\n");
    }
    let others = command();
    let others = others.get_subcommands().filter(|command| !command.is_hide_set());
    let others = others.map(|command| format!("smtp-observer-{}", command.get_name()));
    let others = std::iter::once("smtp-observer".to_owned()).chain(others).filter(|other| other != name);
    let references: Vec<String> = others.map(|other| format!(".BR {} (1)", other.replace('-', "\\-"))).collect();
    text += &format!(".SH \"SEE ALSO\"\n{}\n", references.join(",\n"));
    Ok(fs::write(page, text)?)
}

/// The lines of a section of `commands.md`.
fn section(heading: &str) -> Result<&'static str> {
    let (_, section) = COMMANDS.split_once(&format!("## {heading}\n")).with_context(|| format!("no `{heading}`"))?;
    Ok(section.split_once("\n## ").map_or(section, |(section, _)| section).trim())
}

/// Paragraphs, and tables of a word and what it means.
fn roff(markdown: &str) -> String {
    let mut roff = String::new();
    for line in markdown.lines() {
        match line.strip_prefix("| ").and_then(|row| row.strip_suffix(" |")?.split_once(" | ")) {
            // What the columns are, and the line below it.
            Some((word, _)) if word.starts_with("--") || word == "status" => {}
            Some((word, meaning)) => roff += &format!(".TP\n.B {word}\n{}\n", words(meaning)),
            None if line.is_empty() => roff += ".PP\n",
            None => roff += &format!("{}\n", words(line)),
        }
    }
    roff
}

/// Code is bold, and of a link its words are left.
fn words(text: &str) -> String {
    let mut text = text.replace('\\', "\\e").replace('-', "\\-");
    while let Some((start, (link, (_, rest)))) = text.split_once('[').and_then(|(start, rest)| {
        let (link, target) = rest.split_once("](")?;
        Some((start, (link, target.split_once(')')?)))
    }) {
        text = format!("{start}{link}{rest}");
    }
    let mut parts = text.split('`');
    let mut words = parts.next().unwrap_or_default().to_owned();
    for (index, part) in parts.enumerate() {
        words += if index % 2 == 0 { "\\fB" } else { "\\fR" };
        words += part;
    }
    words
}
