//! The sweep: what a process that was killed could not clean up, its successor does.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{Cgroups, Owner, group};

/// How long a sweep may wait for killed processes to leave, all directories together.
const PATIENCE: Duration = Duration::from_secs(2);

impl Cgroups {
    /// Ends what lives on in the directories of dead processes and removes them; returns how many there were.
    ///
    /// Only directories whose owner is known to be dead are touched: see [`Owner::is_dead`]. What is not empty within
    /// two seconds is left for the next sweep.
    pub(crate) fn sweep(&self) -> usize {
        self.sweep_of(Owner::is_dead)
    }

    pub(super) fn sweep_of(&self, is_dead: impl Fn(Owner) -> bool) -> usize {
        let orphaned: Vec<PathBuf> = self
            .parents()
            .into_iter()
            .flat_map(|parent| directories_of(parent, &is_dead))
            .collect();
        // All are killed before the first is waited for, so that a pile of them takes no longer than one.
        for directory in &orphaned {
            if let Err(error) = group::kill_directory(directory) {
                tracing::warn!(directory = %directory.display(), %error, "could not end the leftovers of a dead process");
            }
        }
        let deadline = Instant::now() + PATIENCE;
        orphaned.iter().filter(|directory| remove(directory, deadline)).count()
    }
}

fn directories_of(parent: &Path, wanted: impl Fn(Owner) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| {
            let name = entry.file_name();
            name.to_str().and_then(Owner::of_directory).is_some_and(&wanted)
        })
        .map(|entry| entry.path())
        .collect()
}

fn remove(directory: &Path, deadline: Instant) -> bool {
    loop {
        match fs::remove_dir(directory) {
            Ok(()) => return true,
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(1));
            }
            // Another sweeper was quicker, or it is left for the next one.
            Err(_) => return false,
        }
    }
}
