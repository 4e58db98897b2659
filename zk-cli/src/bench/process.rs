//! What a process costs, read from `/proc`.

use std::fs;
use std::io;

use serde::Serialize;

use super::error::{Context, Result};

/// Memory of a process, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Resident set.
    pub rss: u64,
    /// Resident set, shared pages counted by their share.
    pub pss: u64,
}

/// CPU time that a process has used so far, s: user and system, of all its threads that live or have lived.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).context(path.as_str())?;
    let ticks = parse_cpu_ticks(&text).ok_or_else(|| invalid(&path)).context(path.as_str())?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// CPU time of several processes together, s.
pub fn cpu_seconds_of(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|&pid| cpu_seconds(pid)).sum()
}

/// The memory of several processes together.
pub fn memory_of(pids: &[u32]) -> Result<Memory> {
    let add = |sum: Memory, each: Memory| Memory { rss: sum.rss + each.rss, pss: sum.pss + each.pss };
    pids.iter().try_fold(Memory { rss: 0, pss: 0 }, |sum, &pid| Ok(add(sum, memory(pid)?)))
}

/// The memory of a process.
pub fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).context(path.as_str())?;
    let bytes = |key| parse_kib(&text, key).map(|kib| kib * 1024);
    match (bytes("Rss:"), bytes("Pss:")) {
        (Some(rss), Some(pss)) => Ok(Memory { rss, pss }),
        _ => Err(invalid(&path)).context(path.as_str()),
    }
}

fn invalid(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path} has an unknown form"))
}

/// utime + stime: fields 14 and 15. The name in field 2 may contain anything, so count from its end.
fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let utime: u64 = fields.next()?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    Some(utime + stime)
}

fn parse_kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line[key.len()..].trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Raises the limit of open files to what the system allows this process, and returns it.
pub fn raise_file_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_of_a_process_with_an_odd_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(parse_cpu_ticks(stat), Some(300));
        assert_eq!(parse_cpu_ticks("7 (a) S 1"), None);
    }

    #[test]
    fn memory_in_kib() {
        assert_eq!(parse_kib("x\nRss:    12 kB\nPss:  3 kB\n", "Pss:"), Some(3));
        assert_eq!(parse_kib("Rss: 12 pages", "Rss:"), None);
    }

    #[test]
    fn this_process_has_cpu_and_memory() {
        let pid = std::process::id();
        assert!(cpu_seconds(pid).unwrap() >= 0.0);
        assert!(memory(pid).unwrap().rss > 0);
    }
}
