//! Where a member keeps the configuration of its ensemble: in the operator's files, as Apache does, or beside its
//! data.
//!
//! | file | content |
//! |---|---|
//! | `zoo.cfg.dynamic.<version in hex>` | the configuration in force, without its version |
//! | `zoo.cfg.dynamic.next` | the newest one that was proposed, with its version |
//! | `zoo.cfg` | `dynamicConfigFile=` names the first of them |
//! | `zoo.cfg.bak` | as the operator wrote it |
//!
//! A server without such a file keeps `config.dynamic` and `config.dynamic.next` in its data directory, both with
//! versions.
//!
//! Each file is replaced durably in one step. None of them has to be written for an acknowledgement: the log holds
//! every configuration that a quorum has decided on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{ServerId, rewrite};
use crate::storage::member::read_small;
use crate::storage::{At, DataDirs, Fs, IoError, RealFs};
use crate::zab::ensemble::Ensemble;

const IN_FORCE: &str = "config.dynamic";
const NEXT: &str = "config.dynamic.next";

/// See the module.
#[derive(Debug)]
pub struct ConfigFiles {
    fs: Arc<dyn Fs>,
    place: Place,
    me: ServerId,
    /// A configuration in force is on disk.
    established: bool,
}

#[derive(Debug)]
enum Place {
    /// The operator's main file.
    Main(PathBuf),
    /// The directory of the data.
    Data(PathBuf),
}

/// What [`ConfigFiles::read`] finds.
#[derive(Debug, Default)]
pub struct Found {
    /// The configuration in force, if it is not in the operator's files.
    pub in_force: Option<Ensemble>,
    /// A newer one that was proposed.
    pub next: Option<Ensemble>,
}

impl ConfigFiles {
    /// The files beside the main file at `path`. `established`: the configuration that was read from there has a
    /// version.
    pub fn of_operator(path: &Path, me: ServerId, established: bool) -> Self {
        // A link is not replaced, what it names is.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        ConfigFiles { fs: Arc::new(RealFs), place: Place::Main(path), me, established }
    }

    /// Files in the data directory.
    pub fn beside_data(dirs: &DataDirs, me: ServerId) -> Self {
        let place = Place::Data(dirs.data().to_owned());
        ConfigFiles { fs: dirs.fs().clone(), place, me, established: false }
    }

    /// What was written before, as far as it makes sense.
    ///
    /// # Errors
    /// The operating system fails a call.
    pub fn read(&mut self) -> Result<Found, IoError> {
        let mut found = Found { in_force: None, next: self.ensemble(&self.next_path())? };
        if let Place::Data(dir) = &self.place {
            found.in_force = self.ensemble(&dir.join(IN_FORCE))?;
            self.established |= found.in_force.is_some();
        }
        Ok(found)
    }

    fn ensemble(&self, path: &Path) -> Result<Option<Ensemble>, IoError> {
        let Some(bytes) = read_small(&*self.fs, path)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        Ok(Ensemble::parse(&text)
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "ignoring a file"))
            .ok())
    }

    fn next_path(&self) -> PathBuf {
        match &self.place {
            Place::Main(path) => beside(path, ".dynamic.next"),
            Place::Data(dir) => dir.join(NEXT),
        }
    }

    /// Keeps a configuration that was proposed.
    ///
    /// # Errors
    /// The operating system fails a call.
    pub fn write_next(&self, ensemble: &Ensemble) -> Result<(), IoError> {
        self.replace(&self.next_path(), text_of(ensemble, true).as_bytes())
    }

    /// Keeps a configuration that is in force.
    ///
    /// # Errors
    /// The operating system fails a call.
    pub fn write_in_force(&mut self, ensemble: &Ensemble) -> Result<(), IoError> {
        match &self.place {
            Place::Data(dir) => {
                self.replace(&dir.join(IN_FORCE), text_of(ensemble, true).as_bytes())?;
            }
            // A server that is to join keeps the list that it was given until it has joined: with one that does not
            // name it, it could not start.
            Place::Main(_) if !self.established && !ensemble.contains(self.me) => return Ok(()),
            Place::Main(path) => self.write_dynamic(path, ensemble)?,
        }
        self.established = true;
        let next = self.next_path();
        if self.ensemble(&next)?.is_some_and(|next| next.version <= ensemble.version) {
            self.fs.remove(&next).at("remove", &next)?;
        }
        Ok(())
    }

    fn write_dynamic(&self, main: &Path, ensemble: &Ensemble) -> Result<(), IoError> {
        let dynamic = beside(main, &format!(".dynamic.{:x}", ensemble.version));
        self.replace(&dynamic, text_of(ensemble, false).as_bytes())?;
        let old = std::fs::read(main).at("read", main)?;
        let listed = ensemble.membership.servers.get(&self.me);
        let client_port_moved = listed.is_some_and(|spec| spec.client.is_some());
        let new = rewrite::point_to_dynamic(&old, &dynamic.to_string_lossy(), client_port_moved);
        let new = new.map_err(std::io::Error::other).at("understand", main)?;
        if new == old {
            return Ok(());
        }
        if rewrite::holds_membership(&old) {
            self.replace_like(main, &beside(main, ".bak"), &old)?;
        }
        self.replace_like(main, main, &new)
    }

    fn replace(&self, path: &Path, content: &[u8]) -> Result<(), IoError> {
        self.replace_with(path, content, |_| Ok(()))
    }

    /// Replaces a file by one with the permissions of another.
    fn replace_like(&self, like: &Path, path: &Path, content: &[u8]) -> Result<(), IoError> {
        let permissions = std::fs::metadata(like).at("look at", like)?.permissions();
        self.replace_with(path, content, |temporary| std::fs::set_permissions(temporary, permissions))
    }

    fn replace_with(
        &self,
        path: &Path,
        content: &[u8],
        prepare: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> Result<(), IoError> {
        let temporary = beside(path, ".tmp");
        {
            let file = self.fs.create(&temporary).at("create", &temporary)?;
            file.write_at(&[std::io::IoSlice::new(content)], 0).at("write", &temporary)?;
            prepare(&temporary).at("set permissions of", &temporary)?;
            file.sync().at("sync", &temporary)?;
        }
        self.fs.rename(&temporary, path).at("rename to", path)?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        self.fs.sync_dir(dir).at("sync", dir)
    }
}

/// The path with something behind its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The lines of a dynamic file, in Apache's order.
fn text_of(ensemble: &Ensemble, with_version: bool) -> String {
    let text = ensemble.to_text();
    let mut lines: Vec<&str> =
        text.lines().filter(|line| with_version || !line.starts_with("version=")).collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// What a member starts from: what its files say, and what its tree does.
///
/// `given` comes from the operator's file or from whoever started the server. Returns the configuration in force
/// and a newer one that was proposed. A reconfiguration in the log may be newer than any file: files are not
/// written before a transaction is acknowledged.
pub fn starting_ensembles(
    given: Ensemble,
    found: Found,
    tree: Option<(&[u8], i64)>,
) -> (Ensemble, Option<Ensemble>) {
    let committed = match found.in_force {
        Some(in_force) if in_force.version > given.version => in_force,
        _ => given,
    };
    let of_tree = tree.and_then(|(text, _)| Ensemble::parse(std::str::from_utf8(text).ok()?).ok());
    let candidates = [found.next, of_tree].into_iter().flatten();
    let newest = candidates.max_by_key(|ensemble| ensemble.version);
    let last_seen = newest.filter(|ensemble| ensemble.version > committed.version);
    (committed, last_seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ServerId = ServerId(2);

    fn ensemble(version: i64, lines: &[&str]) -> Ensemble {
        let mut ensemble = Ensemble::parse(&lines.join("\n")).unwrap();
        ensemble.version = version;
        ensemble
    }

    fn text(path: &Path) -> Option<String> {
        std::fs::read_to_string(path).ok()
    }

    #[test]
    fn the_operators_files_are_changed_as_apache_does_it() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let at = |suffix: &str| dir.join(format!("zoo.cfg{suffix}"));
        let original = "# ours\ntickTime=2000\nserver.10=a:1:2\nserver.2=b:1:2;2181\nclientPort=2181\n";
        std::fs::write(at(""), original).unwrap();
        let mut files = ConfigFiles::of_operator(&at(""), ME, false);
        let members = ["server.10=a:1:2", "server.2=b:1:2;2181"];

        let proposed = ensemble(0x1_0000_0007, &members);
        files.write_next(&proposed).unwrap();
        let lines = "server.10=a:1:2:participant\nserver.2=b:1:2:participant;0.0.0.0:2181";
        assert_eq!(text(&at(".dynamic.next")).unwrap(), format!("{lines}\nversion=100000007"));
        assert_eq!(files.read().unwrap().next, Some(proposed.clone()));
        assert_eq!(text(&at("")).unwrap(), original, "not in force yet");

        files.write_in_force(&proposed).unwrap();
        assert_eq!(text(&at(".dynamic.100000007")).unwrap(), lines);
        assert_eq!(text(&at(".dynamic.next")), None);
        assert_eq!(text(&at(".bak")).unwrap(), original);
        let pointer = at(".dynamic.100000007");
        let expected = format!("# ours\ntickTime=2000\ndynamicConfigFile={}\n", pointer.display());
        assert_eq!(text(&at("")).unwrap(), expected);

        // Also without this server: it must not come back with the old list.
        files.write_in_force(&ensemble(0x1_0000_0008, &members[..1])).unwrap();
        assert_eq!(text(&at("")).unwrap(), expected.replace("100000007", "100000008"));
        assert_eq!(text(&at(".bak")).unwrap(), original);
    }

    #[test]
    fn a_server_that_is_to_join_keeps_the_list_that_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zoo.cfg");
        let original = "server.1=a:1:2\nserver.2=b:1:2\n";
        std::fs::write(&path, original).unwrap();
        let mut files = ConfigFiles::of_operator(&path, ME, false);
        files.write_in_force(&ensemble(5, &["server.1=a:1:2"])).unwrap();
        assert_eq!(text(&path).unwrap(), original);
        files.write_in_force(&ensemble(6, &["server.1=a:1:2", "server.2=b:1:2"])).unwrap();
        assert!(text(&path).unwrap().starts_with("dynamicConfigFile="));
    }

    #[test]
    fn a_start_takes_the_newest_and_knows_what_is_not_in_force() {
        let (given, newer) = (ensemble(0, &["server.1=a:1:2"]), ensemble(7, &["server.3=a:1:2"]));
        let shown = ensemble(9, &["server.4=a:1:2"]);
        let found = Found { in_force: Some(newer.clone()), next: None };
        let started = starting_ensembles(given.clone(), found, Some((shown.to_text().as_bytes(), 9)));
        assert_eq!(started, (newer.clone(), Some(shown)));
        let found = Found { in_force: None, next: Some(newer.clone()) };
        assert_eq!(starting_ensembles(given, found, Some((b"", 0))).1, Some(newer));
    }
}
