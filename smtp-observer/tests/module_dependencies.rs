//! ARCHITECTURE.md says which module may use which: it is so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// For each top-level module of the library, and `main`, the other ones that it uses.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// The table of the document: `| module | may use |`, names in backticks.
fn documented() -> Uses {
    rows().collect()
}

/// The rows of the table in their order, a module each.
fn rows() -> impl Iterator<Item = (String, BTreeSet<String>)> {
    let document = include_str!("../../ARCHITECTURE.md");
    let (_, section) = document.split_once("## Which module may use which").expect("the section");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let cells = rows.filter_map(|row| row.trim_matches('|').split_once('|'));
    cells.flat_map(move |(modules, used)| {
        let used: BTreeSet<String> = names(used).into_iter().collect();
        names(modules).into_iter().map(move |module| (module, used.clone()))
    })
}

/// What the code of the library uses, without what is compiled for tests alone.
fn found() -> Uses {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&source, &mut files);
    let mut uses = Uses::new();
    for file in files {
        let place = file.strip_prefix(&source).expect("a file of the library").with_extension("");
        let module = place.iter().next().and_then(|name| name.to_str()).expect("a name");
        if module == "lib" {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source file");
        let crate_name = if module == "main" { "smtp_observer::" } else { "crate::" };
        let used = uses.entry(module.to_owned()).or_default();
        used.extend(code(&text).flat_map(|line| names_behind(line, crate_name)).filter(|used| used != module));
    }
    uses
}

/// Source files in a directory but for those of modules that are compiled for tests alone.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory).expect("a directory of sources");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let tests: BTreeSet<PathBuf> =
        paths.iter().filter(|path| path.is_file()).flat_map(|path| test_modules(path)).collect();
    for path in paths {
        match path.is_dir() {
            true => collect(&path, files),
            false if path.extension().is_some_and(|extension| extension == "rs") => files.push(path),
            false => {}
        }
    }
    files.retain(|file| !tests.iter().any(|test| file.with_extension("").starts_with(test)));
}

/// What stands before modules that are compiled for tests alone.
const TESTS: [&str; 2] = ["#[cfg(test)]", "#[cfg(any(test, feature = \"fuzzing\"))]"];

/// The paths, without extension, of the modules that a file declares for tests alone.
fn test_modules(file: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(file).expect("a source file");
    let is_root = file.file_name().is_some_and(|name| name == "lib.rs");
    let directory = if is_root { file.parent().expect("a directory").to_owned() } else { file.with_extension("") };
    let lines = text.lines().zip(text.lines().skip(1));
    let declared = lines.filter(|(attribute, _)| TESTS.contains(attribute));
    let names = declared.filter_map(|(_, line)| line.strip_suffix(';')?.rsplit_once("mod ").map(|(_, name)| name));
    names.map(|name| directory.join(name)).collect()
}

/// The lines of a file that are code, up to its tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let tests = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..tests].lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// The names of modules that stand behind `crate::` in a line.
fn names_behind<'a>(line: &'a str, crate_name: &'a str) -> impl Iterator<Item = String> + 'a {
    let is_name = |byte: &char| byte.is_ascii_lowercase() || *byte == '_';
    line.split(crate_name).skip(1).map(move |rest| rest.chars().take_while(is_name).collect::<String>())
}

#[test]
fn each_module_uses_what_the_document_lists() {
    let (documented, found) = (documented(), found());
    assert!(found.len() > 10, "{found:?}");
    for module in documented.keys().chain(found.keys()) {
        assert_eq!(found.get(module), documented.get(module), "`{module}`: found, and documented");
    }
}

#[test]
fn each_module_uses_those_above_it() {
    let mut above = BTreeSet::new();
    for (module, used) in rows() {
        let below: Vec<_> = used.difference(&above).collect();
        assert!(below.is_empty(), "`{module}` uses {below:?}, which are not above it");
        above.insert(module);
    }
}

#[test]
fn only_the_kernel_module_knows_aya() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&source, &mut files);
    let knows = |file: &&PathBuf| {
        let text = fs::read_to_string(file).expect("a source file");
        code(&text).any(|line| line.contains("aya::") || line.contains("aya_"))
    };
    for file in files.iter().filter(knows) {
        let place = file.strip_prefix(&source).expect("a file of the library");
        assert!(place.starts_with("kernel") || place == Path::new("kernel.rs"), "{}", place.display());
    }
}
