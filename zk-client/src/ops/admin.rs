//! Operations on the session and the ensemble rather than on one node.

use bytes::Bytes;
use zk_proto::jute::Writer;
use zk_proto::{OpCode, Stat};

use super::get::decode_data;
use super::{check_path, decode_empty};
use crate::call::{Call, Decode, Plan, Reply, SubmitMode};
use crate::client::Client;
use crate::config::Auth;
use crate::ensemble::CONFIG;
use crate::error::Result;
use crate::root::Root;
use crate::watch::OneShot;

/// A change of the ensemble's membership.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconfig {
    /// Servers to add or change: `server.N=host:quorum:election[:role];[address:]clientport`, comma
    /// separated.
    pub joining: Option<String>,
    /// Ids of servers to remove, comma separated.
    pub leaving: Option<String>,
    /// The whole new membership, comma separated; instead of the other two.
    pub members: Option<String>,
    /// The version of the configuration that must be current.
    pub from_version: Option<i64>,
}

impl Client {
    fn plan<'a, T>(&'a self, op: OpCode, path: &'a str, decode: Decode<T>, is_read: bool) -> Plan<'a, T> {
        Plan {
            client: self,
            op,
            path: path.into(),
            decode,
            watch: None,
            is_read,
            operations: 0,
            mode: SubmitMode::default(),
        }
    }

    /// Waits until the connected server has caught up with its leader: a read that follows sees everything
    /// that was committed before.
    pub async fn sync(&self, path: &str) -> Result<()> {
        check_path(OpCode::Sync, path)?;
        let plan = self.plan(OpCode::Sync, path, decode_empty as Decode<()>, false);
        Call::submit(plan, |w, _| self.root.put(w, path))?.await
    }

    /// Adds credentials to this connection and all later ones. When a server refuses them, the client ends
    /// with `AuthFailed`. Cancel safe, but the credentials stay.
    pub async fn authenticate(&self, auth: Auth) -> Result<()> {
        let submitted = self.handle.with(|session| {
            let id = session.id();
            session.authenticate(auth, self.pin, None).map(|slot| (slot, id))
        });
        let (slot, session) = submitted.map_err(|failure| failure.into_error("auth", ""))?;
        Call::waiting(self, OpCode::Auth, "".into(), decode_empty as Decode<()>, slot, session).await
    }

    /// The identities of this connection, as scheme and user. Servers since 3.7.
    pub async fn who_am_i(&self) -> Result<Vec<(String, String)>> {
        let plan = self.plan(OpCode::WhoAmI, "", decode_identities as Decode<_>, true);
        let plan = Plan { is_read: false, ..plan };
        Call::submit(plan, |_, _| {})?.await
    }

    /// The session's ephemeral nodes whose paths begin with `prefix` (as text, not as path). Servers since
    /// 3.6. Under a chroot, only those below it.
    pub async fn ephemerals(&self, prefix: &str) -> Result<Vec<String>> {
        let full = match (self.root.as_str(), prefix) {
            ("", prefix) => prefix.to_owned(),
            (root, prefix) => format!("{root}{}", if prefix.is_empty() { "/" } else { prefix }),
        };
        let plan = self.plan(OpCode::GetEphemerals, prefix, decode_paths as Decode<_>, false);
        Call::submit(plan, |w, _| w.put_str(&full))?.await
    }

    /// The number of nodes below `path`, at any depth. Servers since 3.6.
    pub async fn count_descendants(&self, path: &str) -> Result<u64> {
        check_path(OpCode::GetAllChildrenNumber, path)?;
        let plan = self.plan(OpCode::GetAllChildrenNumber, path, decode_count as Decode<_>, true);
        Call::submit(plan, |w, _| self.root.put(w, path))?.await
    }

    /// The ensemble's configuration, as text. The chroot does not apply.
    pub async fn config(&self) -> Result<(Bytes, Stat)> {
        self.unrooted().get(CONFIG).await
    }

    /// As [`config`](Client::config), with a watch that fires when it changes.
    pub async fn config_watched(&self) -> Result<(Bytes, Stat, OneShot)> {
        self.unrooted().get(CONFIG).watched().await
    }

    fn unrooted(&self) -> Client {
        Client { root: Root::default(), ..self.clone() }
    }

    /// Changes the ensemble's membership; returns the new configuration. Needs `reconfigEnabled` on the
    /// servers and the permission to write `/zookeeper/config`.
    pub async fn reconfig(&self, change: &Reconfig) -> Result<(Bytes, Stat)> {
        let plan = self.plan(OpCode::Reconfig, CONFIG, decode_data as Decode<_>, false);
        Call::submit(plan, |w, _| {
            w.put_opt_str(change.joining.as_deref());
            w.put_opt_str(change.leaving.as_deref());
            w.put_opt_str(change.members.as_deref());
            w.put_long(change.from_version.unwrap_or(-1));
        })?
        .await
    }
}

fn decode_identities(reply: &Reply<'_>) -> Result<Vec<(String, String)>> {
    reply.ok()?;
    let identities = reply.reader().vector(|r| {
        let (scheme, user) = (r.string()?, r.string()?);
        Ok((scheme.unwrap_or_default().into_owned(), user.unwrap_or_default().into_owned()))
    });
    identities.map(Option::unwrap_or_default).map_err(|e| reply.garbled(e))
}

fn decode_paths(reply: &Reply<'_>) -> Result<Vec<String>> {
    reply.ok()?;
    let paths = reply.reader().vector(|r| Ok(reply.root.strip(&r.required_string("path")?).to_owned()));
    paths.map(Option::unwrap_or_default).map_err(|e| reply.garbled(e))
}

fn decode_count(reply: &Reply<'_>) -> Result<u64> {
    reply.ok()?;
    let count = reply.reader().i32().map_err(|e| reply.garbled(e))?;
    u64::try_from(count).map_err(|_| crate::error::Error::Protocol(format!("{count} descendants")))
}
