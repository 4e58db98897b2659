//! Typed data, as JSON. Feature `serde`.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zk_proto::{OpCode, Stat};

use crate::client::Client;
use crate::error::{Error, Result, ServerCode};

impl Client {
    /// Reads a node's data as JSON; `Decode` if it is something else.
    pub async fn get_as<T: DeserializeOwned>(&self, path: &str) -> Result<(T, Stat)> {
        let (data, stat) = self.get(path).await?;
        Ok((decode(path, &data)?, stat))
    }

    /// Writes `value` as JSON, into a new persistent node if there is none. As cancel safe as `set`.
    pub async fn put_as<T: Serialize + Sync>(&self, path: &str, value: &T) -> Result<Stat> {
        let data = encode(path, value)?;
        match self.set(path, data.clone()).await {
            Err(e) if e.is_no_node() => Ok(self.create(path, data).or_set().await?.stat),
            set => set,
        }
    }

    /// Changes a node's JSON by compare and set: `f` gets the current value (`None` if there is no node) and
    /// returns the new one, or `None` to leave things as they are. It is called again when somebody else was
    /// faster. Returns the value that the node has then; `NoNode` if there is none.
    ///
    /// A lost connection is returned, not retried: the change may be in effect.
    pub async fn update<T, F>(&self, path: &str, mut f: F) -> Result<(T, Stat)>
    where
        T: Serialize + DeserializeOwned + Send,
        F: FnMut(Option<T>) -> Option<T> + Send,
    {
        loop {
            let current = self.get(path).optional().await?;
            let value = match &current {
                Some((data, _)) => Some(decode(path, data)?),
                None => None,
            };
            let written = match (f(value), current) {
                (None, Some((data, stat))) => return Ok((decode(path, &data)?, stat)),
                (None, None) => {
                    let (op, path) = (OpCode::GetData.name(), path.to_owned());
                    return Err(Error::Server { op, path, code: ServerCode::NO_NODE });
                }
                (Some(new), current) => {
                    let data = encode(path, &new)?;
                    let stat = match current {
                        Some((_, stat)) => self.set(path, data).version(stat.version).await,
                        None => self.create(path, data).await.map(|created| created.stat),
                    };
                    stat.map(|stat| (new, stat))
                }
            };
            match written {
                // Somebody else has written, deleted or created the node in between.
                Err(e) if e.is_bad_version() || e.is_no_node() || e.is_node_exists() => {
                    // A missing parent looks the same, but does not go away.
                    if e.is_no_node() && self.get(path).optional().await?.is_none() {
                        self.parent_exists(path, e).await?;
                    }
                }
                done => return done,
            }
        }
    }

    async fn parent_exists(&self, path: &str, error: Error) -> Result<()> {
        match zk_proto::path::split(path) {
            Some((parent, _)) if self.exists(parent).await?.is_some() => Ok(()),
            _ => Err(error),
        }
    }
}

fn decode<T: DeserializeOwned>(path: &str, data: &[u8]) -> Result<T> {
    serde_json::from_slice(data)
        .map_err(|source| Error::Decode { path: path.to_owned(), source: Arc::new(source) })
}

fn encode<T: Serialize>(path: &str, value: &T) -> Result<Bytes> {
    let json = serde_json::to_vec(value);
    json.map(Bytes::from).map_err(|source| Error::Decode { path: path.to_owned(), source: Arc::new(source) })
}
