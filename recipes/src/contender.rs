//! Standing in line: one node per contender, everybody watches only the one in front (no herd).

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use zk_client::{Cleanup, Client, Error, Parents, SessionState, SessionStates};

use crate::error::{RecipeError, Result};
use crate::layout::{Kind, Layout, Place};

/// Servers do not tell of a change to somebody who may not read the node; so waiters look again by themselves.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How often to look when the node in front may not be read at all.
const LOOK_AGAIN_UNREADABLE: Duration = Duration::from_secs(1);

/// Where a line is and how its members are named.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub dir: String,
    pub layout: Layout,
    pub kind: Kind,
}

/// Our node in a line. Dropping it deletes the node in the background.
#[derive(Debug)]
pub(crate) struct Contender {
    /// Bound to the session that owns the node.
    pub client: Client,
    pub path: String,
    pub name: String,
    /// Zxid of the create.
    pub czxid: i64,
    armed: bool,
}

impl Contender {
    /// The node is somebody else's business from now on.
    pub fn disarm(mut self) -> (Client, String, i64) {
        self.armed = false;
        (self.client.clone(), std::mem::take(&mut self.path), self.czxid)
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        if self.armed {
            drop(self.client.clean_up(Cleanup::Delete { path: std::mem::take(&mut self.path), czxid: None }));
        }
    }
}

impl Line {
    pub fn new(dir: &str, layout: Layout, kind: Kind) -> Self {
        Line { dir: dir.to_owned(), layout, kind }
    }

    /// The contenders now, first in line first.
    pub async fn places(&self, client: &Client) -> Result<Vec<Place>> {
        match client.children(&self.dir).await {
            Ok((children, _)) => self.layout.line(self.kind, &self.dir, children),
            Err(error) if error.is_no_node() => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    pub fn path(&self, name: &str) -> String {
        if self.dir == "/" { format!("/{name}") } else { format!("{}/{name}", self.dir) }
    }

    /// Creates our node at the end of the line. The listing that is sent behind the create in the same flight
    /// comes along: it holds our node already, so an uncontended acquire takes one round trip.
    ///
    /// Cancel safe: nothing remains.
    pub async fn join(&self, client: &Client, data: Bytes) -> Result<(Contender, Option<Vec<String>>)> {
        client.connected().await?;
        let client = client.pinned();
        let prefix = self.layout.prefix(&client.guid());
        let path = self.path(self.layout.base(self.kind));
        let create = client
            .create(&path, data)
            .ephemeral()
            .sequential()
            .parents(Parents::Container)
            .protected_by(prefix)
            .send();
        let listing = client.children(&self.dir).send();
        let created = create.await?;
        let name = created.path.rsplit('/').next().unwrap_or_default().to_owned();
        let contender = Contender {
            client: client.clone(),
            name,
            path: created.path,
            czxid: created.stat.czxid,
            armed: true,
        };
        let listing = match listing.await {
            Ok((children, _)) if children.contains(&contender.name) => Some(children),
            _ => None,
        };
        Ok((contender, listing))
    }

    /// Waits until ours is the first in line. Cancel safe; dropping the contender leaves the line.
    pub async fn wait_turn(&self, contender: &Contender, mut listing: Option<Vec<String>>) -> Result<()> {
        let client = &contender.client;
        let mut states = client.states();
        let mut own = None;
        loop {
            let children = match listing.take() {
                Some(children) => children,
                None => match client.children(&self.dir).await {
                    Ok((children, _)) => children,
                    Err(error) if error.is_no_node() => return Err(RecipeError::NodeDeleted),
                    Err(error) => {
                        reconnected(client, error).await?;
                        continue;
                    }
                },
            };
            let line = self.layout.line(self.kind, &self.dir, children)?;
            let Some(at) = line.iter().position(|place| place.name == contender.name) else {
                return Err(RecipeError::NodeDeleted);
            };
            if line[at].sequence.is_exhausted() {
                return Err(self.exhausted(contender).await);
            }
            let Some(front) = at.checked_sub(1).map(|at| &line[at]) else { return Ok(()) };

            if own.is_none() {
                match client.exists(&contender.path).watched().await {
                    Ok((Some(_), watch)) => own = Some(Box::pin(watch.fired())),
                    Ok((None, _)) => return Err(RecipeError::NodeDeleted),
                    Err(error) => {
                        reconnected(client, error).await?;
                        continue;
                    }
                }
            }
            // getData, not exists: on a missing node it leaves no watch behind.
            let (gone, again) = match client.get(&self.path(&front.name)).watched().await {
                Ok((_, _, watch)) => (Some(watch.fired()), LOOK_AGAIN),
                Err(error) if error.is_no_node() => continue,
                Err(error) if error.code() == Some(zk_client::ServerCode::NO_AUTH) => {
                    (None, LOOK_AGAIN_UNREADABLE)
                }
                Err(error) => {
                    reconnected(client, error).await?;
                    continue;
                }
            };
            let gone = async {
                match gone {
                    Some(gone) => drop(gone.await),
                    None => std::future::pending().await,
                }
            };
            let own_changed = async {
                match &mut own {
                    Some(own) => drop(own.await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = gone => {}
                () = own_changed => own = None,
                () = tokio::time::sleep_until(Instant::now() + again) => {}
                generation = next_connection(&mut states) => generation?,
            }
        }
    }

    /// The counter has reached its end. Leaves, and deletes the directory if nobody else is there: a new one
    /// starts at 0.
    async fn exhausted(&self, contender: &Contender) -> RecipeError {
        let client = &contender.client;
        let _ = client.clean_up(Cleanup::Delete { path: contender.path.clone(), czxid: None }).await;
        let _ = client.delete(&self.dir).await;
        RecipeError::SequenceExhausted(self.dir.clone())
    }
}

/// Waits for a new connection of the same session (a look at the line is due then), or fails when the session
/// is over.
async fn next_connection(states: &mut SessionStates) -> Result<()> {
    loop {
        match states.changed().await {
            None | Some(SessionState::Closed) => return Err(Error::Closed.into()),
            Some(SessionState::Connected { .. }) => return Ok(()),
            Some(SessionState::Expired { session, confirmed: true }) => {
                return Err(Error::SessionExpired(session).into());
            }
            Some(SessionState::AuthFailed) => {
                return Err(Error::AuthFailed("credentials refused".into()).into());
            }
            Some(_) => {}
        }
    }
}

/// After an error of a read: waits for a connection if that is what was missing.
pub(crate) async fn reconnected(client: &Client, error: Error) -> Result<()> {
    if !error.is_retryable() {
        return Err(error.into());
    }
    client.connected().await?;
    Ok(())
}
