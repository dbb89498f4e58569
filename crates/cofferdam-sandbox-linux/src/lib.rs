//! Sealed Linux sandboxes from namespaces, Landlock, seccomp and cgroups; no daemon, root or rootless
