//! Ensembles that the benchmark starts itself: members on loopback ports, each from a definition of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use super::error::{Context, Error, Result};
use super::server::{Definition, Place, Server, free_port};
use super::workload::Target;

/// How long a four-letter word may take.
const WORD_PATIENCE: Duration = Duration::from_secs(5);

/// How long an ensemble may be without a leader before there seems to be none coming.
const LEADER_PATIENCE: Duration = Duration::from_secs(60);

/// Servers that elect one of them. Their definitions have to allow the word `srvr`.
pub struct Ensemble {
    members: Vec<Server>,
}

impl Ensemble {
    /// Makes the members' directories and configurations; starts nothing. Members are numbered from 1, as the
    /// definitions stand. `tick_ms` replaces the `tickTime` of the definitions.
    pub fn new(definitions: &[&Definition], base: Option<&Path>, tick_ms: Option<u32>) -> Result<Self> {
        let mut settings = "\ninitLimit=10\nsyncLimit=5\n".to_owned();
        let mut ports = Vec::new();
        for id in 1..=definitions.len() {
            ports.push(free_port()?);
            let (quorum, election) = (free_port()?, free_port()?);
            settings.push_str(&format!("server.{id}=127.0.0.1:{quorum}:{election}\n"));
        }
        let member = |(index, definition): (usize, &&Definition)| {
            let mut definition = Definition::clone(definition);
            if let Some(tick_ms) = tick_ms {
                definition.config = with_tick(&definition.config, tick_ms);
            }
            Server::member(&definition, base, ports[index], &Place { id: index + 1, settings: &settings })
        };
        Ok(Ensemble { members: definitions.iter().enumerate().map(member).collect::<Result<_>>()? })
    }

    /// Starts all members, and waits until they serve. The last member leads: it has the greatest id, and the
    /// first quorum has it.
    pub fn start(&mut self) -> Result<()> {
        let minority = self.members.len().saturating_sub(1) / 2;
        let (rest, first) = self.members.split_at_mut(minority);
        for members in [first, rest] {
            let begun: Vec<Instant> = members.iter_mut().map(Server::spawn).collect::<Result<_>>()?;
            for (member, begun) in members.iter_mut().zip(begun) {
                member.await_serving(begun)?;
            }
        }
        let leader = self.leader()?;
        if leader + 1 != self.members.len() {
            return Err(Error::Usage(format!("member {} leads in place of the last one", leader + 1)));
        }
        Ok(())
    }

    /// Asks all members to end, and waits for them.
    pub fn stop(&mut self) -> Result<()> {
        self.members.iter_mut().try_for_each(Server::stop)
    }

    /// The member at this index, from 0.
    pub fn member(&mut self, index: usize) -> &mut Server {
        &mut self.members[index]
    }

    /// Where the members listen for clients.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().map(Server::address).collect()
    }

    /// All members under load: connections go to each in turn, the processes count together.
    pub fn target(&self) -> Target {
        let mut addresses = self.addresses();
        Target {
            address: addresses.remove(0),
            others: addresses,
            pids: self.members.iter().filter_map(Server::pid).collect(),
        }
    }

    /// Index of the leader, from 0. Waits for one.
    pub fn leader(&self) -> Result<usize> {
        let begun = Instant::now();
        while begun.elapsed() < LEADER_PATIENCE {
            // A member without a leader may refuse to answer.
            let leads = |member: &Server| matches!(mode(member.address()), Ok(mode) if mode == "leader");
            if let Some(leader) = self.members.iter().position(leads) {
                return Ok(leader);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(Error::Timeout { what: "electing a leader", seconds: LEADER_PATIENCE.as_secs() })
    }
}

/// The configuration with another `tickTime`.
fn with_tick(config: &str, tick_ms: u32) -> String {
    let others = config.lines().filter(|line| !line.trim_start().starts_with("tickTime"));
    others.map(|line| format!("{line}\n")).collect::<String>() + &format!("tickTime={tick_ms}\n")
}

/// What the server says it is.
fn mode(server: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, WORD_PATIENCE).context("connect")?;
    stream.set_read_timeout(Some(WORD_PATIENCE)).context("socket option")?;
    stream.write_all(b"srvr").context("write to the server")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("read from the server")?;
    let mode = text.lines().find_map(|line| line.strip_prefix("Mode: "));
    mode.map(str::to_owned).ok_or_else(|| Error::Wrong("srvr names no mode".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tick_is_replaced() {
        assert_eq!(with_tick("tickTime=2000\ndataDir={data}", 500), "dataDir={data}\ntickTime=500\n");
    }
}
