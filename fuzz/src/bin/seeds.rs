//! Writes what fuzzing begins with into a directory: every transcript, for two targets, and a record of each kind.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use smtp_observer_tests::transcript::Transcript;

/// Longer than any record without its variable parts, in words.
const RECORD: u8 = 64;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: seeds DIRECTORY");
        return ExitCode::from(2);
    };
    match write(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("seeds: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let (dialogues, records) = ([directory.join("dialogue"), directory.join("filter")], directory.join("records"));
    for dialogues in &dialogues {
        fs::create_dir_all(dialogues)?;
        for transcript in Transcript::all()? {
            fs::write(dialogues.join(&transcript.name), transcript.packed())?;
        }
    }
    fs::create_dir_all(&records)?;
    for kind in 0..=5 {
        let mut record = vec![0; 1 + 4 * usize::from(RECORD)];
        record[0] = RECORD;
        record[1] = kind;
        fs::write(records.join(format!("kind-{kind}")), record)?;
    }
    Ok(())
}
