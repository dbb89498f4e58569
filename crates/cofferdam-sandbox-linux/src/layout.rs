//! What a sandbox sees of the host, as data: the read-only trees, the files made for it, and what is hidden.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::PermissionsExt,
    },
    path::{Path, PathBuf},
};

use cofferdam_core::NetworkAccess;
use cofferdam_image::ImageEntry;
use cofferdam_sandbox::{RootFilesystem, SandboxError};

use crate::{
    plan::{Entry, HostTree, LandlockAccess, LandlockRule},
    rootfs::{Lists, Source},
    setup::invalid,
};

/// Where the workspace is.
pub(crate) const WORKSPACE: &str = "/workspace";
/// The home directory of the sandbox's user: empty, writable, not part of the workspace.
pub(crate) const HOME: &str = "/home/sandbox";

/// Where a sandbox has its places, as commands see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) workspace: String,
    pub(crate) home: String,
    /// Where programs leave what they need for a while, if that is not `/tmp`.
    pub(crate) temporary: Option<String>,
}

impl Places {
    /// Returns the places of a root of its own.
    pub(crate) fn of_own_root() -> Self {
        Self { workspace: WORKSPACE.to_owned(), home: HOME.to_owned(), temporary: None }
    }
}

/// Writable places below the new root; all share one bounded file system. `/tmp` and `/dev/shm` may hold what programs
/// leave there, without it becoming part of the workspace.
pub(crate) const WRITABLE: [&CStr; 4] = [c"workspace", c"home/sandbox", c"tmp", c"dev/shm"];

/// System directories at the top of the host's root: directories are cloned, links are made again.
pub(crate) const SYSTEM: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What programs need of `/etc`, and nothing that holds a secret or names the host's users: the loader's cache, links
/// of Debian's alternatives, certificates, the time zone, public tables, and directories without which Perl, Java,
/// terminals or fonts do not work. A name that ends with `*` is a prefix.
pub(crate) const ETC: [&str; 22] = [
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "debian_version",
    "fonts",
    "java-*",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mime.types",
    "os-release",
    "perl",
    "pki/ca-trust/extracted",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
];

/// Directories at the top of a given root that are not taken from it: every sandbox has its own, or none.
const OWN: [&str; 12] = [
    "boot",
    "dev",
    "home",
    "lost+found",
    "mnt",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "var",
    "workspace",
];

/// Files up to this many bytes are copied: that is cheaper than a mount.
const SMALL: u64 = 16 << 10;

/// Device nodes: nothing behind them but the kernel itself. `tty` is the process's own terminal, if it has one.
pub(crate) const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Files and directories of `/proc` that tell of the host, or are doors to it. All of `/proc` is read-only besides, and
/// what only the host's root may read is denied by its owner, since no sandbox is user 0 of the host.
const MASKS: [&CStr; 23] = [
    c"proc/acpi",
    c"proc/asound",
    c"proc/bus",
    c"proc/cmdline",
    c"proc/diskstats",
    c"proc/driver",
    c"proc/fs",
    c"proc/interrupts",
    c"proc/iomem",
    c"proc/ioports",
    c"proc/irq",
    c"proc/kallsyms",
    c"proc/kcore",
    c"proc/key-users",
    c"proc/keys",
    c"proc/kmsg",
    c"proc/latency_stats",
    c"proc/modules",
    c"proc/partitions",
    c"proc/sched_debug",
    c"proc/scsi",
    c"proc/sysrq-trigger",
    c"proc/timer_list",
];

/// What is in a new root.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Layers of an image to be stacked, uppermost first.
    pub(crate) layers: Vec<CString>,
    pub(crate) trees: Vec<HostTree>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) masks: Vec<CString>,
    pub(crate) landlock: Vec<LandlockRule>,
    pub(crate) staging: CString,
}

impl Layout {
    /// Looks at the host and returns the layout of a root.
    ///
    /// # Errors
    ///
    /// [`SandboxError::InvalidRequest`] if a given root directory cannot be one.
    pub(crate) fn of(root: &RootFilesystem, network: NetworkAccess) -> Result<Self, SandboxError> {
        let mut layout = Self::own();
        match root {
            RootFilesystem::HostSystem => layout.host_system(network),
            RootFilesystem::Directory(directory) => layout.root_directory(directory)?,
            other => {
                return Err(invalid(format!("the linux backend does not know the root {other:?}")));
            }
        }
        Ok(layout)
    }

    /// Returns the layout of a root that is an image.
    pub(crate) fn of_image(source: Source<'_>, lists: &Lists, network: NetworkAccess) -> Self {
        let mut layout = Self::own();
        // In a stack, trees are found by their path in it.
        let base = match source {
            Source::Tree(tree) => tree.to_owned(),
            Source::Stack(layers) => {
                layout.layers = layers.iter().cloned().filter_map(bytes).collect();
                PathBuf::new()
            }
        };
        for (name, entry) in &lists.top {
            let Some(text) = name.to_str() else { continue };
            if OWN.contains(&text) {
                continue;
            }
            match entry {
                ImageEntry::Directory => {
                    layout.directory(text);
                    layout.tree(&base.join(text), text, false);
                }
                ImageEntry::Link(target) => {
                    if let Some(target) = target.to_str() {
                        layout.link(text, target);
                    }
                }
                ImageEntry::File(file) => layout.host_copy(file, text),
                _ => {}
            }
        }
        if lists.has_var_lib {
            layout.directory("var/lib");
            layout.tree(&base.join("var/lib"), "var/lib", false);
        }
        // Names are resolved as on the host; an image without the file has no place for it.
        if network == NetworkAccess::Host
            && lists.has_resolver
            && let Ok(resolver) = fs::canonicalize("/etc/resolv.conf")
        {
            layout.tree(&resolver, "etc/resolv.conf", false);
        }
        layout
    }

    /// What every sandbox has of its own, whatever its programs are.
    fn own() -> Self {
        let mut layout = Self {
            layers: Vec::new(),
            trees: Vec::new(),
            entries: Vec::new(),
            masks: MASKS.into_iter().filter_map(mask).collect(),
            landlock: landlock_rules(),
            staging: staging(),
        };
        for directory in [
            "dev",
            "dev/pts",
            "dev/shm",
            "proc",
            "tmp",
            "workspace",
            "home",
            "home/sandbox",
            "run",
            "var",
            "var/empty",
        ] {
            layout.directory(directory);
        }
        layout.link("var/tmp", "../tmp");
        layout.link("var/run", "../run");
        for device in DEVICES {
            layout.host_tree(&Path::new("/dev").join(device), &format!("dev/{device}"), true);
        }
        for (name, target) in [
            ("dev/ptmx", "pts/ptmx"),
            ("dev/fd", "/proc/self/fd"),
            ("dev/stdin", "/proc/self/fd/0"),
            ("dev/stdout", "/proc/self/fd/1"),
            ("dev/stderr", "/proc/self/fd/2"),
        ] {
            layout.link(name, target);
        }
        layout
    }

    /// The host's system directories and a made `/etc`.
    fn host_system(&mut self, network: NetworkAccess) {
        for name in SYSTEM {
            self.host_copy(&Path::new("/").join(name), name);
        }
        self.directory("etc");
        for parent in ["etc/ssl", "etc/pki", "etc/pki/tls", "etc/pki/ca-trust"] {
            if Path::new("/").join(parent).is_dir() {
                self.directory(parent);
            }
        }
        for name in ETC {
            for found in matching(Path::new("/etc"), name) {
                self.host_copy(&Path::new("/etc").join(&found), &format!("etc/{found}"));
            }
        }
        let resolver = match network {
            // Names are resolved as on the host; there is no other sensible way to use the host's network.
            NetworkAccess::Host => fs::read("/etc/resolv.conf").unwrap_or_default(),
            _ => Vec::new(),
        };
        self.file("etc/resolv.conf", &resolver);
        self.file(
            "etc/passwd",
            b"root:x:0:0:root:/:/usr/sbin/nologin\n\
              sandbox:x:1000:1000:sandbox:/home/sandbox:/bin/sh\n\
              nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
        );
        self.file("etc/group", b"root:x:0:\nsandbox:x:1000:\nnogroup:x:65534:\n");
        self.file("etc/hosts", b"127.0.0.1 localhost sandbox\n::1 localhost sandbox\n");
        self.file("etc/hostname", b"sandbox\n");
        self.file("etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n");
        self.link("etc/mtab", "/proc/self/mounts");
    }

    /// The directories at the top of a given root, but those that every sandbox has of its own.
    fn root_directory(&mut self, directory: &Path) -> Result<(), SandboxError> {
        let refuse = |error: io::Error| {
            invalid(format!("the root directory {} cannot be used: {error}", directory.display()))
        };
        if !directory.is_absolute() {
            return Err(invalid(format!(
                "the root directory {} is not an absolute path",
                directory.display()
            )));
        }
        let directory = fs::canonicalize(directory).map_err(refuse)?;
        if directory == Path::new("/") {
            return Err(invalid(
                "the root directory is the host's own root, which would show all of the host; use the host system root",
            ));
        }
        let mut names: Vec<_> = fs::read_dir(&directory)
            .map_err(refuse)?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<io::Result<_>>()
            .map_err(refuse)?;
        names.sort();
        for name in names {
            match name.to_str() {
                Some(own) if OWN.contains(&own) => {}
                Some(text) => self.host_copy(&directory.join(&name), text),
                // No program looks for a top directory that is not text.
                None => {}
            }
        }
        // The parts of `/var` that programs of an image look for; the rest is for services.
        // A link there would lead to the host's.
        if ["var", "var/lib"].iter().all(|name| {
            fs::symlink_metadata(directory.join(name)).is_ok_and(|found| found.is_dir())
        }) {
            self.directory("var/lib");
            self.host_tree(&directory.join("var/lib"), "var/lib", false);
        }
        Ok(())
    }

    /// Shows a directory or file of the host, or makes its link again.
    fn host_copy(&mut self, source: &Path, target: &str) {
        let Ok(metadata) = fs::symlink_metadata(source) else { return };
        if metadata.is_symlink() {
            if let Ok(link) = fs::read_link(source)
                && let (Some(target), Some(link)) = (text(target), bytes(link))
            {
                self.entries.push(Entry::Link(target, link));
            }
        } else if metadata.is_dir() {
            self.directory(target);
            self.host_tree(source, target, false);
        } else if metadata.is_file() && metadata.len() <= SMALL {
            // Readable for others only: what is not must not be read on their behalf.
            if metadata.permissions().mode() & 0o004 != 0 {
                self.file(target, &fs::read(source).unwrap_or_default());
            }
        } else if metadata.is_file() {
            self.host_tree(source, target, false);
        }
    }

    /// Clones a tree; a file or device needs an empty file to be attached to.
    fn host_tree(&mut self, source: &Path, target: &str, devices: bool) {
        let Ok(metadata) = fs::metadata(source) else { return };
        if !metadata.is_dir() {
            self.file(target, b"");
        }
        self.tree(source, target, devices);
    }

    /// Clones a tree onto an entry that is there.
    fn tree(&mut self, source: &Path, target: &str, devices: bool) {
        if let (Some(source), Some(target)) = (bytes(source.to_owned()), text(target)) {
            self.trees.push(HostTree { source, target, devices });
        }
    }

    fn directory(&mut self, path: &str) {
        self.entries.extend(text(path).map(Entry::Directory));
    }

    fn link(&mut self, path: &str, target: &str) {
        self.entries
            .extend(text(path).zip(text(target)).map(|(path, target)| Entry::Link(path, target)));
    }

    fn file(&mut self, path: &str, content: &[u8]) {
        self.entries.extend(text(path).map(|path| Entry::File(path, content.to_vec())));
    }
}

/// Returns the path as the launcher wants it, with the `/` of a directory, if this host has it.
fn mask(path: &CStr) -> Option<CString> {
    let found = fs::metadata(Path::new("/").join(to_path(path))).ok()?;
    let slash: &[u8] = if found.is_dir() { b"/" } else { b"" };
    CString::new([path.to_bytes(), slash].concat()).ok()
}

/// Read and execute everywhere in the sandbox's own root, write to the writable places, use the devices. A path into
/// any other mount is beneath none of these.
fn landlock_rules() -> Vec<LandlockRule> {
    let rule = |path: &CStr, access| LandlockRule { path: path.into(), access };
    let mut rules = vec![rule(c"/", LandlockAccess::Read)];
    for path in [c"/workspace", c"/home/sandbox", c"/tmp", c"/dev/shm"] {
        rules.push(rule(path, LandlockAccess::Write));
    }
    rules.push(rule(c"/dev/pts", LandlockAccess::Device));
    let devices = DEVICES.iter().filter(|device| Path::new("/dev").join(device).exists());
    rules.extend(devices.filter_map(|device| {
        Some(LandlockRule {
            path: text(&format!("/dev/{device}"))?,
            access: LandlockAccess::Device,
        })
    }));
    rules
}

/// A directory to build the root over. It must exist; that it is covered is seen by the launcher's child alone.
fn staging() -> CString {
    [c"/tmp", c"/mnt", c"/srv"]
        .into_iter()
        .find(|path| to_path(path).is_dir())
        .unwrap_or(c"/usr")
        .into()
}

/// Returns the names in a directory that a pattern stands for: itself, or all with the prefix before a `*`.
pub(crate) fn matching(directory: &Path, pattern: &str) -> Vec<String> {
    let Some(prefix) = pattern.strip_suffix('*') else { return vec![pattern.to_owned()] };
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    names
}

fn text(text: &str) -> Option<CString> {
    CString::new(text).ok()
}

fn bytes(path: PathBuf) -> Option<CString> {
    CString::new(path.into_os_string().into_vec()).ok()
}

fn to_path(text: &CStr) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(text.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(layout: &Layout) -> Vec<&str> {
        layout.trees.iter().filter_map(|tree| tree.target.to_str().ok()).collect()
    }

    #[test]
    fn the_host_system_shows_no_directory_of_people_or_services() {
        let layout =
            Layout::of(&RootFilesystem::HostSystem, NetworkAccess::None).expect("a layout");
        let targets = targets(&layout);
        assert!(targets.contains(&"usr"));
        for secret in [
            "etc",
            "root",
            "home",
            "var",
            "run",
            "boot",
            "sys",
            "etc/shadow",
            "etc/passwd",
            "etc/ssl",
        ] {
            assert!(!targets.contains(&secret), "{secret} is shown");
        }
        for tree in &layout.trees {
            assert_eq!(tree.devices, tree.target.to_bytes().starts_with(b"dev/"), "{tree:?}");
        }
    }

    #[test]
    fn a_root_directory_is_shown_without_what_each_sandbox_has_of_its_own() {
        let root = tempfile::tempdir().expect("a directory");
        for name in ["usr", "usr/bin", "etc", "opt", "proc", "root", "tmp", "var", "var/lib"] {
            fs::create_dir(root.path().join(name)).expect("make");
        }
        std::os::unix::fs::symlink("usr/bin", root.path().join("bin")).expect("link");
        let layout =
            Layout::of(&RootFilesystem::Directory(root.path().to_owned()), NetworkAccess::None)
                .expect("a layout");
        let shown: Vec<_> =
            targets(&layout).into_iter().filter(|target| !target.starts_with("dev/")).collect();
        assert_eq!(shown, ["etc", "opt", "usr", "var/lib"]);
        assert!(layout.entries.contains(&Entry::Link(c"bin".into(), c"usr/bin".into())));
    }

    #[test]
    fn a_root_directory_that_cannot_be_one_is_refused() {
        for (path, expect) in [
            (
                "relative",
                "invalid sandbox request: the root directory relative is not an absolute path",
            ),
            (
                "/no/such",
                "invalid sandbox request: the root directory /no/such cannot be used: No such file or directory (os error 2)",
            ),
            (
                "/usr/..",
                "invalid sandbox request: the root directory is the host's own root, which would show all of the host; use the host system root",
            ),
        ] {
            let error = Layout::of(&RootFilesystem::Directory(path.into()), NetworkAccess::None)
                .expect_err("refused");
            assert_eq!(error.to_string(), expect);
        }
    }
}
