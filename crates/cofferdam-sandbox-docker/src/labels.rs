//! What is written on containers and images, so that whoever comes later knows whose they are and until when.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    time::Duration,
};

use cofferdam_sandbox::SandboxSpec;

/// The sandbox's name. What has it is a container of a sandbox.
pub(crate) const SANDBOX: &str = "cofferdam.sandbox";
/// The process that made it: [`Owner`] as text.
pub(crate) const OWNER: &str = "cofferdam.owner";
/// Seconds after its creation at which it is nobody's.
pub(crate) const SECONDS: &str = "cofferdam.seconds";
/// What a host proves itself with to a guest that lingers, in hexadecimal digits. Whoever may read labels may do all with a
/// container.
pub(crate) const SESSION: &str = "cofferdam.session";
/// The process that made a sandbox which outlives it: [`Owner`] as text.
pub(crate) const MAKER: &str = "cofferdam.maker";
/// [`SandboxState::data`](cofferdam_sandbox::SandboxState::data) as JSON, for who finds a sandbox in a list.
pub(crate) const STATE: &str = "cofferdam.state";
/// The image that a prepared image was made of.
pub(crate) const BASE_IMAGE: &str = "cofferdam.base-image";
/// Before the names of the specification's own labels.
const OF_SPEC: &str = "cofferdam.label.";

/// How long a container that only helps, to prepare an image, may be there.
const HELPER: Duration = Duration::from_secs(600);

/// How long after its wall time a sandbox is nobody's: its own process ends it at its wall time.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// Who writes labels.
#[derive(Debug, Clone)]
pub(crate) struct Labels {
    pub(crate) owner: Owner,
}

impl Labels {
    pub(crate) fn for_sandbox(&self, id: &str, spec: &SandboxSpec) -> HashMap<String, String> {
        let own =
            spec.labels.iter().map(|(name, value)| (format!("{OF_SPEC}{name}"), value.clone()));
        let mut labels: HashMap<_, _> = own.collect();
        labels.extend(self.common(spec.limits.wall_time.saturating_add(GRACE)));
        labels.insert(SANDBOX.to_owned(), id.to_owned());
        if !spec.linger.is_zero() {
            // It outlives its process, so that says nothing of it.
            labels.insert(OWNER.to_owned(), Owner::default().to_string());
            labels.insert(MAKER.to_owned(), self.owner.to_string());
        }
        labels
    }

    /// Returns the labels of the specification among those of a container.
    pub(crate) fn of_spec(labels: &HashMap<String, String>) -> BTreeMap<String, String> {
        let own = labels.iter().filter_map(|(name, value)| {
            Some((name.strip_prefix(OF_SPEC)?.to_owned(), value.clone()))
        });
        own.collect()
    }

    pub(crate) fn for_helper(&self) -> HashMap<String, String> {
        self.common(HELPER).into()
    }

    fn common(&self, life: Duration) -> [(String, String); 2] {
        [
            (OWNER.to_owned(), self.owner.to_string()),
            (SECONDS.to_owned(), life.as_secs().to_string()),
        ]
    }
}

/// A process, told from all others of this host: which boot, which process namespace, which process, started when.
///
/// On a host without `/proc` it is empty, and what it made is only known to be nobody's when its time is over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Owner {
    /// Boot and process namespace: what makes process ids comparable.
    place: String,
    process: u32,
    started: u64,
}

impl Owner {
    /// Returns this process.
    pub(crate) fn this() -> Self {
        let process = std::process::id();
        let (Some(place), Some(started)) = (place(), start_time(process)) else {
            return Self::default();
        };
        Self { place, process, started }
    }

    /// Returns whether this is a process of this host that lives.
    pub(crate) fn is_alive(&self) -> bool {
        place().is_some_and(|here| here == self.place)
            && start_time(self.process) == Some(self.started)
    }

    /// Returns whether this is a process of this host, and is no more.
    pub(crate) fn is_dead(&self) -> bool {
        place().is_some_and(|here| here == self.place)
            && start_time(self.process) != Some(self.started)
    }

    /// Reads what [`Owner`] writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let owner = Self {
            place: parts.next()?.to_owned(),
            process: parts.next()?.parse().ok()?,
            started: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(owner)
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.place, self.process, self.started)
    }
}

fn place() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), namespace.display()))
}

/// Returns when a process was started, in ticks since boot; none if there is no such process, or only what is left of one.
fn start_time(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program may hold anything, also parentheses and spaces.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_read_as_it_was_written() {
        let this = Owner::this();
        assert_ne!(this, Owner::default());
        assert_eq!(Owner::parse(&this.to_string()), Some(this));
        for wrong in ["", "a", "a/b/c", "a/1/2/3", "a/1"] {
            assert_eq!(Owner::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_a_process_of_this_host_is_known_to_be_dead() {
        let this = Owner::this();
        assert!(this.is_alive() && !this.is_dead());
        assert!(
            Owner { started: this.started + 1, ..this.clone() }.is_dead(),
            "another of that id"
        );
        assert!(!Owner { place: "elsewhere".to_owned(), started: 1, ..this }.is_dead());
        assert!(!Owner::default().is_dead());
    }
}
