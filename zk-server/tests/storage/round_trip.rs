//! What is written can be read, and is what Apache writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use zk_proto::{Acl, Perms, Zxid};
use zk_server::storage::{
    Compression, LoadError, LogOptions, NodeStat, RealFs, RecordHeader, SnapshotError, SnapshotInfo,
    SnapshotName, SnapshotOptions, SnapshotSink, SnapshotWriter, TxnLog, read_snapshot, record,
    verify_snapshot,
};

/// A snapshot's content in file order.
#[derive(Debug, Default, Clone, PartialEq)]
struct Content {
    sessions: Vec<(i64, i32)>,
    acls: Vec<(i64, Vec<Acl<'static>>)>,
    nodes: Vec<(String, Option<Vec<u8>>, i64, NodeStat)>,
}

impl SnapshotSink for Content {
    fn begin(&mut self, _: u64) {
        *self = Content::default();
    }
    fn session(&mut self, id: i64, timeout_ms: i32) {
        self.sessions.push((id, timeout_ms));
    }
    fn acl(&mut self, id: i64, acl: Vec<Acl<'static>>) {
        self.acls.push((id, acl));
    }
    fn node(&mut self, path: &str, data: Option<&[u8]>, acl: i64, stat: &NodeStat) -> Result<(), LoadError> {
        self.nodes.push((path.to_owned(), data.map(Into::into), acl, *stat));
        Ok(())
    }
}

fn options(compression: Compression) -> SnapshotOptions {
    SnapshotOptions { compression, bytes_per_second: None, ..SnapshotOptions::default() }
}

fn write(
    dir: &Path,
    zxid: Zxid,
    options: &SnapshotOptions,
    content: &Content,
    last_zxid: Zxid,
    digest: Option<i64>,
) -> Result<SnapshotName, SnapshotError> {
    let acls = content.acls.iter().map(|(id, acl)| (*id, &acl[..]));
    let sessions = content.sessions.iter().copied();
    let mut writer = SnapshotWriter::create(Arc::new(RealFs), dir, zxid, options, sessions, acls)?.unwrap();
    for (path, data, acl, stat) in &content.nodes {
        writer.node(path, data.as_deref(), *acl, stat)?;
    }
    writer.finish(last_zxid, digest)
}

fn read(path: &Path, compression: Compression) -> (Content, SnapshotInfo) {
    let mut content = Content::default();
    let info = read_snapshot(&RealFs, path, compression, None, &mut content).unwrap();
    (content, info)
}

fn files(prefix: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
        for path in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
            if path.is_dir() { walk(&path, files) } else { files.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/storage/dirs"), &mut found);
    found.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
    found.sort();
    found
}

#[test]
fn apaches_snapshots_written_again_are_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut complete = 0;
    for path in files("snapshot.") {
        let name = SnapshotName::parse(path.file_name().unwrap().to_str().unwrap()).unwrap();
        let (content, info) = read(&path, name.compression);
        // Those that have both sections about the same transaction, as ours always do. Zxid 0 has no digest.
        let Some(last_zxid) = info.last_zxid else { continue };
        if info.digest.map_or(Zxid::ZERO, |d| d.zxid) != last_zxid || info.bytes == 445 {
            continue;
        }
        let digest = info.digest.map(|d| d.digest);
        let name =
            write(dir.path(), name.zxid, &options(Compression::None), &content, last_zxid, digest).unwrap();
        let written = fs::read(dir.path().join(name.to_string())).unwrap();
        if path.extension().is_some_and(|e| e == "gz" || e == "snappy") {
            assert_eq!(read(&dir.path().join(name.to_string()), Compression::None), (content, info));
        } else {
            assert!(written == fs::read(&path).unwrap(), "{}", path.display());
        }
        fs::remove_file(dir.path().join(name.to_string())).unwrap();
        complete += 1;
    }
    assert!(complete >= 20, "{complete}");
}

#[test]
fn apaches_records_framed_again_are_the_same_bytes() {
    let mut records = 0;
    for path in files("log.") {
        let bytes = fs::read(&path).unwrap();
        let mut rest = &bytes[16..];
        while rest.len() > 12 {
            let len = u32::from_be_bytes(rest[8..12].try_into().unwrap()) as usize;
            if len == 0 {
                break;
            }
            let (frame, tail) = rest.split_at(len + record::FRAME_OVERHEAD);
            let payload = &frame[12..12 + len];
            let header = RecordHeader::decode(payload).unwrap();
            let mut again = Vec::new();
            record::frame(&mut again, |out| {
                header.encode(out);
                out.extend_from_slice(&payload[RecordHeader::LEN..]);
            });
            assert!(again == frame, "{} {}", path.display(), header.zxid);
            rest = tail;
            records += 1;
        }
    }
    assert!(records > 1000, "{records}");
}

fn random_content(rng: &mut fastrand::Rng) -> Content {
    let text = |rng: &mut fastrand::Rng, max| -> String {
        let len = rng.usize(0..max);
        std::iter::repeat_with(|| *rng.choice(&['a', 'Z', '0', '-', 'é', '中']).unwrap()).take(len).collect()
    };
    let sessions = (0..rng.i64(0..20)).map(|i| (i << 40 | rng.i64(..) & 0xffff, rng.i32(1..))).collect();
    let mut content = Content { sessions, ..Content::default() };
    for id in 1..rng.i64(1..20) {
        let entry = |rng: &mut fastrand::Rng| Acl {
            perms: Perms(rng.i32(..)),
            scheme: rng.bool().then(|| text(rng, 10).into()),
            // Characters beyond the BMP take Java's detour over surrogates.
            id: rng.bool().then(|| (text(rng, 40) + "😀").into()),
        };
        content.acls.push((id, (0..rng.usize(0..4)).map(|_| entry(rng)).collect()));
    }
    let mut paths = vec![String::new()];
    for i in 0..rng.usize(1..400) {
        let data = match rng.u32(0..10) {
            0 => None,
            1 => Some(Vec::new()),
            2 if rng.u32(0..20) == 0 => Some(vec![rng.u8(..); rng.usize(0..3 << 20)]),
            _ => {
                let mut bytes = vec![0; rng.usize(0..2000)];
                rng.fill(&mut bytes);
                Some(bytes)
            }
        };
        let mut stat = [0; NodeStat::LEN];
        rng.fill(&mut stat);
        let path = if i == 0 {
            String::new()
        } else {
            format!("{}/{}{i}", rng.choice(&paths).unwrap(), text(rng, 30))
        };
        paths.push(path.clone());
        content.nodes.push((path, data, rng.i64(-1..20), NodeStat::decode(&stat)));
    }
    content
}

#[test]
fn random_snapshots_round_trip_under_every_compression() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..30 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let content = random_content(&mut rng);
        for compression in [Compression::None, Compression::Gz, Compression::Snappy] {
            let zxid = Zxid(rng.i64(1..));
            let (last, digest) = (Zxid(zxid.0 + 3), rng.bool().then(|| rng.i64(..)));
            let name = write(dir.path(), zxid, &options(compression), &content, last, digest).unwrap();
            assert_eq!(name, SnapshotName { zxid, compression });
            let path = dir.path().join(name.to_string());
            let (found, info) = read(&path, compression);
            assert!(found == content, "seed {seed} {compression:?}");
            assert_eq!(info.last_zxid, Some(last));
            assert_eq!(info.digest.map(|d| (d.zxid, d.version, d.digest)), digest.map(|d| (last, 2, d)));
            assert_eq!(verify_snapshot(&RealFs, &path, compression).unwrap(), info);
        }
    }
    assert!(
        fs::read_dir(dir.path()).unwrap().all(|e| e
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .starts_with("snapshot."))
    );
}

#[test]
fn an_intact_snapshot_is_never_overwritten_and_a_damaged_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let content = random_content(&mut fastrand::Rng::with_seed(1));
    let name = write(dir.path(), Zxid(5), &options(Compression::None), &content, Zxid(5), Some(1)).unwrap();
    let path = dir.path().join(name.to_string());
    let none = || std::iter::empty();
    let again = |compression| {
        SnapshotWriter::create(
            Arc::new(RealFs),
            dir.path(),
            Zxid(5),
            &options(compression),
            none(),
            std::iter::empty(),
        )
    };
    assert!(again(Compression::None).unwrap().is_none());
    assert!(again(Compression::Gz).unwrap().is_none());

    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    drop(again(Compression::None).unwrap().expect("the damaged one counts as missing"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a dropped writer leaves nothing");
    write(dir.path(), Zxid(5), &options(Compression::None), &content, Zxid(5), Some(1)).unwrap();
    assert!(read(&path, Compression::None).0 == content);
}

#[test]
fn pacing_keeps_to_the_rate() {
    let dir = tempfile::tempdir().unwrap();
    let node = (String::new(), Some(vec![7; 300 << 10]), -1, NodeStat::default());
    let content = Content { nodes: vec![node], ..Content::default() };
    let started = std::time::Instant::now();
    let options = SnapshotOptions { bytes_per_second: Some(3 << 20), ..options(Compression::None) };
    write(dir.path(), Zxid(1), &options, &content, Zxid(1), None).unwrap();
    assert!(started.elapsed().as_millis() >= 95, "{:?}", started.elapsed());
}

#[test]
fn the_last_zxid_is_left_out_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let content =
        Content { nodes: vec![(String::new(), None, -1, NodeStat::default())], ..Content::default() };
    for (zxid, last_zxid) in [(Zxid(1), true), (Zxid(2), false)] {
        let options = SnapshotOptions { last_zxid, ..options(Compression::None) };
        let name = write(dir.path(), zxid, &options, &content, zxid, Some(7)).unwrap();
        let (found, info) = read(&dir.path().join(name.to_string()), Compression::None);
        assert!(found == content);
        assert_eq!(info.last_zxid, last_zxid.then_some(zxid));
        assert_eq!(info.digest.map(|digest| digest.zxid), Some(zxid));
    }
}

#[test]
fn a_snapshot_without_digest_or_zxid_section_opens() {
    for (file, digest, last_zxid) in [
        ("01-380-log/data/version-2/snapshot.0", false, false),
        ("03-380-snap-log/data/version-2/snapshot.45", true, false),
        ("04-393-snap-log/data/version-2/snapshot.45", true, true),
        ("11-393-plain/data/version-2/snapshot.45", false, false),
        ("15-393-digest-off/data/version-2/snapshot.0", false, true),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/storage/dirs").join(file);
        let info = verify_snapshot(&RealFs, &path, Compression::None).unwrap();
        assert_eq!((info.digest.is_some(), info.last_zxid.is_some()), (digest, last_zxid), "{file}");
    }
}

#[test]
fn a_full_file_is_followed_by_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { file_bytes_max: Some(1000), pre_alloc_bytes: 8192, ..LogOptions::default() };
    let mut log = TxnLog::new(Arc::new(RealFs), dir.path(), options, Zxid::ZERO);
    for zxid in 1..=20 {
        let mut out = Vec::new();
        let header = RecordHeader { client_id: 1, cxid: 2, zxid: Zxid(zxid), time_ms: 3, kind: 5 };
        record::frame(&mut out, |out| {
            header.encode(out);
            out.extend_from_slice(&[7; 255]);
        });
        log.append(&[Bytes::from(out)], Zxid(zxid), Zxid(zxid)).unwrap();
        log.sync().unwrap();
    }
    log.close().unwrap();
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["log.1", "log.11", "log.5", "log.9", "log.d"]);
}
