//! The program `zk-server`: command line, log output, signals, exit code. The server itself is the library.

use std::io::{IsTerminal, Write};
use std::process::ExitCode as ProcessExitCode;
use std::sync::mpsc::{Sender, channel};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;
use zk_server::cli::{self, Command, Dev, DevStorage, Environment, ExitCode, Serve};
use zk_server::config::{Config, ConfigError, Warning};
use zk_server::{Ensemble, Server};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ProcessExitCode {
    // The allocator asks for huge pages. With many small objects that come and go, most of each stays empty: 4 KB
    // per idle session in place of 0.7.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    match cli::parse(std::env::args_os(), &Environment::of_process()) {
        Ok(Command::Serve(serve)) => run_configured(&serve),
        Ok(Command::CheckConfig(serve)) => check(&serve),
        Ok(Command::Dev(dev)) => run_dev(&dev),
        Err(error) => {
            error.print();
            error.exit_code()
        }
    }
    .into()
}

/// `zk-server zoo.cfg`
fn run_configured(serve: &Serve) -> ExitCode {
    start_logging("info");
    match loaded(serve.load()) {
        Ok(config) => run(config, &DevStorage::Directory(Default::default()), false),
        Err(code) => code,
    }
}

/// `zk-server dev`
fn run_dev(dev: &Dev) -> ExitCode {
    start_logging("warn");
    if dev.nodes > 1 {
        return run_ensemble(dev);
    }
    match loaded(dev.load()) {
        Ok(config) => run(config, &dev.storage, true),
        Err(code) => code,
    }
}

/// `zk-server dev --nodes 3`
fn run_ensemble(dev: &Dev) -> ExitCode {
    let (ends, end) = channel();
    if let Err(error) = watch_signals(ends) {
        eprintln!("cannot handle signals: {error}");
        return ExitCode::Unexpected;
    }
    // Sessions last between 2 and 20 ticks: with the tick of an ordinary server, people can step through a client.
    let tick = std::time::Duration::from_millis(2000);
    let mut builder =
        Ensemble::builder().voters(usize::from(dev.nodes)).client_port(dev.port).tick_time(tick);
    if let DevStorage::Directory(path) = &dev.storage {
        builder = builder.data_dir(path);
    }
    for property in dev.overrides.in_order() {
        builder = builder.setting(&property.name, &property.value);
    }
    let ensemble = match builder.start() {
        Ok(ensemble) => ensemble,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return error.exit_code();
        }
    };
    print_address(&ensemble.connect_string());
    let ended = end.recv();
    drop(ensemble);
    match ended {
        Ok(End::Signal(_)) => ExitCode::Finished,
        Ok(End::Failed) | Err(_) => ExitCode::Unexpected,
    }
}

/// `zk-server --check-config zoo.cfg`
fn check(serve: &Serve) -> ExitCode {
    match serve.load() {
        Ok((_, warnings)) => {
            warnings.iter().for_each(|warning| eprintln!("{warning}"));
            println!("the configuration is good");
            ExitCode::Finished
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::BadConfig
        }
    }
}

fn loaded(result: Result<(Config, Vec<Warning>), ConfigError>) -> Result<Config, ExitCode> {
    match result {
        Ok((config, warnings)) => {
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            Ok(config)
        }
        Err(error) => {
            eprintln!("{error}");
            Err(ExitCode::BadConfig)
        }
    }
}

/// Why the program ends.
enum End {
    Signal(i32),
    Failed,
}

/// Serves until a signal or a failure.
fn run(config: Config, storage: &DevStorage, announce: bool) -> ExitCode {
    let (ends, end) = channel();
    if let Err(error) = watch_signals(ends.clone()) {
        eprintln!("cannot handle signals: {error}");
        return ExitCode::Unexpected;
    }
    let mut builder = Server::builder().config(config).on_failure(move |_| {
        // Nobody listens any more when the program ends already.
        let _ = ends.send(End::Failed);
    });
    if *storage == DevStorage::Memory {
        builder = builder.memory();
    }
    let server = match builder.start() {
        Ok(server) => server,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return error.exit_code();
        }
    };
    if announce {
        print_address(&server.connect_string());
    }
    match end.recv() {
        Ok(End::Signal(signal)) => {
            tracing::info!(signal, "stopping");
            server.shutdown_blocking();
            ExitCode::Finished
        }
        Ok(End::Failed) | Err(_) => {
            server.kill();
            ExitCode::Unexpected
        }
    }
}

/// Prints where to connect, for people and for scripts: the first line of standard output.
fn print_address(connect_string: &str) {
    let mut out = std::io::stdout();
    // A closed standard output is no reason to fail.
    let _ = writeln!(out, "{connect_string}").and_then(|()| out.flush());
}

/// Tells about the first signal that asks to stop. A second one ends the process at once.
fn watch_signals(ends: Sender<End>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new().name("zk-signals".into()).spawn(move || {
        let mut stopping = false;
        for signal in signals.forever() {
            if std::mem::replace(&mut stopping, true) {
                std::process::exit(128 + signal);
            }
            // The program may be about to end for another reason.
            let _ = ends.send(End::Signal(signal));
        }
    })?;
    Ok(())
}

/// Logs to standard error; `RUST_LOG` chooses what.
fn start_logging(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
