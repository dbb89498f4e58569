//! Which files make which limit, for each version.

use std::{fs, io, path::Path};

use cofferdam_core::SandboxLimits;

use super::{Controller, Version};

/// The period over which processor time is shared out, in microseconds.
const PERIOD_US: u64 = 100_000;

/// The shares of version 1 that are the weight 100 of version 2, its default.
const SHARES_OF_WEIGHT_100: u64 = 1024;

/// A file of a cgroup, and whether it may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setting {
    Must(&'static str),
    IfThere(&'static str),
}

/// Returns the limit of processes with the one that the guest itself is.
pub(crate) fn process_slots(limits: &SandboxLimits) -> u64 {
    u64::from(limits.processes) + 1
}

/// Writes the limits of a controller.
pub(super) fn apply(
    controller: Controller,
    version: Version,
    limits: &SandboxLimits,
    directory: &Path,
) -> io::Result<()> {
    settings(controller, version, limits)
        .into_iter()
        .try_for_each(|(setting, value)| write_setting(directory, setting, &value))
}

/// The files that make the limit.
fn settings(
    controller: Controller,
    version: Version,
    limits: &SandboxLimits,
) -> Vec<(Setting, String)> {
    use Setting::{IfThere, Must};
    match (controller, version) {
        (Controller::Memory, Version::V1) => vec![
            (Must("memory.limit_in_bytes"), limits.memory_bytes.to_string()),
            // Without swap accounting the file is missing, and swap is not counted.
            (IfThere("memory.memsw.limit_in_bytes"), limits.memory_bytes.to_string()),
        ],
        (Controller::Memory, Version::V2) => vec![
            (Must("memory.max"), limits.memory_bytes.to_string()),
            (IfThere("memory.swap.max"), "0".to_owned()),
        ],
        (Controller::Processes, _) => {
            vec![(Must("pids.max"), process_slots(limits).to_string())]
        }
        (Controller::Cpu, version) => {
            let quota = limits.cpu_millis.map(|millis| u64::from(millis) * (PERIOD_US / 1000));
            let quota = quota.into_iter().flat_map(|quota| match version {
                Version::V1 => vec![
                    (Must("cpu.cfs_period_us"), PERIOD_US.to_string()),
                    (Must("cpu.cfs_quota_us"), quota.to_string()),
                ],
                Version::V2 => vec![(Must("cpu.max"), format!("{quota} {PERIOD_US}"))],
            });
            let weight = limits.cpu_weight.map(|weight| match version {
                // The kernel raises shares below 2 to 2.
                Version::V1 => {
                    let shares = u64::from(weight) * SHARES_OF_WEIGHT_100 / 100;
                    (Must("cpu.shares"), shares.to_string())
                }
                Version::V2 => (Must("cpu.weight"), weight.to_string()),
            });
            quota.chain(weight).collect()
        }
    }
}

fn write_setting(directory: &Path, setting: Setting, value: &str) -> io::Result<()> {
    let (Setting::Must(file) | Setting::IfThere(file)) = setting;
    match (setting, write_file(&directory.join(file), value)) {
        (Setting::IfThere(_), Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        (_, written) => written,
    }
}

/// Writes to a file that is there. Creating it would make a plain file where there is no controller.
pub(super) fn write_file(path: &Path, value: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    io::Write::write_all(&mut file, value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(limits: &SandboxLimits) -> String {
        let lines: Vec<String> = [Version::V1, Version::V2]
            .into_iter()
            .flat_map(|version| Controller::ALL.map(|controller| (controller, version)))
            .flat_map(|(controller, version)| settings(controller, version, limits))
            .map(|(file, value)| format!("{file:?} = {value}"))
            .collect();
        lines.join("\n")
    }

    #[test]
    fn the_settings_of_each_version_are_exact() {
        let limits = SandboxLimits {
            memory_bytes: 1 << 20,
            processes: 7,
            cpu_millis: Some(1500),
            cpu_weight: Some(250),
            ..SandboxLimits::default()
        };
        insta::assert_snapshot!(check(&limits), @r#"
        Must("memory.limit_in_bytes") = 1048576
        IfThere("memory.memsw.limit_in_bytes") = 1048576
        Must("pids.max") = 8
        Must("cpu.cfs_period_us") = 100000
        Must("cpu.cfs_quota_us") = 150000
        Must("cpu.shares") = 2560
        Must("memory.max") = 1048576
        IfThere("memory.swap.max") = 0
        Must("pids.max") = 8
        Must("cpu.max") = 150000 100000
        Must("cpu.weight") = 250
        "#);
    }

    #[test]
    fn what_was_not_asked_for_is_not_set() {
        insta::assert_snapshot!(check(&SandboxLimits::default()), @r#"
        Must("memory.limit_in_bytes") = 2147483648
        IfThere("memory.memsw.limit_in_bytes") = 2147483648
        Must("pids.max") = 257
        Must("memory.max") = 2147483648
        IfThere("memory.swap.max") = 0
        Must("pids.max") = 257
        "#);
    }
}
