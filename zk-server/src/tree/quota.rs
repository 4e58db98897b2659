//! Quotas: limits in `/zookeeper/quota<path>/zookeeper_limits`, usage in `.../zookeeper_stats`, which every
//! server rewrites by itself (no transaction, no version, no event).

use std::collections::{BTreeMap, BTreeSet};

use super::node::NodeIdx;
use super::{Tree, digest};

const ROOT: &str = "/zookeeper/quota";
const LIMITS: &str = "/zookeeper_limits";
const STATS: &str = "/zookeeper_stats";

/// The paths that have a limits node.
#[derive(Debug, Default)]
pub struct Quotas {
    paths: BTreeSet<String>,
}

/// The quota that a path counts against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaNode {
    /// The path that has the quota.
    pub path: String,
    limits: NodeIdx,
    stats: NodeIdx,
}

/// What would happen to a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaCheck {
    /// Within the limits (or only a soft one is exceeded).
    Ok,
    /// A hard limit would be exceeded.
    Exceeded,
    /// The limits or stats node does not parse.
    Unparsable,
}

/// Limits as text: `count=5,bytes=-1=;byteHardLimit=1000;countHardLimit=-1`; -1 or absent is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Soft limit of nodes, the quota's own node included.
    pub count: i64,
    /// Soft limit of data bytes.
    pub bytes: i64,
    /// Hard limit of nodes.
    pub count_hard: i64,
    /// Hard limit of data bytes.
    pub bytes_hard: i64,
}

impl Limits {
    /// Reads the text of a limits or stats node.
    pub fn parse(text: &[u8]) -> Option<Limits> {
        let text = std::str::from_utf8(text).ok()?;
        let mut values = BTreeMap::new();
        for part in text.split([',', ';']).filter(|part| !part.is_empty()) {
            let mut fields = part.splitn(3, '=');
            let (key, value) = (fields.next()?, fields.next()?);
            values.insert(key, value.parse::<i64>().ok()?);
        }
        let get = |key| values.get(key).copied().unwrap_or(-1);
        Some(Limits {
            count: get("count"),
            bytes: get("bytes"),
            count_hard: get("countHardLimit"),
            bytes_hard: get("byteHardLimit"),
        })
    }
}

/// Whether a write to this path would make Apache servers fail for good ("quota poison"): a limits node for the
/// root, a node `zookeeper_limits` whose short parent only looks like the quota tree, or stats that don't parse.
/// `data` is that of a setData or create.
pub fn is_poison(path: &str, data: Option<&[u8]>) -> bool {
    let Some((parent, name)) = zk_proto::path::split(path) else { return false };
    match name {
        "zookeeper_limits" => parent.starts_with("/zookeeper") && parent.len() <= ROOT.len(),
        "zookeeper_stats" if parent == ROOT => true,
        "zookeeper_stats" if parent.starts_with("/zookeeper/quota/") => {
            data.is_some_and(|data| !data.is_empty() && Limits::parse(data).is_none())
        }
        _ => false,
    }
}

impl Quotas {
    /// The deepest registered ancestor-or-self of `path` that has both its nodes.
    pub fn find(&self, tree: &Tree, path: &str) -> Option<QuotaNode> {
        if self.paths.is_empty() {
            return None;
        }
        let mut at = path;
        while !at.is_empty() {
            if self.paths.contains(at) {
                return Some(QuotaNode {
                    path: at.to_owned(),
                    limits: tree.find(&format!("{ROOT}{at}{LIMITS}"))?,
                    stats: tree.find(&format!("{ROOT}{at}{STATS}"))?,
                });
            }
            at = &at[..at.rfind('/')?];
        }
        None
    }
}

impl QuotaNode {
    /// Whether `count` more nodes and `bytes` more data would be allowed, judged by the applied usage.
    pub fn check(&self, tree: &Tree, count: i64, bytes: i64) -> QuotaCheck {
        let parse = |idx| tree.data(idx).and_then(Limits::parse);
        let (Some(limits), Some(used)) = (parse(self.limits), parse(self.stats)) else {
            return QuotaCheck::Unparsable;
        };
        let over = |hard: i64, soft: i64, used: i64, more: i64, what: &str| {
            let limit = if hard > -1 { hard } else { soft };
            let exceeded = more != 0 && limit > -1 && used.saturating_add(more) > limit;
            if exceeded && hard <= -1 {
                tracing::warn!(path = %self.path.escape_debug(), what, limit, "soft quota exceeded");
            }
            exceeded && hard > -1
        };
        if over(limits.count_hard, limits.count, used.count, count, "count")
            || over(limits.bytes_hard, limits.bytes, used.bytes, bytes, "bytes")
        {
            return QuotaCheck::Exceeded;
        }
        QuotaCheck::Ok
    }
}

impl Tree {
    pub(super) fn quota_created(&mut self, idx: NodeIdx, path: &str) {
        if let Some(below) = path.strip_prefix(ROOT) {
            if let Some(quota) = below.strip_suffix(LIMITS).filter(|p| !p.is_empty()) {
                self.quotas.paths.insert(quota.to_owned());
            } else if let Some(quota) = below.strip_suffix(STATS).filter(|p| !p.is_empty()) {
                self.recount(quota, idx);
            }
        }
        let bytes = self.slab.data(idx).map_or(0, <[u8]>::len) as i64;
        self.account(path, 1, bytes);
    }

    pub(super) fn quota_deleted(&mut self, idx: NodeIdx, path: &str) {
        if let Some(quota) = path.strip_prefix(ROOT).and_then(|below| below.strip_suffix(LIMITS)) {
            self.quotas.paths.remove(quota);
        }
        let bytes = self.slab.data(idx).map_or(0, <[u8]>::len) as i64;
        self.account(path, -1, -bytes);
    }

    pub(super) fn quota_changed(&mut self, path: &str, bytes: i64) {
        self.account(path, 0, bytes);
    }

    fn account(&mut self, path: &str, count: i64, bytes: i64) {
        let Some(quota) = self.quotas.find(self, path) else { return };
        let Some(used) = self.slab.data(quota.stats).and_then(Limits::parse) else {
            tracing::error!(path = %quota.path.escape_debug(), "quota usage does not parse: not accounted");
            return;
        };
        let (count, bytes) = (used.count.saturating_add(count), used.bytes.saturating_add(bytes));
        self.write_stats(&quota.path, quota.stats, count, bytes);
    }

    fn recount(&mut self, quota: &str, stats: NodeIdx) {
        let (mut count, mut bytes) = (0, 0);
        let mut todo: Vec<_> = self.find(quota).into_iter().collect();
        while let Some(idx) = todo.pop() {
            count += 1;
            bytes += self.slab.data(idx).map_or(0, <[u8]>::len) as i64;
            todo.extend(self.slab.children(idx));
        }
        self.write_stats(quota, stats, count, bytes);
    }

    fn write_stats(&mut self, quota: &str, stats: NodeIdx, count: i64, bytes: i64) {
        let text = format!("count={count},bytes={bytes}");
        let crc = digest::prefix_crc(&format!("{ROOT}{quota}{STATS}"), Some(text.as_bytes()));
        self.save_for_snapshots(stats);
        self.slab.set_data(stats, Some(text.as_bytes()), crc);
    }

    /// Registers all quotas and counts their usage anew: after a snapshot was loaded.
    pub(super) fn rebuild_quotas(&mut self) {
        self.quotas.paths.clear();
        let mut todo: Vec<_> = self.find(ROOT).into_iter().collect();
        let mut stats = Vec::new();
        while let Some(idx) = todo.pop() {
            for child in self.slab.children(idx) {
                let name = self.slab.name(child);
                let below = || self.path(idx).strip_prefix(ROOT).unwrap_or_default().to_owned();
                if name == &LIMITS.as_bytes()[1..] {
                    self.quotas.paths.insert(below());
                } else if name == &STATS.as_bytes()[1..] {
                    stats.push((below(), child));
                } else {
                    todo.push(child);
                }
            }
        }
        self.quotas.paths.remove("");
        for (quota, idx) in stats.into_iter().filter(|(quota, _)| !quota.is_empty()) {
            self.recount(&quota, idx);
        }
    }
}
