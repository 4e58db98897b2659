//! What goes wrong, and its end.

use zk_server::member::PeerPort;
use zk_server::zab::PeerState;

use super::node::Crash;
use super::{Event, MS, NodeId, SECOND, Us, Violation, World};

/// A fault that ends.
#[derive(Debug)]
pub(super) enum Ending {
    Partition(Vec<(NodeId, NodeId, PeerPort)>),
    SlowDisk(NodeId),
    SlowNetwork,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Kill,
    Power,
    CrashInOperation,
    KillLeader,
    PowerAll,
    DiskError,
    SlowDisk,
    Partition,
    DropConnection,
    Pause,
    ClockJump,
    DropClient,
    SlowNetwork,
}

impl World {
    fn draw_kind(&mut self) -> Option<Kind> {
        let f = &self.swarm.faults;
        let rates = [
            (f.kill, Kind::Kill),
            (f.power, Kind::Power),
            (f.crash_in_operation, Kind::CrashInOperation),
            (f.kill_leader, Kind::KillLeader),
            (f.power_all, Kind::PowerAll),
            (f.disk_error, Kind::DiskError),
            (f.slow_disk, Kind::SlowDisk),
            (f.partition, Kind::Partition),
            (f.drop_connection, Kind::DropConnection),
            (f.pause, Kind::Pause),
            (f.clock_jump, Kind::ClockJump),
            (f.drop_client, Kind::DropClient),
            (f.slow_network, Kind::SlowNetwork),
        ];
        let mut at = self.rng.f64() * f.total();
        for (rate, kind) in rates {
            if at < rate {
                return Some(kind);
            }
            at -= rate;
        }
        None
    }

    pub(super) fn fault(&mut self) -> Result<(), Violation> {
        if self.healing {
            return Ok(());
        }
        let per_minute = self.swarm.faults.total();
        let mean = (60.0 * SECOND as f64 / per_minute) as Us;
        let next = self.rng.u64(0..=2 * mean);
        self.plan(next, Event::Fault);
        let Some(kind) = self.draw_kind() else { return Ok(()) };
        self.counts.faults += 1;
        super::trace::set_node(0);
        let node = self.rng.usize(0..self.nodes.len());
        match kind {
            Kind::Kill => self.crash_and_restart_soon(node, Crash::Kill),
            Kind::Power => self.crash_and_restart_soon(node, Crash::Power),
            Kind::CrashInOperation => {
                let crash = if self.rng.bool() { Crash::Kill } else { Crash::Power };
                self.nodes[node].crash_in_operation = Some(crash);
            }
            Kind::KillLeader => {
                if let Some(leader) = self.leader() {
                    let crash = if self.rng.bool() { Crash::Kill } else { Crash::Power };
                    self.crash_and_restart_soon(leader, crash);
                }
            }
            Kind::PowerAll => {
                for node in 0..self.nodes.len() {
                    self.crash_and_restart_soon(node, Crash::Power);
                }
            }
            Kind::DiskError => self.nodes[node].disk_error = true,
            Kind::SlowDisk => {
                self.trace.tell(|| format!("the disk of node {} is slow", node + 1));
                self.nodes[node].disk_factor = self.rng.u64(10..200);
                self.end_soon(Ending::SlowDisk(node));
            }
            Kind::Partition => self.partition(),
            Kind::DropConnection => {
                let open = self.net.open();
                if !open.is_empty() {
                    let conn = open[self.rng.usize(0..open.len())];
                    return self.break_connection(conn);
                }
            }
            Kind::Pause => self.pause(node),
            Kind::ClockJump => {
                let ms = self.rng.i64(-100_000_000..100_000_000);
                self.trace.tell(|| format!("the wall clock of node {} jumps by {ms} ms", node + 1));
                self.nodes[node].wall_offset_ms += ms;
            }
            Kind::DropClient => {
                let client = self.rng.usize(0..self.clients.len());
                self.client_hangs_up(client);
            }
            Kind::SlowNetwork => {
                self.net.slow_factor = self.rng.u64(2..50);
                self.trace.tell(|| format!("the network is {} times slower", self.net.slow_factor));
                self.end_soon(Ending::SlowNetwork);
            }
        }
        Ok(())
    }

    fn end_soon(&mut self, ending: Ending) {
        let after = self.rng.u64(100..10_000) * MS;
        self.plan(after, Event::FaultEnds(ending));
    }

    fn pause(&mut self, node: NodeId) {
        let place = &mut self.nodes[node];
        if place.process.is_some() && place.paused.is_none() {
            place.paused = Some(Vec::new());
            self.trace.tell(|| format!("node {} stands still", node + 1));
            let after = self.rng.u64(100..8000) * MS;
            self.plan(after, Event::Resume { node });
        }
    }

    /// Who is an established leader, if only one is.
    pub(super) fn leader(&self) -> Option<NodeId> {
        let leads = |node: &NodeId| {
            let process = self.nodes[*node].process.as_ref();
            process.is_some_and(|process| {
                let status = process.member.status();
                status.state == PeerState::Leading && status.leading.is_some_and(|leading| leading.active)
            })
        };
        (0..self.nodes.len()).rfind(leads)
    }

    fn partition(&mut self) {
        let nodes = self.nodes.len();
        let mut cut = Vec::new();
        let ports: &[PeerPort] = match self.rng.u8(0..4) {
            0 => &[PeerPort::Election],
            1 => &[PeerPort::Quorum],
            _ => &[PeerPort::Election, PeerPort::Quorum],
        };
        let both = self.rng.u8(0..3) > 0;
        // One node alone, two halves, or single directions.
        let form = self.rng.u8(0..3);
        let alone = self.rng.usize(0..nodes);
        let half: Vec<bool> = (0..nodes).map(|_| self.rng.bool()).collect();
        for from in 0..nodes {
            for to in 0..nodes {
                let apart = match form {
                    0 => from == alone || both && to == alone,
                    1 => half[from] && !half[to] || both && half[to] && !half[from],
                    _ => self.rng.u8(0..4) == 0,
                };
                if from != to && apart {
                    cut.extend(ports.iter().map(|&port| (from, to, port)));
                }
            }
        }
        self.trace.tell(|| {
            let pairs: Vec<String> =
                cut.iter().map(|(a, b, port)| format!("{}-{} {port:?}", a + 1, b + 1)).collect();
            format!("cut: {}", pairs.join(", "))
        });
        for &(from, to, port) in &cut {
            self.block(from, to, port, true);
        }
        self.end_soon(Ending::Partition(cut));
    }

    pub(super) fn fault_ends(&mut self, ending: Ending) {
        super::trace::set_node(0);
        self.trace.tell(|| format!("ends: {ending:?}"));
        match ending {
            Ending::Partition(cut) => {
                for (from, to, port) in cut {
                    self.block(from, to, port, false);
                }
            }
            Ending::SlowDisk(node) => self.nodes[node].disk_factor = 1,
            Ending::SlowNetwork => self.net.slow_factor = 1,
        }
    }

    /// Nothing goes wrong from now on, and everything that does ends.
    pub(super) fn heal(&mut self) {
        super::trace::set_node(0);
        self.trace.tell(|| "everything is well from here on".into());
        self.healing = true;
        let ending: Vec<Ending> = {
            let mut kept = Vec::new();
            let mut endings = Vec::new();
            for due in std::mem::take(&mut self.queue).into_vec() {
                match due.0.2 {
                    Event::FaultEnds(ending) => endings.push((due.0.1, ending)),
                    event => kept.push(std::cmp::Reverse(super::Due(due.0.0, due.0.1, event))),
                }
            }
            self.queue = kept.into();
            endings.sort_by_key(|(planned, _)| *planned);
            endings.into_iter().map(|(_, ending)| ending).collect()
        };
        for ending in ending {
            self.fault_ends(ending);
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].crash_in_operation = None;
            self.nodes[node].disk_error = false;
            self.resume(node);
            if self.nodes[node].process.is_none() {
                self.plan(0, Event::Start { node });
            }
        }
    }
}
