//! A disk in memory that forgets and fails, for tests and the simulator.
//!
//! The model is POSIX at its weakest: after a power loss a file has what was synced, plus any of the 512-byte
//! sectors and any of the sizes written since; a directory has the names that were synced, plus any of the
//! changes since. A failed sync loses what it should have saved, although reads still show it. Directories
//! themselves are durable at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::Mutex;

use super::fs::{DiskFile, FileEntry, Fs};

const SECTOR: usize = 512;

/// A simulated disk; clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// What happens at a chosen operation. Operations that change anything are counted: create, rename, remove,
/// write, set length, and both kinds of sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This one operation fails. A failed write may have written a part.
    Fail(ErrorKind),
    /// From here on, nothing that needs space succeeds: creating, and writing behind the end of a file.
    Full,
    /// From here on, nothing succeeds: the computer is off. See [`SimDisk::restart`].
    PowerLoss,
}

#[derive(Default)]
struct State {
    files: Vec<File>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Changes of names that no sync has covered, in order.
    unsynced_names: Vec<NameChange>,
    dirs: BTreeSet<PathBuf>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    full: bool,
    off: bool,
}

#[derive(Default, Clone)]
struct File {
    data: Vec<u8>,
    durable: Vec<u8>,
    unsynced_sectors: BTreeSet<usize>,
    synced: bool,
}

/// One atomic change in a directory.
#[derive(Clone)]
struct NameChange {
    dir: PathBuf,
    remove: Option<PathBuf>,
    add: Option<(PathBuf, usize)>,
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        SimDisk::default()
    }

    /// Number of changing operations so far.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Lets `fault` happen when so many operations were done: at `operations()`, with the next one.
    pub fn inject(&self, at: u64, fault: Fault) {
        self.state.lock().fault = Some((at, fault));
    }

    /// Whether an injected power loss has happened.
    pub fn is_off(&self) -> bool {
        self.state.lock().off
    }

    /// The disk after a power loss now: what was synced, and what `rng` lets survive of the rest. No fault is
    /// pending on it, but a full disk stays full. This disk keeps failing.
    pub fn restart(&self, rng: &mut Rng) -> SimDisk {
        let mut state = self.state.lock();
        state.off = true;
        // From "nothing arrived" over "some" to "everything did".
        let survival = *rng.choice(&[0.0, 0.1, 0.5, 0.9, 1.0]).unwrap_or(&0.5);
        let mut names = state.durable_names.clone();
        for change in &state.unsynced_names {
            if rng.f64() < survival {
                change.apply(&mut names);
            }
        }
        // Whatever has no name any more is gone for good.
        let named: BTreeSet<usize> = names.values().copied().collect();
        let survive = |(id, file): (usize, &File)| match named.contains(&id) {
            true => file.after_power_loss(survival, rng),
            false => File::default(),
        };
        let files = state.files.iter().enumerate().map(survive).collect();
        SimDisk::with(State {
            files,
            durable_names: names.clone(),
            names,
            dirs: state.dirs.clone(),
            full: state.full,
            ..State::default()
        })
    }

    /// An independent copy as another process would see it after this one was killed: nothing is lost, no
    /// fault is pending.
    pub fn after_kill(&self) -> SimDisk {
        let state = self.state.lock();
        let named = state.names.values().chain(state.durable_names.values()).copied();
        let changed = state.unsynced_names.iter().filter_map(|change| Some(change.add.as_ref()?.1));
        let named: BTreeSet<usize> = named.chain(changed).collect();
        let keep =
            |(id, file): (usize, &File)| if named.contains(&id) { file.clone() } else { File::default() };
        SimDisk::with(State {
            files: state.files.iter().enumerate().map(keep).collect(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            unsynced_names: state.unsynced_names.clone(),
            dirs: state.dirs.clone(),
            full: state.full,
            ..State::default()
        })
    }

    /// The content of a file, as reads show it.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        state.names.get(path).map(|&file| state.files[file].data.clone())
    }

    /// Puts a durable file there, replacing what was.
    pub fn put(&self, path: &Path, data: Vec<u8>) {
        let mut state = self.state.lock();
        let file = state.files.len();
        state.files.push(File { durable: data.clone(), data, synced: true, ..File::default() });
        state.names.insert(path.to_owned(), file);
        state.durable_names.insert(path.to_owned(), file);
    }

    fn with(state: State) -> Self {
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    fn file(&self, file: usize) -> Box<dyn DiskFile> {
        Box::new(SimFile { disk: self.clone(), file })
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let names: Vec<_> =
            state.names.iter().map(|(path, &file)| (path, state.files[file].data.len())).collect();
        f.debug_struct("SimDisk").field("files", &names).finish_non_exhaustive()
    }
}

impl State {
    /// Counts an operation and lets the fault happen that is due.
    fn operate(&mut self, needs_space: bool) -> io::Result<()> {
        self.readable()?;
        let due = self.fault.take_if(|(at, _)| *at <= self.operations);
        self.operations += 1;
        match due.map(|(_, fault)| fault) {
            Some(Fault::Fail(kind)) => return Err(kind.into()),
            Some(Fault::PowerLoss) => self.off = true,
            Some(Fault::Full) => self.full = true,
            None => {}
        }
        self.readable()?;
        if self.full && needs_space { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn readable(&self) -> io::Result<()> {
        if self.off { Err(ErrorKind::NotConnected.into()) } else { Ok(()) }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.readable()?;
        self.names.get(path).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn change_name(&mut self, path: &Path, remove: Option<&Path>, add: Option<usize>) {
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        let add = add.map(|file| (path.to_owned(), file));
        let change = NameChange { dir, remove: remove.map(Into::into), add };
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        if let Some(path) = &self.remove {
            names.remove(path);
        }
        if let Some((path, file)) = &self.add {
            names.insert(path.clone(), *file);
        }
    }
}

impl File {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[offset..end].copy_from_slice(bytes);
        self.unsynced_sectors.extend(offset / SECTOR..end.div_ceil(SECTOR));
        self.synced = false;
    }

    fn set_len(&mut self, len: usize) {
        self.data.resize(len, 0);
        self.unsynced_sectors.retain(|sector| sector * SECTOR < len);
        self.synced = false;
    }

    /// Saves what counts as unsynced, and nothing else: what a failed sync forgot stays lost.
    fn sync(&mut self) {
        self.durable.resize(self.data.len(), 0);
        for sector in std::mem::take(&mut self.unsynced_sectors) {
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(self.data.len());
            self.durable[range.clone()].copy_from_slice(&self.data[range]);
        }
        self.synced = true;
    }

    fn after_power_loss(&self, survival: f64, rng: &mut Rng) -> File {
        let mut data = self.durable.clone();
        if !self.synced {
            let (short, long) = (data.len().min(self.data.len()), data.len().max(self.data.len()));
            let between = rng.usize(short..=long);
            data.resize(*rng.choice(&[self.durable.len(), self.data.len(), between]).unwrap_or(&short), 0);
        }
        for &sector in &self.unsynced_sectors {
            let (start, end) =
                (sector * SECTOR, ((sector + 1) * SECTOR).min(self.data.len()).min(data.len()));
            if start < end && rng.f64() < survival {
                data[start..end].copy_from_slice(&self.data[start..end]);
            }
        }
        File { durable: data.clone(), data, synced: true, ..File::default() }
    }
}

impl Fs for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = self.state.lock().find(path)?;
        Ok(self.file(file))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.operate(true)?;
        if !path.parent().is_some_and(|dir| state.dirs.contains(dir)) {
            return Err(ErrorKind::NotFound.into());
        }
        let file = match state.names.get(path) {
            Some(&file) => {
                state.files[file].set_len(0);
                file
            }
            None => {
                let file = state.files.len();
                state.files.push(File { synced: true, ..File::default() });
                state.change_name(path, None, Some(file));
                file
            }
        };
        Ok(self.file(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.operate(false)?;
        let file = state.find(from)?;
        state.change_name(to, Some(from), Some(file));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.operate(false)?;
        state.find(path)?;
        state.change_name(path, Some(path), None);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<FileEntry>> {
        let state = self.state.lock();
        state.readable()?;
        let in_dir = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let entry = |(path, &file): (&PathBuf, &usize)| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some(FileEntry { name, len: state.files[file].data.len() as u64 })
        };
        Ok(in_dir.filter_map(entry).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state.lock();
        state.readable()?;
        Ok(state.names.contains_key(path) || state.dirs.contains(path))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.operate(true)?;
        state.dirs.extend(dir.ancestors().map(Into::into));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.operate(false)?;
        let State { unsynced_names, durable_names, .. } = &mut *state;
        unsynced_names.retain(|change| {
            let synced = change.dir == dir;
            if synced {
                change.apply(durable_names);
            }
            !synced
        });
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state.lock();
        state.readable()?;
        let data = &state.files[self.file].data;
        let rest = usize::try_from(offset).ok().and_then(|offset| data.get(offset..)).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        let offset = usize::try_from(offset).map_err(|_| ErrorKind::FileTooLarge)?;
        let mut state = self.disk.state.lock();
        let was_off = state.off;
        // Files are written once and have no holes worth mentioning: what is inside has its blocks.
        let extends = offset + bytes.len() > state.files[self.file].data.len();
        let result = state.operate(extends);
        let written = match &result {
            Ok(()) => bytes.len(),
            Err(_) if was_off => 0,
            // What a failing write leaves: here half of it.
            Err(_) => bytes.len() / 2,
        };
        state.files[self.file].write(&bytes[..written], offset);
        result
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| ErrorKind::FileTooLarge)?;
        let mut state = self.disk.state.lock();
        let extends = len > state.files[self.file].data.len();
        state.operate(extends)?;
        state.files[self.file].set_len(len);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        let state = self.disk.state.lock();
        state.readable()?;
        Ok(state.files[self.file].data.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let result = state.operate(false);
        let off = state.off;
        let file = &mut state.files[self.file];
        match &result {
            Ok(()) => file.sync(),
            Err(_) if off => {}
            // The kernel forgets that these were never written.
            Err(_) => file.unsynced_sectors.clear(),
        }
        result
    }
}
