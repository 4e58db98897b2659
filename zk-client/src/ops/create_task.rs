//! Creates that take more than one request: with parents, protected, or-set, idempotent.

use bytes::Bytes;
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
            let error = match self.create(&self.path).await {
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
    async fn create(&self, path: &str) -> Result<Created> {
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
                        self.client.create_parents(parent, self.parents).await?;
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
        let mut prefix = self.prefix(&protection);
        let mut session = self.client.session_id();
        // From the first request on, whatever was created is ours or is deleted: also when this is dropped.
        let mut pending = PendingNode::new(&self.client, dir, &prefix, self.owner(session));
        loop {
            let error = match self.create(&join(dir, &format!("{prefix}{base}"))).await {
                Ok(created) => {
                    pending.disarm();
                    return Ok(created);
                }
                Err(error) => error,
            };
            if !error.may_have_been_applied() && !error.is_retryable() {
                // Proves that nothing was created, except for a session that took its nodes with it.
                pending.disarm();
                return Err(error);
            }
            let found = loop {
                let now = self.client.connected().await?;
                if self.mode == Mode::Ephemeral && now != session {
                    break None;
                }
                match self.find(dir, &prefix, session).await {
                    Err(e) if e.is_retryable() => continue,
                    found => break found?,
                }
            };
            if let Some(created) = found {
                pending.disarm();
                return Ok(created);
            }
            let now = self.client.session_id();
            if self.mode == Mode::Ephemeral && now != session {
                // What the old session may have created is its server's to delete: never adopt it.
                pending.disarm();
                session = now;
                if let Protection::Curator = protection {
                    prefix = self.prefix(&protection);
                }
                pending = PendingNode::new(&self.client, dir, &prefix, self.owner(session));
            }
        }
    }

    fn prefix(&self, protection: &Protection) -> String {
        match protection {
            Protection::Curator => format!("_c_{}-", self.client.guid()),
            Protection::Prefix(prefix) => prefix.clone(),
        }
    }

    fn owner(&self, session: SessionId) -> Option<SessionId> {
        (self.mode == Mode::Ephemeral).then_some(session)
    }

    /// Looks for the node of a create with unknown outcome. The sync is needed because another server may lag
    /// behind what the lost connection's server has applied.
    async fn find(&self, dir: &str, prefix: &str, session: SessionId) -> Result<Option<Created>> {
        let names = match self.client.linearizable().children(dir).await {
            Err(e) if e.is_no_node() => return Ok(None),
            listed => listed?.0,
        };
        let mut names: Vec<_> = names.into_iter().filter(|name| name.starts_with(prefix)).collect();
        names.sort_unstable_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        let mut found: Option<Created> = None;
        for name in names {
            let path = join(dir, &name);
            let Some(stat) = self.client.exists(&path).await? else { continue };
            if self.mode == Mode::Ephemeral && stat.ephemeral_owner != session.0 {
                continue;
            }
            match found {
                None => found = Some(Created { path, stat }),
                // The lowest number is the one to keep.
                Some(_) => drop(self.client.delete(&path).if_exists().send()),
            }
        }
        Ok(found)
    }
}

/// Deletes what a protected create may have left, unless it is disarmed.
struct PendingNode<'a> {
    client: &'a Client,
    dir: &'a str,
    prefix: String,
    /// The session of an ephemeral node.
    owner: Option<SessionId>,
    armed: bool,
}

impl<'a> PendingNode<'a> {
    fn new(client: &'a Client, dir: &'a str, prefix: &str, owner: Option<SessionId>) -> Self {
        PendingNode { client, dir, prefix: prefix.to_owned(), owner, armed: true }
    }

    fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for PendingNode<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let (dir, prefix) = (self.dir.to_owned(), self.prefix.clone());
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
