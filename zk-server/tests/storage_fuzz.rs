//! Feeds broken snapshots and logs to their readers: none may panic, take long, or allocate more than four
//! times the input plus 1 MiB. The inputs are mutations of Apache's recorded files, the same in every run;
//! `STORAGE_FUZZ_RUNS` sets how many per kind (default 5000), `STORAGE_FUZZ_SEED` another series.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use peak_alloc::PeakAlloc;
use zk_proto::{Acl, Zxid};
use zk_server::storage::sim::SimDisk;
use zk_server::storage::{
    Compression, DataDirs, LoadError, NodeStat, RecordHeader, RecoveryOptions, Replay, ReplayError,
    SnapshotDigest, SnapshotName, SnapshotSink, read_snapshot, recover,
};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Takes everything and keeps nothing; checks what recovery promises to a sink.
#[derive(Default)]
struct Sink {
    last: Option<Zxid>,
}

impl SnapshotSink for Sink {
    fn begin(&mut self, _: u64) {}
    fn session(&mut self, _: i64, _: i32) {}
    fn acl(&mut self, _: i64, _: Vec<Acl<'static>>) {}
    fn node(&mut self, path: &str, _: Option<&[u8]>, _: i64, _: &NodeStat) -> Result<(), LoadError> {
        assert_ne!(path, "/");
        Ok(())
    }
}

impl Replay for Sink {
    fn snapshot_loaded(&mut self, zxid: Zxid, _: Option<SnapshotDigest>) {
        self.last = Some(zxid);
    }
    fn apply(&mut self, header: &RecordHeader, payload: &[u8]) -> Result<(), ReplayError> {
        let last = self.last.replace(header.zxid).expect("the base comes first");
        assert!(header.zxid > last, "{} behind {last}", header.zxid);
        assert_eq!(RecordHeader::decode(payload).unwrap(), *header);
        Ok(())
    }
}

fn read_as(compression: Compression, input: &[u8]) {
    let disk = SimDisk::new();
    let path = Path::new("/snapshot");
    disk.put(path, input.to_vec());
    let _ = read_snapshot(&disk, path, compression, None, &mut Sink::default());
}

fn open_log(input: &[u8]) {
    let disk = SimDisk::new();
    let dirs = DataDirs::open(Arc::new(disk.clone()), Path::new("/data"), None, true).unwrap();
    disk.put(&dirs.log().join("log.1"), input.to_vec());
    let options = RecoveryOptions { trust_empty: true, ..RecoveryOptions::default() };
    let Ok(recovered) = recover(&dirs, &options, Sink::default) else { return };
    // Whatever it accepted, it stands by.
    let again = recover(&dirs, &options, Sink::default).expect("accepted once");
    assert_eq!((again.last_zxid, again.replayed), (recovered.last_zxid, recovered.replayed));
}

fn seeds(wanted: impl Fn(&str) -> bool) -> Vec<Vec<u8>> {
    fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
        for path in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
            if path.is_dir() { walk(&path, files) } else { files.push(path) }
        }
    }
    let mut files = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/storage/dirs"), &mut files);
    files.retain(|path| wanted(path.file_name().unwrap().to_str().unwrap()));
    files.sort();
    let read = |path: PathBuf| {
        let mut bytes = fs::read(path).unwrap();
        // Little of the padding is enough.
        let content = bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
        bytes.truncate(content + 600);
        bytes
    };
    files.into_iter().map(read).collect()
}

fn mutated(seeds: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = rng.choice(seeds).unwrap().clone();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(0..=bytes.len());
        let end = (at + rng.usize(0..64)).min(bytes.len());
        match rng.u32(0..8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes[at..end].fill(0),
            3 => drop(bytes.splice(at..at, std::iter::repeat_n(rng.u8(..), rng.usize(0..64)))),
            4 => {
                let other = rng.choice(seeds).unwrap();
                let from = rng.usize(0..=other.len());
                let to = (from + rng.usize(0..200)).min(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            5 if end - at >= 4 => {
                let value = *rng.choice(&[-1, -2, 0, 1, 0x7fff_ffff, i32::MIN, 0x10_0000, 0xff]).unwrap();
                bytes[at..at + 4].copy_from_slice(&i32::to_be_bytes(value));
            }
            _ if at < bytes.len() => bytes[at] ^= 1 << rng.u32(0..8),
            _ => {}
        }
    }
    bytes
}

/// Makes the checksum of every record right again, so that what is behind it is reached.
fn with_checksums(mut log: Vec<u8>) -> Vec<u8> {
    let mut at = 16;
    while let Some(prefix) = log.get(at..at + 12) {
        let len = u32::from_be_bytes(prefix[8..].try_into().unwrap()) as usize;
        let Some(payload) = log.get(at + 12..at + 12 + len) else { break };
        let mut adler = simd_adler32::Adler32::new();
        adler.write(payload);
        log[at..at + 8].copy_from_slice(&u64::from(adler.finish()).to_be_bytes());
        at += len + 13;
    }
    log
}

fn run(kind: &str, input: &[u8], reader: impl Fn(&[u8])) {
    let started = Instant::now();
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let result = catch_unwind(AssertUnwindSafe(|| reader(input)));
    let allocated = ALLOCATOR.peak_usage().saturating_sub(before);
    let too_much = allocated > 4 * input.len() + (1 << 20);
    let too_long = started.elapsed() > Duration::from_secs(5);
    if result.is_err() || too_much || too_long {
        let hex: String = input.iter().map(|b| format!("{b:02x}")).collect();
        eprintln!("{kind}: {allocated} bytes, {:?} for {hex}", started.elapsed());
        resume_unwind(result.err().unwrap_or_else(|| Box::new("too slow or too much memory")));
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

// One test: allocations are counted for the whole process.
#[test]
fn no_file_breaks_a_reader() {
    claimed_lengths_cost_nothing();
    a_decompression_bomb_is_refused();
    mutated_files_break_nothing();
}

fn mutated_files_break_nothing() {
    let runs = number("STORAGE_FUZZ_RUNS", 5000);
    let mut rng = Rng::with_seed(number("STORAGE_FUZZ_SEED", 1));
    for (kind, compression) in
        [("plain", Compression::None), ("gz", Compression::Gz), ("snappy", Compression::Snappy)]
    {
        let seeds =
            seeds(|name| SnapshotName::parse(name).is_some_and(|name| name.compression == compression));
        assert!(seeds.len() >= 5, "{kind}");
        for _ in 0..runs {
            run(kind, &mutated(&seeds, &mut rng), |input| read_as(compression, input));
        }
    }
    let seeds = seeds(|name| name.starts_with("log.1"));
    assert!(seeds.len() >= 10);
    for i in 0..runs {
        let input = mutated(&seeds, &mut rng);
        let input = if i % 2 == 0 { with_checksums(input) } else { input };
        run("log", &input, open_log);
    }
}

fn claimed_lengths_cost_nothing() {
    // Sessions, ACLs, a path, data, a snappy block and a gzip stream that claim much and bring little.
    let head = b"ZKSN\0\0\0\x02\xff\xff\xff\xff\xff\xff\xff\xff";
    let seal = [0, 0, 0, 1, b'/'];
    for claim in [&b"\x7f\xff\xff\xff"[..], b"\0\0\0\0\x7f\xff\xff\xff", b"\0\0\0\0\0\0\0\0\x3f\xff\xff\xff"]
    {
        let input = [&head[..], claim, &[0; 100], &seal].concat();
        run("claim", &input, |input| read_as(Compression::None, input));
    }
    let input = [&b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01"[..], b"\x03\xff\xff\xff", &[0xff; 100]].concat();
    run("claim", &input, |input| read_as(Compression::Snappy, input));
    let input =
        [&b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01"[..], b"\0\0\0\x08", b"\xff\xff\xff\xff\x0f\0\0\0"].concat();
    run("claim", &input, |input| read_as(Compression::Snappy, input));
}

fn a_decompression_bomb_is_refused() {
    use std::io::Write;
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // A header, then a node whose path never ends.
    gz.write_all(b"ZKSN\0\0\0\x02\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\0\x3f\xff\xff\xff").unwrap();
    (0..64).for_each(|_| gz.write_all(&[0; 1 << 20]).unwrap());
    let disk = SimDisk::new();
    let path = Path::new("/snapshot.0.gz");
    disk.put(path, gz.finish().unwrap());
    let error = read_snapshot(&disk, path, Compression::Gz, Some(8 << 20), &mut Sink::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("decompresses to more than 8388608 bytes"), "{error}");
}
