//! Creates that take more than one request: with parents, protected, or-set, idempotent.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use zk_proto::SessionId;
use zk_proto::path::{join, split};

use super::create::{Create, Created, Mode, Parents, Protection, submit_create};
use crate::call::SubmitMode;
use crate::client::Client;
use crate::config::Acl;
use crate::error::{Error, Result, ServerCode};
use crate::session::Cleanup;

/// A container that has become empty may be reaped between its creation and that of its child.
const PARENT_ATTEMPTS_MAX: u32 = 10;

/// Wait before an overloaded server is asked again.
const PATIENCE: Duration = Duration::from_millis(100);

/// A create that owns what it needs.
pub(super) struct CreateTask {
    client: Client,
    path: String,
    data: Bytes,
    acl: Option<Vec<Acl>>,
    mode: Mode,
    sequential: bool,
    parents: Parents,
    protection: Option<Protection>,
    or_set: bool,
    idempotent: bool,
}

impl CreateTask {
    pub(super) fn new(create: Create<'_>) -> Self {
        let Create { client, path, data, acl, mode, sequential, parents, protection, or_set, idempotent } =
            create;
        CreateTask {
            client: client.clone(),
            path: path.to_owned(),
            data,
            acl,
            mode,
            sequential,
            parents,
            protection,
            or_set,
            idempotent,
        }
    }

    pub(super) async fn run(mut self) -> Result<Created> {
        if self.sequential && (self.or_set || self.idempotent) {
            let why = format!("create {:?}: a sequential node is new every time", self.path);
            return Err(Error::InvalidArgument(why));
        }
        match self.protection.take() {
            Some(protection) => self.run_protected(protection).await,
            None => self.run_plain().await,
        }
    }

    async fn run_plain(self) -> Result<Created> {
        let mut unknown = false;
        loop {
            let error = match self.create(&self.client, &self.path).await {
                Ok(created) => return Ok(created),
                Err(error) => error,
            };
            if error.is_node_exists() && self.or_set {
                match self.client.set(&self.path, self.data.clone()).await {
                    Err(e) if e.is_no_node() => continue,
                    Err(e) if self.idempotent && e.may_have_been_applied() => {
                        self.client.before_repeating(e).await?;
                        continue;
                    }
                    set => return Ok(Created { path: self.path, stat: set? }),
                }
            }
            if error.is_node_exists() && unknown {
                let (data, stat) = self.client.get(&self.path).await?;
                let ours = self.mode != Mode::Ephemeral || stat.ephemeral_owner == self.client.session_id().0;
                if data == self.data && ours {
                    return Ok(Created { path: self.path, stat });
                }
            }
            if !self.idempotent {
                return Err(error);
            }
            unknown |= error.may_have_been_applied();
            self.client.before_repeating(error).await?;
        }
    }

    /// One create, and its parents if need be.
    async fn create(&self, zk: &Client, path: &str) -> Result<Created> {
        let mut attempts = 0;
        loop {
            let acl = self.acl.as_deref();
            let submit = SubmitMode::default();
            let call = submit_create(&self.client, path, &self.data, acl, self.mode, self.sequential, submit);
            match call?.await {
                Err(e)
                    if e.is_no_node()
                        && self.parents != Parents::MustExist
                        && attempts < PARENT_ATTEMPTS_MAX =>
                {
                    attempts += 1;
                    if let Some((parent, _)) = split(path) {
                        zk.create_parents(parent, self.parents).await?;
                    }
                }
                created => return created,
            }
        }
    }

    async fn run_protected(self, protection: Protection) -> Result<Created> {
        let path = self.path.clone();
        let Some((dir, base)) = split(&path) else {
            return Err(Error::InvalidArgument(format!("create {path:?}: no name to protect")));
        };
        loop {
            let (zk, owner) = self.bound_client().await?;
            let prefix = self.prefix(&protection);
            match self.create_in(&zk, dir, base, &prefix, owner).await {
                // What the old session may have created is its server's to delete: never adopt it.
                Err(Error::SessionExpired(_)) if owner.is_some() && self.client.pin.is_none() => {}
                done => return done,
            }
        }
    }

    /// The handle for one attempt. That for an ephemeral node is bound to the session that will own it.
    async fn bound_client(&self) -> Result<(Client, Option<SessionId>)> {
        if self.mode != Mode::Ephemeral {
            return Ok((self.client.clone(), None));
        }
        let session = match (self.client.pin, self.client.session_id()) {
            (Some(pin), _) => pin,
            (None, SessionId::NONE) => self.client.connected().await?,
            (None, session) => session,
        };
        Ok((self.client.pinned_to(session), Some(session)))
    }

    /// Creates the node within one session.
    async fn create_in(
        &self,
        zk: &Client,
        dir: &str,
        base: &str,
        prefix: &str,
        owner: Option<SessionId>,
    ) -> Result<Created> {
        // From the first request on, whatever was created is ours or is deleted: also when this is dropped.
        let mut pending = PendingNode { client: zk, dir, prefix, owner, armed: true };
        let path = join(dir, &format!("{prefix}{base}"));
        loop {
            match self.create(zk, &path).await {
                // The server answered, but asks for patience.
                Err(error) if error.is_retryable() && error.code().is_some() => sleep(PATIENCE).await,
                Err(error) if error.is_retryable() => {}
                // An error proves that nothing was created, or that the node went with its session.
                created => {
                    pending.armed = false;
                    return created;
                }
            }
            let found = loop {
                let found = match zk.connected().await {
                    Ok(_) => self.find(zk, dir, prefix, owner).await,
                    Err(error) => Err(error),
                };
                match found {
                    Err(error) if error.is_retryable() => {}
                    Err(error) => {
                        pending.armed = !error.is_session_fatal();
                        return Err(error);
                    }
                    Ok(found) => break found,
                }
            };
            if let Some(created) = found {
                pending.armed = false;
                return Ok(created);
            }
        }
    }

    fn prefix(&self, protection: &Protection) -> String {
        match protection {
            Protection::Curator => format!("_c_{}-", self.client.guid()),
            Protection::Prefix(prefix) => prefix.clone(),
        }
    }

    /// Looks for the node of a create with unknown outcome. The sync is needed because another server may lag
    /// behind what the lost connection's server has applied.
    async fn find(
        &self,
        zk: &Client,
        dir: &str,
        prefix: &str,
        owner: Option<SessionId>,
    ) -> Result<Option<Created>> {
        let names = match zk.linearizable().children(dir).await {
            Err(e) if e.is_no_node() => return Ok(None),
            listed => listed?.0,
        };
        let mut names: Vec<_> = names.into_iter().filter(|name| name.starts_with(prefix)).collect();
        names.sort_unstable_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        let mut found: Option<Created> = None;
        for name in names {
            let path = join(dir, &name);
            let Some(stat) = zk.exists(&path).await? else { continue };
            if owner.is_some_and(|owner| stat.ephemeral_owner != owner.0) {
                continue;
            }
            match found {
                None => found = Some(Created { path, stat }),
                // The lowest number is the one to keep.
                Some(_) => drop(zk.delete(&path).if_exists().send()),
            }
        }
        Ok(found)
    }
}

/// Deletes what a protected create may have left, unless it is disarmed.
struct PendingNode<'a> {
    client: &'a Client,
    dir: &'a str,
    prefix: &'a str,
    /// The session of an ephemeral node.
    owner: Option<SessionId>,
    armed: bool,
}

impl Drop for PendingNode<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let (dir, prefix) = (self.dir.to_owned(), self.prefix.to_owned());
        let cleanup = match self.owner {
            Some(_) => Cleanup::DeleteByGuid { dir, prefix },
            None => Cleanup::DeletePersistentByGuid { dir, prefix },
        };
        drop(self.client.clean_up_of(cleanup, self.owner));
    }
}

impl Client {
    /// Creates `path` and every parent that is missing.
    pub(super) async fn create_parents(&self, path: &str, parents: Parents) -> Result<()> {
        let mut missing = vec![path.to_owned()];
        let mut mode = match parents {
            Parents::Container => Mode::Container,
            Parents::Persistent | Parents::MustExist => Mode::Persistent,
        };
        while let Some(node) = missing.last() {
            if node == "/" && self.root.as_str().is_empty() {
                return Ok(());
            }
            match self.create_parent(node, mode).await {
                Ok(()) => {
                    missing.pop();
                }
                Err(e) if e.is_node_exists() => {
                    missing.pop();
                }
                Err(e) if e.code() == Some(ServerCode::UNIMPLEMENTED) && mode == Mode::Container => {
                    mode = Mode::Persistent;
                }
                Err(e) if e.is_no_node() => match split(node) {
                    Some((parent, _)) => missing.push(parent.to_owned()),
                    None => return Err(e),
                },
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    async fn create_parent(&self, path: &str, mode: Mode) -> Result<()> {
        self.create(path, Bytes::new()).mode(mode).await.map(drop)
    }

    /// Waits until an operation that failed with `error` can be repeated; fails with it if it cannot.
    pub(super) async fn before_repeating(&self, error: Error) -> Result<()> {
        match error {
            Error::ConnectionLoss { .. } | Error::Timeout { .. } => self.connected().await.map(drop),
            error => Err(error),
        }
    }
}
