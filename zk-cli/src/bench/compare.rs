//! Two servers on the same machine, taking turns: the reference, then the candidate, round after round.

mod ensembles;
mod lines;
mod loads;
mod sample;
mod states;
mod table;

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::engine::{Extent, Load, Outcome, Pace};
use super::error::{Context, Error, Result};
use super::report::Report;
use super::server::{Definition, Server};
use super::space::Space;
use super::stats::Faults;
use super::workload::{self, Target, Workload};
use sample::{Role, Sample};

/// Arguments of `zk bench compare`.
#[derive(Args)]
pub struct CompareArgs {
    /// Definition of the reference (TOML).
    reference: PathBuf,
    /// Definition of the candidate (TOML).
    candidate: PathBuf,
    /// Rounds: in each, both servers are measured once.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only these lines, as in G1,W1; all but N3 without it.
    #[arg(long, value_delimiter = ',', value_name = "LINES")]
    lines: Vec<String>,
    /// Measure only one of the two: "reference" or "candidate".
    #[arg(long, value_name = "ROLE")]
    only: Option<String>,
    /// Small and short: shows that everything works; the figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Print the table in Markdown.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Print the samples as JSON lines in place of the table.
    #[arg(long)]
    json: bool,
    /// Append the samples to this file as JSON lines, as they come. `zk bench table` prints it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Where the servers' data goes; where temporary files go without it.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Arguments of `zk bench table`.
#[derive(Args)]
pub struct TableArgs {
    /// Files with samples, as `zk bench compare --out` writes them.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print Markdown.
    #[arg(long)]
    markdown: bool,
}

/// Prints the table of recorded samples.
pub fn print_table(args: &TableArgs) -> Result<()> {
    let mut samples: Vec<Sample> = Vec::new();
    for file in &args.files {
        let text = fs::read_to_string(file).context(file.display().to_string())?;
        for (number, line) in text.lines().enumerate() {
            let sample = serde_json::from_str(line).map_err(|e| Error::Definition {
                file: file.clone(),
                message: format!("line {}: {e}", number + 1),
            })?;
            samples.push(sample);
        }
    }
    print!("{}", table::render(&samples, args.markdown));
    Ok(())
}

/// Sizes and times of the measurements.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// Load on a server that has just started, until it is warm.
    first_warmup: Duration,
    warmup: Duration,
    duration: Duration,
    idle: Duration,
    /// Nodes of the lines N1, N2, R1 and P1.
    nodes: u32,
    /// Nodes of N3.
    nodes_many: u32,
    /// Nodes of B1.
    nodes_bulk: u32,
    sessions: usize,
    sessions_many: usize,
    watchers: [usize; 2],
    fanout_rounds: usize,
    /// Sessions and nodes of F3: each watches every one.
    watching: (usize, u32),
    snapshot_load: Duration,
    /// Leaders killed one after the other.
    failovers: usize,
}

impl Scale {
    const FULL: Scale = Scale {
        first_warmup: Duration::from_secs(12),
        warmup: Duration::from_secs(2),
        duration: Duration::from_secs(5),
        idle: Duration::from_secs(20),
        nodes: 1_000_000,
        nodes_many: 10_000_000,
        nodes_bulk: 400_000,
        sessions: 10_000,
        sessions_many: 100_000,
        watchers: [1000, 5000],
        fanout_rounds: 30,
        watching: (100, 10_000),
        snapshot_load: Duration::from_secs(20),
        failovers: 3,
    };

    const QUICK: Scale = Scale {
        first_warmup: Duration::from_secs(1),
        warmup: Duration::from_millis(200),
        duration: Duration::from_millis(500),
        idle: Duration::from_secs(2),
        nodes: 50_000,
        nodes_many: 100_000,
        nodes_bulk: 20_000,
        sessions: 1000,
        sessions_many: 2000,
        watchers: [100, 500],
        fanout_rounds: 5,
        watching: (20, 1000),
        snapshot_load: Duration::from_secs(10),
        failovers: 1,
    };
}

/// Timeout that sessions of loads ask for.
const SESSION_TIMEOUT_MS: i32 = 30_000;

/// Everything that lasts longer than one server's turn.
struct Comparison {
    reference: Definition,
    candidate: Definition,
    scale: Scale,
    lines: BTreeSet<&'static str>,
    dir: Option<PathBuf>,
    out: Option<File>,
    samples: Vec<Sample>,
    faults: HashMap<Role, Faults>,
    /// Answers per second that the reference gave at most, by workload: the rates of the open loops.
    most: HashMap<&'static str, f64>,
}

/// A group of lines that share a server from its start to its end.
struct Group {
    name: &'static str,
    lines: &'static [&'static str],
    run: fn(&mut Turn<'_>) -> Result<()>,
    /// Whether the reference takes part.
    both: bool,
}

const GROUPS: &[Group] = &[
    Group {
        name: "loads",
        lines: &[
            "R2", "G1", "G2", "G3", "G4", "W1", "W2", "W3", "W4", "M1", "M2", "T1", "S1", "S2", "F1", "F2",
            "B1",
        ],
        run: loads::run,
        both: true,
    },
    Group { name: "idle sessions", lines: &["S3", "S4"], run: states::idle_sessions, both: true },
    Group { name: "many idle sessions", lines: &["S5"], run: states::many_sessions, both: true },
    Group { name: "watches", lines: &["F3"], run: states::watches, both: true },
    Group { name: "a million nodes", lines: &["N1", "N2", "R1", "P1", "N3"], run: states::nodes, both: true },
    // The reference's heap is too small for this many.
    Group { name: "ten million nodes", lines: &["N3"], run: states::many_nodes, both: false },
    Group { name: "ensembles", lines: &["E1", "E2", "E3", "E4", "E5"], run: ensembles::run, both: true },
];

/// Runs the comparison and prints what came of it; true when nothing failed.
pub fn run(args: &CompareArgs) -> Result<bool> {
    let only = match args.only.as_deref() {
        None => None,
        Some("reference") => Some(Role::Reference),
        Some("candidate") => Some(Role::Candidate),
        Some(other) => return Err(Error::Usage(format!("--only {other}: neither reference nor candidate"))),
    };
    super::process::raise_file_limit();
    let out = match &args.out {
        Some(file) => {
            let opened = File::options().create(true).append(true).open(file);
            Some(opened.context(file.display().to_string())?)
        }
        None => None,
    };
    let mut comparison = Comparison {
        reference: Definition::read(&args.reference)?,
        candidate: Definition::read(&args.candidate)?,
        scale: if args.quick { Scale::QUICK } else { Scale::FULL },
        lines: select_lines(&args.lines)?,
        dir: args.dir.clone(),
        out,
        samples: Vec::new(),
        faults: HashMap::new(),
        most: HashMap::new(),
    };
    let all_well = comparison.run(args.rounds as usize, only)?;
    if args.json {
        for sample in &comparison.samples {
            println!("{}", encode(sample)?);
        }
    } else {
        print!("{}", table::render(&comparison.samples, args.markdown));
    }
    Ok(all_well)
}

fn encode(sample: &Sample) -> Result<String> {
    serde_json::to_string(sample).context("encode a sample")
}

/// The lines that are wanted; all but the one that takes long when none is named.
fn select_lines(names: &[String]) -> Result<BTreeSet<&'static str>> {
    let known = lines::lines();
    if names.is_empty() {
        return Ok(known.into_iter().filter(|&line| line != "N3").collect());
    }
    let find = |name: &String| {
        let line = known.iter().find(|line| line.eq_ignore_ascii_case(name)).copied();
        line.ok_or_else(|| Error::Usage(format!("there is no line {name}; there are {}", known.join(", "))))
    };
    names.iter().map(find).collect()
}

impl Comparison {
    fn run(&mut self, rounds: usize, only: Option<Role>) -> Result<bool> {
        let mut all_well = true;
        for group in GROUPS {
            if !group.lines.iter().any(|line| self.lines.contains(line)) {
                continue;
            }
            for round in 1..=rounds {
                for role in Role::BOTH {
                    if only.is_some_and(|only| only != role) || role == Role::Reference && !group.both {
                        continue;
                    }
                    let name = self.definition(role).name.clone();
                    eprintln!("{}, round {round} of {rounds}: {name}", group.name);
                    if let Err(error) = self.turn(group, role, round) {
                        eprintln!("  failed: {error}");
                        all_well = false;
                    }
                }
            }
        }
        for role in Role::BOTH {
            let Some(faults) = self.faults.get(&role).cloned() else { continue };
            if self.lines.contains("Q1") {
                let detail = json!({ "faults": &faults });
                self.record(("Q1", "faults"), role, 1, faults.total() as f64, detail)?;
            }
            all_well &= faults.total() == 0;
        }
        Ok(all_well)
    }

    fn definition(&self, role: Role) -> &Definition {
        match role {
            Role::Reference => &self.reference,
            Role::Candidate => &self.candidate,
        }
    }

    fn turn(&mut self, group: &Group, role: Role, round: usize) -> Result<()> {
        let server = Server::new(self.definition(role), self.dir.as_deref())?;
        let mut turn = Turn { comparison: self, role, round, server };
        (group.run)(&mut turn)?;
        turn.server.stop()
    }

    fn record(
        &mut self,
        (line, key): (&str, &str),
        role: Role,
        round: usize,
        value: f64,
        detail: serde_json::Value,
    ) -> Result<()> {
        if let Some(metric) = lines::metric(line, key) {
            eprintln!("  {line} {}: {}", metric.title, metric.unit.format(value));
        }
        let server = self.definition(role).name.clone();
        let sample = Sample { line: line.into(), key: key.into(), server, role, round, value, detail };
        if let Some(out) = &mut self.out {
            writeln!(out, "{}", encode(&sample)?).context("write a sample")?;
        }
        self.samples.push(sample);
        Ok(())
    }
}

/// One server's turn at a group of lines.
struct Turn<'a> {
    comparison: &'a mut Comparison,
    role: Role,
    round: usize,
    server: Server,
}

impl Turn<'_> {
    fn wants(&self, line: &str) -> bool {
        self.comparison.lines.contains(line)
    }

    fn scale(&self) -> Scale {
        self.comparison.scale
    }

    fn record(&mut self, line: &str, key: &str, value: f64, detail: serde_json::Value) -> Result<()> {
        self.comparison.record((line, key), self.role, self.round, value, detail)
    }

    fn add_faults(&mut self, faults: &Faults) {
        if faults.total() > 0 {
            eprintln!("  faults: {faults:?}");
        }
        self.comparison.faults.entry(self.role).or_default().merge(faults.clone());
    }

    /// A load for the usual time.
    fn load(&self, connections: usize, pace: Pace) -> Load {
        let Scale { warmup, duration, .. } = self.scale();
        Load {
            connections,
            threads: 1,
            pace,
            extent: Extent::Time { warmup, duration },
            session_timeout_ms: SESSION_TIMEOUT_MS,
        }
    }

    /// Makes a load below `/bench/<name>`.
    fn run(&mut self, name: &str, size: usize, workload: Workload, load: &Load) -> Result<Outcome> {
        let target = self.server.target();
        self.run_on(&target, name, size, workload, load)
    }

    /// The same against something else than the turn's server.
    fn run_on(
        &mut self,
        target: &Target,
        name: &str,
        size: usize,
        workload: Workload,
        load: &Load,
    ) -> Result<Outcome> {
        let space = Space::new(format!("/bench/{name}"), 1000, size);
        let outcome = workload::run(target, &space, workload, load)?;
        self.add_faults(&outcome.faults);
        Ok(outcome)
    }
}

/// How a value came about.
fn detail(outcome: &Outcome) -> serde_json::Value {
    serde_json::to_value(Report::new(outcome)).unwrap_or_default()
}

/// A figure that needs the server's CPU time.
fn per_cpu_second(outcome: &Outcome) -> Result<f64> {
    outcome.per_cpu_second().ok_or_else(|| Error::Usage("the server's CPU time is not known".into()))
}
