//! `fuzz_seeds TARGET DIRECTORY` writes the seeds of a fuzz target into a directory, one file each.

use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs, io};

use zk_tests::fuzz;

fn main() -> ExitCode {
    let [target, directory] = &env::args().skip(1).collect::<Vec<_>>()[..] else {
        eprintln!("usage: fuzz_seeds TARGET DIRECTORY");
        return ExitCode::from(2);
    };
    match write(target, PathBuf::from(directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{directory}: {e}");
            ExitCode::FAILURE
        }
    }
}

fn write(target: &str, directory: PathBuf) -> io::Result<()> {
    fs::create_dir_all(&directory)?;
    for (i, seed) in (fuzz::target(target).seeds)().iter().enumerate() {
        fs::write(directory.join(format!("seed-{i:04}")), seed)?;
    }
    Ok(())
}
