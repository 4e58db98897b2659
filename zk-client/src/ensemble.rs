//! The ensemble's membership as `/zookeeper/config` shows it.

use crate::hosts::Host;

/// Where the configuration lies, whatever the chroot.
pub(crate) const CONFIG: &str = "/zookeeper/config";

/// The client addresses in a configuration; servers that name none are left out.
pub(crate) fn client_addresses(config: &str) -> Vec<Host> {
    config.lines().filter_map(client_address).collect()
}

/// `server.N=host:quorum:election[:role][|...];[address:]port`
fn client_address(line: &str) -> Option<Host> {
    let (_, server) = line.trim().strip_prefix("server.")?.split_once('=')?;
    let (quorum, client) = server.split_once(';')?;
    let quorum_host = match quorum.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => quorum.split_once(':')?.0,
    };
    let (address, port) = client.rsplit_once(':').unwrap_or(("", client));
    let address = address.trim_start_matches('[').trim_end_matches(']');
    // Listening everywhere says nothing about where to reach it.
    let any = matches!(address, "" | "0.0.0.0" | "::" | "0:0:0:0:0:0:0:0");
    let name = if any { quorum_host } else { address };
    let port = port.trim().parse().ok().filter(|&port| port != 0)?;
    (!name.is_empty()).then(|| Host::new(name, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_dynamic_configurations() {
        let config = "server.1=zk1:2888:3888:participant;0.0.0.0:2181\n\
                      server.2=zk2:2888:3888:observer;10.0.0.2:2182\n\
                      server.3=zk3:2888:3888\n\
                      server.4=[fd00::4]:2888:3888:participant;[::]:2184\n\
                      server.5=a:2888:3888|b:2888:3888:participant;2185\n\
                      server.6=x;junk\nversion=100000000";
        let hosts: Vec<_> = client_addresses(config).iter().map(Host::to_string).collect();
        assert_eq!(hosts, ["zk1:2181", "10.0.0.2:2182", "[fd00::4]:2184", "a:2185"]);
    }
}
