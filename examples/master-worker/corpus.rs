//! The work: text files, cut into pieces, and the counting of their words.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};

/// A part of a file, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Piece {
    /// Name below the root, with `/` between its parts.
    pub file: String,
    /// First byte.
    pub from: u64,
    /// Behind the last byte.
    pub to: u64,
}

impl Piece {
    fn len(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }
}

/// Longest piece. Keeps a result (each word and its count) well below the 1 MiB that a node may hold.
pub const PIECE_BYTES_MAX: u64 = 64 * 1024;
/// Longer files are left out.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// More files are left out.
const FILES_MAX: usize = 1000;
const EXTENSIONS: [&str; 4] = ["md", "rs", "toml", "txt"];
/// What there is to count where no files are: the example itself.
const BUILT_IN: [(&str, &str); 3] = [
    ("built-in/master.rs", include_str!("master.rs")),
    ("built-in/worker.rs", include_str!("worker.rs")),
    ("built-in/client.rs", include_str!("client.rs")),
];

/// Text files below a directory, or the built-in text.
#[derive(Debug, Clone)]
pub struct Corpus {
    root: Option<PathBuf>,
    files: Vec<String>,
}

impl Corpus {
    /// The text files below `root`: without one, of the workspace under `cargo run`, of the current directory
    /// otherwise. If there are none, a built-in text.
    ///
    /// Hidden directories, `target` and symbolic links are passed over.
    pub fn open(root: Option<&Path>) -> Result<Corpus> {
        let root = root.map(Path::to_owned).or_else(workspace).unwrap_or_else(|| PathBuf::from("."));
        let mut files = Vec::new();
        find(&root, "", &mut files)?;
        if files.is_empty() {
            let files = BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
            return Ok(Corpus { root: None, files });
        }
        Ok(Corpus { root: Some(root), files })
    }

    /// Where the files are, for people.
    pub fn describe(&self) -> String {
        match &self.root {
            Some(root) => format!("{} files below {}", self.files.len(), root.display()),
            None => "the built-in text".to_owned(),
        }
    }

    /// Cuts the files into pieces of at most [`PIECE_BYTES_MAX`], never within a word. If a number of tasks is
    /// wanted, the largest pieces are cut further or every so-many-th piece is taken.
    pub fn pieces(&self, wanted: Option<usize>) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        for file in &self.files {
            let text = self.read_file(file)?;
            let mut from = 0;
            while from < text.len() {
                let to = word_end(&text, from + PIECE_BYTES_MAX as usize);
                pieces.push(Piece { file: file.clone(), from: from as u64, to: to as u64 });
                from = to;
            }
        }
        let Some(wanted) = wanted else { return Ok(pieces) };
        if pieces.len() > wanted {
            let every = pieces.len();
            return Ok((0..wanted).map(|n| pieces[n * every / wanted].clone()).collect());
        }
        while pieces.len() < wanted {
            let Some(at) = (0..pieces.len()).max_by_key(|&at| pieces[at].len()) else { break };
            let text = self.read(&pieces[at])?;
            let half = word_end(&text, text.len() / 2);
            if half == 0 || half == text.len() {
                break;
            }
            let middle = pieces[at].from + half as u64;
            let rest = Piece { from: middle, ..pieces[at].clone() };
            pieces[at].to = middle;
            pieces.insert(at + 1, rest);
        }
        Ok(pieces)
    }

    /// Reads a piece. The name may come from anybody who can write to ZooKeeper, so it must be the path of a
    /// text file below the root, and the length is limited.
    pub fn read(&self, piece: &Piece) -> Result<Vec<u8>> {
        // The end of a word may lie a little behind the limit.
        let bytes = piece.len().min(2 * PIECE_BYTES_MAX);
        let Some(root) = &self.root else {
            let text = built_in(&piece.file)?;
            let from = usize::try_from(piece.from).unwrap_or(usize::MAX).min(text.len());
            let to = from.saturating_add(bytes as usize).min(text.len());
            return Ok(text[from..to].to_vec());
        };
        let path = root.join(harmless(&piece.file)?);
        let read = || {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(piece.from))?;
            let mut text = Vec::new();
            file.take(bytes).read_to_end(&mut text)?;
            Ok(text)
        };
        read().map_err(|source| Error::File { path: path.clone(), source })
    }

    fn read_file(&self, file: &str) -> Result<Vec<u8>> {
        match &self.root {
            None => built_in(file).map(<[u8]>::to_vec),
            Some(root) => {
                let path = root.join(file);
                fs::read(&path).map_err(|source| Error::File { path, source })
            }
        }
    }

    /// Counts without tasks, without ZooKeeper, and in another way than [`count`]: what the system's result
    /// must be equal to. Pieces that touch are counted as one text, so a word that a cut tore apart shows.
    pub fn count_directly(&self, pieces: &[Piece]) -> Result<BTreeMap<String, u64>> {
        let mut sorted = pieces.to_vec();
        sorted.sort();
        let mut texts: Vec<(String, u64, Vec<u8>)> = Vec::new();
        for piece in sorted {
            let text = self.read(&piece)?;
            match texts.last_mut() {
                Some((file, end, before)) if *file == piece.file && *end == piece.from => {
                    *end = piece.to;
                    before.extend(text);
                }
                _ => texts.push((piece.file, piece.to, text)),
            }
        }
        let mut counts = BTreeMap::new();
        for (_, _, text) in texts {
            let mut word = String::new();
            for letter in String::from_utf8_lossy(&text).chars().chain([' ']) {
                if letter.is_alphanumeric() {
                    word.extend(letter.to_lowercase());
                } else if !word.is_empty() {
                    *counts.entry(std::mem::take(&mut word)).or_default() += 1;
                }
            }
        }
        Ok(counts)
    }
}

/// Counts the words of a text: each run of letters and digits, in lower case.
pub fn count(text: &[u8]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let text = String::from_utf8_lossy(text);
    for word in text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()) {
        *counts.entry(word.chars().flat_map(char::to_lowercase).collect()).or_default() += 1;
    }
    counts
}

/// The workspace that `cargo run` builds.
fn workspace() -> Option<PathBuf> {
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR")?);
    package.parent().filter(|root| root.join("Cargo.toml").is_file()).map(Path::to_owned)
}

/// Finds text files in the order of their names. Directories below the first that cannot be read are passed over.
fn find(dir: &Path, prefix: &str, files: &mut Vec<String>) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(source) if prefix.is_empty() => return Err(Error::File { path: dir.to_owned(), source }),
        Err(_) => return Ok(()),
    };
    let mut entries: Vec<_> = entries.filter_map(std::result::Result::ok).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (Ok(name), Ok(kind)) = (entry.file_name().into_string(), entry.file_type()) else { continue };
        if kind.is_dir() && files.len() < FILES_MAX && !name.starts_with('.') && name != "target" {
            find(&entry.path(), &format!("{prefix}{name}/"), files)?;
        } else if kind.is_file() && is_text(Path::new(&name)) {
            let fits = entry.metadata().is_ok_and(|meta| meta.len() <= FILE_BYTES_MAX);
            if fits && files.len() < FILES_MAX {
                files.push(format!("{prefix}{name}"));
            }
        }
    }
    Ok(())
}

fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known))
}

/// A path that stays below the root.
fn harmless(file: &str) -> Result<&Path> {
    let path = Path::new(file);
    let stays = path.components().all(|part| matches!(part, Component::Normal(_)));
    match stays && is_text(path) {
        true => Ok(path),
        false => {
            let source = std::io::Error::new(std::io::ErrorKind::PermissionDenied, "not a text file of ours");
            Err(Error::File { path: path.to_owned(), source })
        }
    }
}

fn built_in(file: &str) -> Result<&'static [u8]> {
    let text = BUILT_IN.iter().find(|(name, _)| *name == file);
    text.map(|(_, text)| text.as_bytes())
        .ok_or_else(|| Error::File { path: file.into(), source: std::io::ErrorKind::NotFound.into() })
}

/// The first place at or behind `at` where the text can be cut: ASCII space is never part of a word, nor of a
/// character of several bytes.
fn word_end(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    match rest.iter().position(u8::is_ascii_whitespace) {
        Some(space) => at + space,
        None => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus() -> Corpus {
        Corpus { root: None, files: BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect() }
    }

    #[test]
    fn pieces_together_are_the_whole() {
        let corpus = corpus();
        let whole = corpus.count_directly(&corpus.pieces(None).unwrap()).unwrap();
        for tasks in [3, 7, 50] {
            let pieces = corpus.pieces(Some(tasks)).unwrap();
            assert_eq!(pieces.len(), tasks);
            let mut sum = BTreeMap::new();
            for piece in &pieces {
                for (word, n) in count(&corpus.read(piece).unwrap()) {
                    *sum.entry(word).or_default() += n;
                }
            }
            assert_eq!(sum, whole);
            assert_eq!(corpus.count_directly(&pieces).unwrap(), whole);
        }
        assert_eq!(corpus.pieces(Some(2)).unwrap().len(), 2);
    }

    #[test]
    fn names_from_outside_stay_below_the_root() {
        for bad in ["/etc/motd.txt", "../secret.md", "a/../../b.md", "a/passwd", ""] {
            assert!(harmless(bad).is_err(), "{bad}");
        }
        assert!(harmless("zk-server/src/lib.rs").is_ok());
    }
}
