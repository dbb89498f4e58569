//! Debian packages for the programs that tests start.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::command::{find_program, output, run as run_command, succeeds};
use crate::report::Report;

/// Something a test needs, the package that brings it, and what is lost without.
struct Need {
    what: &'static str,
    package: &'static str,
    without: &'static str,
    present: fn() -> bool,
}

const NEEDS: &[Need] = &[
    Need {
        what: "bwrap",
        package: "bubblewrap",
        without: "the comparison with bwrap in `cargo xtask bench`",
        present: || find_program("bwrap").is_some(),
    },
    Need {
        what: "a C compiler",
        package: "gcc",
        without: "building at all: cargo links with it",
        present: || find_program("cc").is_some(),
    },
    Need {
        what: "the static C library",
        package: "libc6-dev",
        without: "building the guest program",
        present: has_static_libc,
    },
    Need {
        what: "a C++ compiler",
        package: "g++",
        without: "the suite `fuzz`",
        present: || find_program("c++").is_some(),
    },
    Need {
        what: "dockerd",
        package: "docker.io",
        without: "the tests of the Docker backend",
        present: || find_program("dockerd").is_some(),
    },
    Need {
        what: "busybox",
        package: "busybox-static",
        without: "the tests of the Docker backend, whose images are made of it",
        present: || find_program("busybox").is_some(),
    },
    Need {
        what: "podman",
        package: "podman",
        without: "the tests of the Docker backend on Podman",
        present: || find_program("podman").is_some(),
    },
    Need {
        what: "sshd",
        package: "openssh-server",
        without: "the test of an engine over ssh",
        present: || find_program("sshd").is_some(),
    },
    Need {
        what: "git",
        package: "git",
        without: "`git` entries of a manifest, and their tests",
        present: || find_program("git").is_some(),
    },
    Need {
        what: "docker-registry",
        package: "docker-registry",
        without: "pulling images from a real registry, in the tests of cofferdam-registry",
        present: || find_program("docker-registry").is_some(),
    },
    Need {
        what: "a static busybox",
        package: "busybox-static",
        without: "sandboxes with the programs of an image, in the tests of cofferdam-sandbox-linux",
        present: || Path::new("/bin/busybox").exists(),
    },
    Need {
        what: "perl",
        package: "perl",
        without: "the example's job",
        present: || find_program("perl").is_some(),
    },
    Need {
        what: "Python with venv",
        package: "python3-venv",
        without: "the suites openai-python and local-model",
        present: || succeeds(Command::new("python3").args(["-c", "import venv, ensurepip"])),
    },
];

fn has_static_libc() -> bool {
    let name = output(Command::new("cc").arg("-print-file-name=libc.a"));
    // The compiler answers with the bare name for a file that it does not find.
    name.is_ok_and(|name| Path::new(&name).is_absolute())
}

pub(crate) fn install(report: &mut Report) -> Result<()> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !(need.present)()).collect();
    for need in NEEDS.iter().filter(|need| (need.present)()) {
        println!("{} is installed", need.what);
    }
    report.passed += (NEEDS.len() - missing.len()) as u64;
    if missing.is_empty() {
        return Ok(());
    }
    let Some(apt) = find_program("apt-get") else {
        return give_up(&missing, "this system has no apt-get", report);
    };
    let Some(root) = root_prefix() else {
        return give_up(&missing, "apt-get needs root, or sudo without a password", report);
    };
    let apt_get = |words: &[&str]| {
        // Through `env`, because sudo does not hand the caller's variables on.
        let mut line = root.clone();
        line.extend(["env", "DEBIAN_FRONTEND=noninteractive"].map(OsString::from));
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).arg(&apt).args(words);
        run_command(&mut command)
    };
    // A stale index names versions that are gone; where updating fails the installation below says so.
    apt_get(&["-q", "update"])?;
    let mut words = vec!["-q", "install", "--yes", "--no-install-recommends"];
    words.extend(missing.iter().map(|need| need.package));
    apt_get(&words)?;
    for need in missing {
        report.check(
            &format!("{} is still missing after installing {}", need.what, need.package),
            (need.present)(),
        );
    }
    Ok(())
}

fn give_up(missing: &[&Need], why: &str, report: &mut Report) -> Result<()> {
    for Need { what, package, without, .. } in missing {
        report.skip(
            *what,
            format!("{why}: install {package} by hand; until then it stops {without}"),
        );
    }
    Ok(())
}

/// The words before a command that make it run as root: none for root itself.
fn root_prefix() -> Option<Vec<OsString>> {
    if std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0) {
        return Some(Vec::new());
    }
    let sudo = find_program("sudo")?;
    succeeds(Command::new(&sudo).args(["-n", "true"])).then(|| vec![sudo.into(), "-n".into()])
}
