//! Describing a server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::start::{self, Storage};
use super::{Server, StartError};
use crate::config::{Config, Overrides};

/// Describes a server, see [`Server::builder`].
#[derive(Clone)]
pub struct ServerBuilder {
    config: Option<Config>,
    data_dir: Option<PathBuf>,
    memory: bool,
    client_port: Option<u16>,
    tick_time: Option<Duration>,
    session_timeouts: Option<(Duration, Duration)>,
    io_threads: Option<usize>,
    on_failure: Arc<dyn Fn(&str) + Send + Sync>,
}

impl std::fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerBuilder").finish_non_exhaustive()
    }
}

impl Default for ServerBuilder {
    fn default() -> Self {
        ServerBuilder {
            config: None,
            data_dir: None,
            memory: false,
            client_port: None,
            tick_time: None,
            session_timeouts: None,
            io_threads: None,
            on_failure: Arc::new(|_| {}),
        }
    }
}

impl ServerBuilder {
    /// Keeps nothing on disk: when the server stops, its data is gone.
    pub fn memory(mut self) -> Self {
        self.memory = true;
        self
    }

    /// Keeps the data in this directory, which is created if need be. What is there is served.
    pub fn data_dir(mut self, path: impl AsRef<Path>) -> Self {
        self.data_dir = Some(path.as_ref().to_owned());
        self
    }

    /// The port for clients; 0 (the default without [`ServerBuilder::config`]) takes a free one.
    pub fn client_port(mut self, port: u16) -> Self {
        self.client_port = Some(port);
        self
    }

    /// The unit of time, in which sessions expire. Session timeouts are granted between 2 and 20 of it.
    pub fn tick_time(mut self, tick: Duration) -> Self {
        self.tick_time = Some(tick);
        self
    }

    /// The shortest and the longest session timeout that clients get.
    pub fn session_timeouts(mut self, min: Duration, max: Duration) -> Self {
        self.session_timeouts = Some((min, max));
        self
    }

    /// Number of threads that serve connections: by default one per core, at most 64.
    pub fn io_threads(mut self, threads: usize) -> Self {
        self.io_threads = Some(threads);
        self
    }

    /// A whole configuration, instead of the one for development. The other settings of the builder change it.
    pub fn config(mut self, config: Config) -> Self {
        self.config = Some(config);
        self
    }

    /// Called when the server has to stop by itself because something in it is broken, with the reason. It
    /// serves nobody any more then; drop it.
    pub fn on_failure(mut self, call: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.on_failure = Arc::new(call);
        self
    }

    /// Starts the server. Blocks while it reads its data: a few milliseconds for a new server, about a second
    /// per two million nodes. Clients can connect when this returns.
    ///
    /// # Errors
    /// [`StartError`]; nothing keeps running then.
    pub fn start(self) -> Result<Server, StartError> {
        let ServerBuilder { config, data_dir, memory, client_port, tick_time, session_timeouts, .. } = self;
        let mut config = match config {
            Some(config) => config,
            None if memory || data_dir.is_some() => {
                let dir = data_dir.as_deref().unwrap_or(Path::new("memory"));
                let (mut config, _) = Config::dev(dir, 0, &Overrides::default(), false)?;
                // Everybody who embeds a server is on this machine.
                config.max_client_cnxns = None;
                config
            }
            None => return Err(StartError::NoStorage),
        };
        if let Some(dir) = data_dir {
            config.data_log_dir.clone_from(&dir);
            config.data_dir = dir;
        }
        if let Some(port) = client_port {
            config.client_port = Some(port);
        }
        if let Some(tick) = tick_time {
            config.tick_time_ms = ms(tick).max(1);
            config.min_session_timeout_ms = config.tick_time_ms.saturating_mul(2);
            config.max_session_timeout_ms = config.tick_time_ms.saturating_mul(20);
        }
        if let Some((min, max)) = session_timeouts {
            config.min_session_timeout_ms = ms(min);
            config.max_session_timeout_ms = ms(max);
        }
        let storage = if memory { Storage::Memory } else { Storage::Disk };
        start::start(config, storage, self.io_threads, self.on_failure)
    }
}

fn ms(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
